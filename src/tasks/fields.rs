//! Reads the fields of a cron schedule. What is not understood is refused, at its place.

use crate::tasks::cron::{Cron, Days, Set, Weekdays};

/// What is wrong with a specification, at which byte, and what was expected there.
#[derive(PartialEq, Eq, Debug)]
pub struct Wrong {
    pub at: usize,
    pub message: String,
    /// A complete sentence, which begins with "Expected".
    pub expected: String,
    pub hint: Option<&'static str>,
}

pub type Read<T> = Result<T, Wrong>;

pub fn wrong<T>(at: usize, message: impl Into<String>, expected: impl Into<String>) -> Read<T> {
    Err(Wrong {
        at,
        message: message.into(),
        expected: expected.into(),
        hint: None,
    })
}

fn with_hint<T>(read: Read<T>, hint: &'static str) -> Read<T> {
    read.map_err(|wrong| Wrong {
        hint: Some(hint),
        ..wrong
    })
}

/// Text that is read from the left to the right.
pub struct Cursor<'a> {
    text: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    pub fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Whether the next byte is `byte`, a letter in either case, which then is taken.
    pub fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek().is_some_and(|next| next.eq_ignore_ascii_case(&byte));
        self.at += usize::from(is_next);
        is_next
    }

    pub fn skip_spaces(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Whether there is nothing more of the field.
    fn is_field_over(&self) -> bool {
        self.peek().is_none_or(|byte| byte.is_ascii_whitespace())
    }

    /// Takes digits: the number, and how many digits it has. One that is too large is the largest one.
    pub fn number(&mut self) -> Option<(u32, usize)> {
        let begin = self.at;
        let mut number = 0u32;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
            self.at += 1;
        }
        (self.at > begin).then_some((number, self.at - begin))
    }

    /// Takes one of the names, in upper or lower case: its number among them.
    fn name(&mut self, names: &[&str]) -> Option<u32> {
        let rest = self.text.get(self.at..)?;
        let found = names.iter().position(|name| {
            rest.get(..name.len())
                .is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
        })?;
        self.at += names.get(found)?.len();
        Some(found as u32)
    }

    /// What comes next, for a message.
    pub fn next(&self) -> String {
        match self.peek() {
            None => "end of the text".to_owned(),
            Some(byte) if byte.is_ascii_whitespace() => "end of the field".to_owned(),
            Some(byte) if byte.is_ascii_graphic() => format!("\"{}\"", byte as char),
            Some(_) => "character".to_owned(),
        }
    }

    /// The error for what comes next.
    pub fn unexpected<T>(&self, expected: impl Into<String>) -> Read<T> {
        wrong(self.at, format!("unexpected {}", self.next()), expected)
    }
}

/// What a field is about.
struct Field {
    what: &'static str,
    low: u32,
    high: u32,
    names: &'static [&'static str],
    /// How many values it has: the longest step.
    values: u32,
}

static SECOND: Field = Field {
    what: "second",
    low: 0,
    high: 59,
    names: &[],
    values: 60,
};
static MINUTE: Field = Field {
    what: "minute",
    ..SECOND
};
static HOUR: Field = Field {
    what: "hour",
    high: 23,
    values: 24,
    ..SECOND
};
static DAY: Field = Field {
    what: "day of month",
    low: 1,
    high: 31,
    names: &[],
    values: 31,
};
static MONTH: Field = Field {
    what: "month",
    low: 1,
    high: 12,
    names: &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
    values: 12,
};
/// 7 is Sunday, as 0 is.
static WEEKDAY: Field = Field {
    what: "day of week",
    low: 0,
    high: 7,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
    values: 7,
};
const SUNDAY: u32 = 7;

impl Field {
    fn range(&self) -> String {
        let names = match self.names {
            [first, .., last] => format!(" or a name from {first} to {last}"),
            _ => String::new(),
        };
        format!("a number from {} to {}{names}", self.low, self.high)
    }

    fn expected(&self) -> String {
        let more = match self.what {
            "day of month" => ", \"*\", \"?\", \"L\" or \"$\"",
            "day of week" => ", \"*\" or \"?\"",
            _ => " or \"*\"",
        };
        format!("Expected {}{more} as the {}.", self.range(), self.what)
    }

    /// A number or a name, and whether it was a name.
    fn value(&self, cursor: &mut Cursor, expected: &str) -> Read<(u32, bool)> {
        let begin = cursor.at;
        if let Some(index) = cursor.name(self.names) {
            return Ok((index + self.low, true));
        }
        match cursor.number() {
            Some((number, _)) if (self.low..=self.high).contains(&number) => Ok((number, false)),
            Some(_) => wrong(
                begin,
                format!("{} is out of range", self.what),
                format!("Expected {}.", self.range()),
            ),
            None => cursor.unexpected(expected),
        }
    }

    /// A value, or a range of them: the first and the last.
    fn values(&self, cursor: &mut Cursor) -> Read<(u32, u32)> {
        let (low, _) = self.value(cursor, &self.expected())?;
        if !cursor.takes(b'-') {
            return Ok((low, low));
        }
        let begin = cursor.at;
        let expected = format!("Expected {} as the end of the range.", self.range());
        let (mut high, is_name) = self.value(cursor, &expected)?;
        if is_name && high == 0 {
            high = SUNDAY;
        }
        if high < low {
            return with_hint(
                wrong(
                    begin,
                    format!("{} range ends before it begins", self.what),
                    format!("Expected {low} or more."),
                ),
                "Write two ranges, with a comma between them.",
            );
        }
        Ok((low, high))
    }

    /// What may follow a range: 1 without a step.
    fn step(&self, cursor: &mut Cursor) -> Read<u32> {
        if !cursor.takes(b'/') {
            return Ok(1);
        }
        let begin = cursor.at;
        let expected = format!("Expected a number from 1 to {} as the step.", self.values);
        match cursor.number() {
            Some((step, _)) if (1..=self.values).contains(&step) => Ok(step),
            Some(_) => wrong(begin, format!("step of the {} is out of range", self.what), expected),
            None => cursor.unexpected(expected),
        }
    }

    fn add(&self, to: &mut Set, (low, high): (u32, u32), step: u32) {
        for value in (low..=high).step_by(step as usize) {
            to.add(if self.high == SUNDAY { value % SUNDAY } else { value });
        }
    }

    /// `*`, a value, or a range, each with a step if it is not a single value.
    fn element(&self, cursor: &mut Cursor, to: &mut Set) -> Read<()> {
        if cursor.takes(b'*') {
            let step = self.step(cursor)?;
            self.add(to, (self.low, self.low + self.values - 1), step);
            return Ok(());
        }
        let begin = cursor.at;
        let values = self.values(cursor)?;
        let is_range = cursor
            .text
            .get(begin..cursor.at)
            .is_some_and(|text| text.contains(&b'-'));
        if cursor.peek() == Some(b'/') && !is_range {
            return with_hint(
                wrong(
                    cursor.at,
                    format!("step after a single {}", self.what),
                    "Expected a comma or the end of the field.",
                ),
                "A step follows \"*\" or a range, as in 5-59/15.",
            );
        }
        let step = self.step(cursor)?;
        self.add(to, values, step);
        Ok(())
    }

    /// A field: elements with commas between them. Returns whether it begins with `*`.
    fn list(&self, cursor: &mut Cursor, mut element: impl FnMut(&mut Cursor) -> Read<()>) -> Read<bool> {
        let begins_with_star = cursor.peek() == Some(b'*');
        loop {
            element(cursor)?;
            if cursor.is_field_over() {
                return Ok(begins_with_star);
            }
            if !cursor.takes(b',') {
                return cursor.unexpected(format!("Expected a comma or the end of the {}.", self.what));
            }
        }
    }

    fn set(&self, cursor: &mut Cursor) -> Read<(Set, bool)> {
        let mut set = Set::default();
        let begins_with_star = self.list(cursor, |cursor| self.element(cursor, &mut set))?;
        Ok((set, begins_with_star))
    }
}

/// `?` alone is a day field that is not given.
fn is_not_given(cursor: &mut Cursor) -> bool {
    let begin = cursor.at;
    let is_alone = cursor.takes(b'?') && cursor.is_field_over();
    if !is_alone {
        cursor.at = begin;
    }
    is_alone
}

fn days(cursor: &mut Cursor) -> Read<Days> {
    let mut days = Days::default();
    if is_not_given(cursor) {
        DAY.add(&mut days.numbers, (DAY.low, DAY.high), 1);
        return Ok(days);
    }
    let begins_with_star = DAY.list(cursor, |cursor| {
        let begin = cursor.at;
        if cursor.takes(b'$') {
            days.before_last.add(0);
        } else if cursor.takes(b'L') {
            if cursor.takes(b'W') {
                days.nearest.add(0);
            } else if cursor.takes(b'-') {
                let begin = cursor.at;
                match cursor.number() {
                    Some((before @ 1..=30, _)) => days.before_last.add(before),
                    Some(_) => {
                        return wrong(
                            begin,
                            "number of days before the last one is out of range",
                            "Expected a number from 1 to 30.",
                        );
                    }
                    None => return cursor.unexpected("Expected a number from 1 to 30."),
                }
            } else {
                days.before_last.add(0);
            }
        } else {
            let is_number = cursor.number().is_some() && cursor.takes(b'W');
            cursor.at = begin;
            if is_number {
                let (day, _) = DAY.value(cursor, "")?;
                cursor.takes(b'W');
                days.nearest.add(day);
            } else {
                DAY.element(cursor, &mut days.numbers)?;
            }
        }
        Ok(())
    })?;
    days.is_given = !begins_with_star;
    Ok(days)
}

fn weekdays(cursor: &mut Cursor) -> Read<Weekdays> {
    let mut weekdays = Weekdays::default();
    if is_not_given(cursor) {
        WEEKDAY.add(&mut weekdays.numbers, (0, 6), 1);
        return Ok(weekdays);
    }
    let begins_with_star = WEEKDAY.list(cursor, |cursor| {
        let begin = cursor.at;
        let value = WEEKDAY.value(cursor, "");
        match (value, cursor.peek()) {
            (Ok((day, _)), Some(b'#')) => {
                cursor.at += 1;
                let begin = cursor.at;
                let expected = "Expected a number from 1 to 5.";
                match cursor.number() {
                    Some((n @ 1..=5, _)) => {
                        if let Some(set) = weekdays.nth.get_mut(n as usize - 1) {
                            set.add(day % SUNDAY);
                        }
                    }
                    Some(_) => return wrong(begin, "number of the week is out of range", expected),
                    None => return cursor.unexpected(expected),
                }
            }
            (Ok((day, _)), Some(b'L' | b'l')) => {
                cursor.at += 1;
                weekdays.last.add(day % SUNDAY);
            }
            _ => {
                cursor.at = begin;
                WEEKDAY.element(cursor, &mut weekdays.numbers)?;
            }
        }
        Ok(())
    })?;
    weekdays.is_given = !begins_with_star;
    Ok(weekdays)
}

/// The beginnings of the fields, and the end of the text.
fn beginnings(text: &[u8], from: usize) -> impl Iterator<Item = usize> {
    let is_space = |at: usize| text.get(at).is_none_or(u8::is_ascii_whitespace);
    (from..text.len()).filter(move |at| !is_space(*at) && (*at == from || is_space(*at - 1)))
}

/// Reads five fields, or six of which the first one is the second, from byte `from` on. Nothing may follow.
pub fn read(text: &[u8], from: usize) -> Read<Cron> {
    let expected = "Expected the five fields minute, hour, day of month, month and day of week, or six with the second before them.";
    let count = beginnings(text, from).count();
    match count {
        5 | 6 => {}
        0..5 => {
            return wrong(
                text.trim_ascii_end().len(),
                format!("{count} fields are too few"),
                expected,
            );
        }
        _ => {
            let seventh = beginnings(text, from).nth(6).unwrap_or(from);
            return wrong(seventh, format!("{count} fields are too many"), expected);
        }
    }
    let mut cursor = Cursor::new(text, from);
    cursor.skip_spaces();
    let mut cron = Cron::default();
    if count == 6 {
        cron.seconds = SECOND.set(&mut cursor)?.0;
        cursor.skip_spaces();
    } else {
        cron.seconds.add(0);
    }
    cron.minutes = MINUTE.set(&mut cursor)?.0;
    cursor.skip_spaces();
    (cron.hours, cron.follows_clock) = HOUR.set(&mut cursor)?;
    cursor.skip_spaces();
    let days_at = cursor.at;
    cron.days = days(&mut cursor)?;
    cursor.skip_spaces();
    cron.months = MONTH.set(&mut cursor)?.0;
    cursor.skip_spaces();
    cron.weekdays = weekdays(&mut cursor)?;
    if !cron.has_days() {
        return wrong(
            days_at,
            "no day ever fits",
            "Expected a day of month, month and day of week that come together.",
        );
    }
    Ok(cron)
}
