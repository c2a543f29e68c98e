//! Reads the fields of a cron schedule. What is not understood is refused, at its place.

use crate::tasks::cron::{Cron, Days, Set, Weekdays};
use crate::tasks::cursor::{Cursor, Read, with_hint, wrong};

/// What a field is about.
pub struct Field {
    what: &'static str,
    pub low: u32,
    pub high: u32,
    pub names: &'static [&'static str],
    /// How many values it has: the longest step.
    pub values: u32,
}

/// The five fields of cron, in their order.
pub static OF_CRON: [&Field; 5] = [&MINUTE, &HOUR, &DAY, &MONTH, &WEEKDAY];

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
                format!("too few fields ({count})"),
                expected,
            );
        }
        _ => {
            let seventh = beginnings(text, from).nth(6).unwrap_or(from);
            return wrong(seventh, format!("too many fields ({count})"), expected);
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

#[cfg(test)]
mod tests {
    use super::{Cron, Set, read};
    use crate::tasks::calendar::{DAY, day_number};

    fn cron(text: &str) -> Cron {
        read(text.as_bytes(), 0).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"))
    }

    fn set(numbers: impl IntoIterator<Item = u32>) -> Set {
        let mut set = Set::default();
        numbers.into_iter().for_each(|number| set.add(number));
        set
    }

    #[test]
    fn elements_of_a_field() {
        let minutes = |text: &str| cron(&format!("{text} 3 * * *")).minutes;
        assert_eq!(minutes("*"), set(0..60));
        assert_eq!(minutes("07"), set([7]));
        assert_eq!(minutes("1,59,5-7"), set([1, 5, 6, 7, 59]));
        assert_eq!(minutes("*/25"), set([0, 25, 50]));
        assert_eq!(minutes("*/60"), set([0]));
        assert_eq!(minutes("50-59/4,3-3"), set([3, 50, 54, 58]));
        assert_eq!(cron("0 0 1 JAN,mar-May,*/6 *").months, set([1, 3, 4, 5, 7]));
    }

    #[test]
    fn six_fields_begin_with_the_second() {
        assert_eq!(cron("0 3 * * *").seconds, set([0]));
        let six = cron(" */30\t15  3 * * * ");
        assert_eq!(
            (six.seconds, six.minutes, six.hours),
            (set([0, 30]), set([15]), set([3]))
        );
    }

    #[test]
    fn a_field_that_begins_with_a_star_is_not_given() {
        let given = |text: &str| {
            let cron = cron(text);
            (cron.follows_clock, cron.days.is_given, cron.weekdays.is_given)
        };
        assert_eq!(given("0 * * * *"), (true, false, false));
        assert_eq!(given("0 */2 */2 * */2"), (true, false, false));
        assert_eq!(given("0 0-23 1 * mon"), (false, true, true));
        assert_eq!(given("0 *,3 ? * ?"), (true, false, false));
        assert_eq!(given("0 0 *,1 * 0-6"), (false, false, true));
    }

    #[test]
    fn days() {
        // Of a month with 30 days that begins on a Saturday: 1 is one, 2 and 30 are Sundays.
        let days = |days: &str, weekdays: &str| cron(&format!("0 0 {days} * {weekdays}")).days_of_month(30, 6);
        assert_eq!(days("L", "*"), set([30]));
        assert_eq!(days("$,l-1,L-29,L-30", "?"), set([1, 29, 30]));
        assert_eq!(days("1W", "*"), set([3]));
        assert_eq!(days("2w", "*"), set([3]));
        assert_eq!(days("8W,9W,12W,31W", "*"), set([7, 10, 12]));
        assert_eq!(days("LW,30W", "*"), set([28]));
        assert_eq!(days("*", "sat"), set([1, 8, 15, 22, 29]));
        assert_eq!(days("*", "7"), set([2, 9, 16, 23, 30]));
        assert_eq!(days("*", "sat-sun"), set([1, 2, 8, 9, 15, 16, 22, 23, 29, 30]));
        assert_eq!(days("*", "5-7/2"), days("*", "Fri,Sun"));
        assert_eq!(days("*", "6#1,SUN#5,3#5"), set([1, 30]));
        assert_eq!(days("*", "5L,0L,7l,satL"), set([28, 29, 30]));
        assert_eq!(days("13", "5"), set([7, 13, 14, 21, 28]));
        assert_eq!(days("*/2", "5"), set([7, 21]));
        assert_eq!(days("13", "*/5"), set([]));
    }

    fn at(text: (i64, u32, u32), hour: i64, minute: i64, second: i64) -> i64 {
        day_number(text.0, text.1, text.2) * DAY + hour * 3600 + minute * 60 + second
    }

    #[test]
    fn the_first_time_is_found_by_fields() {
        let first = |text: &str, from: i64| cron(text).first(from);
        let from = at((2026, 11, 28), 23, 59, 59);
        assert_eq!(first("* * * * * *", from), Some(from));
        assert_eq!(first("* * * * *", from), Some(from + 1));
        assert_eq!(first("59 23 * * *", from), Some(at((2026, 11, 29), 23, 59, 0)));
        assert_eq!(first("59 59 23 28 11 *", from), Some(from));
        assert_eq!(first("58 59 23 28 11 *", from), Some(at((2027, 11, 28), 23, 59, 58)));
        assert_eq!(first("0 0 29 2 *", from), Some(at((2028, 2, 29), 0, 0, 0)));
        assert_eq!(
            first("0 0 29 2 */7", at((2088, 2, 29), 0, 0, 1)),
            Some(at((2128, 2, 29), 0, 0, 0))
        );
        assert_eq!(
            first("30 4 1 1 *", at((-4712, 1, 1), 4, 30, 1)),
            Some(at((-4711, 1, 1), 4, 30, 0))
        );
    }

    #[test]
    fn what_is_refused_and_where() {
        for (text, at, message) in [
            ("", 0, "too few fields (0)"),
            ("* * * *  ", 7, "too few fields (4)"),
            ("* * * * * * x y", 12, "too many fields (8)"),
            ("60 * * * *", 0, "minute is out of range"),
            ("99999999999999999999 * * * *", 0, "minute is out of range"),
            ("60 * * * * *", 0, "second is out of range"),
            ("* 24 * * *", 2, "hour is out of range"),
            ("* * 0 * *", 4, "day of month is out of range"),
            ("* * 1,32 * *", 6, "day of month is out of range"),
            ("* * 32W * *", 4, "day of month is out of range"),
            ("* * * 0 *", 6, "month is out of range"),
            ("* * * * 8", 8, "day of week is out of range"),
            ("* * * * 8L", 8, "day of week is out of range"),
            ("* * * * 1#0", 10, "number of the week is out of range"),
            ("* * * * 1#6", 10, "number of the week is out of range"),
            ("* * * * 1#", 10, "unexpected end of the text"),
            ("* * L-31 * *", 6, "number of days before the last one is out of range"),
            ("* * L- * *", 6, "unexpected end of the field"),
            ("* * LX * *", 5, "unexpected \"X\""),
            ("* * W * *", 4, "unexpected \"W\""),
            ("* * 1-5W * *", 7, "unexpected \"W\""),
            ("* * * * L", 8, "unexpected \"L\""),
            ("* * * * 1-5L", 11, "unexpected \"L\""),
            ("* * * * monday", 11, "unexpected \"d\""),
            ("* * * jan-xyz *", 10, "unexpected \"x\""),
            ("mon * * * *", 0, "unexpected \"m\""),
            ("* 22-2 * * *", 5, "hour range ends before it begins"),
            ("* * * nov-feb *", 10, "month range ends before it begins"),
            ("* * * * fri-mon", 12, "day of week range ends before it begins"),
            ("5/15 * * * *", 1, "step after a single minute"),
            ("*/0 * * * *", 2, "step of the minute is out of range"),
            ("*/61 * * * *", 2, "step of the minute is out of range"),
            ("*/ * * * *", 2, "unexpected end of the field"),
            ("1-5/x * * * *", 4, "unexpected \"x\""),
            ("1, * * * *", 2, "unexpected end of the field"),
            (",1 * * * *", 0, "unexpected \",\""),
            ("1-2-3 * * * *", 3, "unexpected \"-\""),
            ("-1 * * * *", 0, "unexpected \"-\""),
            ("+1 * * * *", 0, "unexpected \"+\""),
            ("1.5 * * * *", 1, "unexpected \".\""),
            ("** * * * *", 1, "unexpected \"*\""),
            ("? * * * *", 0, "unexpected \"?\""),
            ("* * ?,1 * *", 4, "unexpected \"?\""),
            ("* * * * ?/2", 8, "unexpected \"?\""),
            ("* * é * *", 4, "unexpected character"),
            ("0 0 31 2,4,6 *", 4, "no day ever fits"),
            ("0 0 30 2 *", 4, "no day ever fits"),
            ("0 0 L-29 feb ?", 4, "no day ever fits"),
            ("0 0 31W 6 *", 4, "no day ever fits"),
            ("0 0 30 2 */2", 4, "no day ever fits"),
        ] {
            match read(text.as_bytes(), 0) {
                Ok(cron) => panic!("{text} is {cron:?}"),
                Err(wrong) => assert_eq!((wrong.at, wrong.message.as_str()), (at, message), "{text}: {wrong:?}"),
            }
        }
        // A leap day, and a day of the week beside one that never is.
        cron("0 0 29 2 *");
        cron("0 0 31 2 mon");
        cron("0 0 * 2 mon#5");
    }

    #[test]
    fn nothing_that_is_cut_or_changed_panics() {
        let texts = ["*/5 1-7/2 L-3,15W,LW jan-MAR 5L,mon#2", "0 0 3 $ * ?", "@daily"];
        for text in texts {
            for at in 0..=text.len() {
                for byte in 0..=255u8 {
                    let mut changed = text.as_bytes().to_vec();
                    let _ = read(changed.get(..at).unwrap_or_default(), 0);
                    match changed.get_mut(at) {
                        Some(place) => *place = byte,
                        None => changed.push(byte),
                    }
                    if let Err(wrong) = read(&changed, 0) {
                        assert!(wrong.at <= changed.len() && wrong.expected.starts_with("Expected"));
                    }
                }
            }
        }
    }
}
