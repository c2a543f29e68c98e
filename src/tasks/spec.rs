//! The specification of a schedule: when it is due.
//!
//! What follows `every` is read by the server, as an interval. All else is read here, strictly: what PostgreSQL would read as a time can depend on
//! settings, and mean something else each time (`tomorrow`).

use crate::pg::error::{Failure, Report, Result};
use crate::pg::text;
use crate::pg::value::zone::{self, MICROSECONDS, Zone};
use crate::tasks::calendar::{self, DAY};
use crate::tasks::cron::Cron;
use crate::tasks::cursor::{Cursor, Read, Wrong, with_hint, wrong};
use crate::tasks::fields;
use pgrx::PgSqlErrorCode;

/// When a schedule is due. It means instants only together with a time zone, and with an instant that it counts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spec {
    /// Five or six fields, or a name like `@daily`.
    Cron(Cron),
    /// `every 2 hours`: an instant, and each that many intervals after it.
    Every(Every),
    /// `at 2027-01-31 03:00`: once.
    At(At),
}

/// An interval of at least a second, no part of which is negative.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Every {
    pub months: i32,
    pub days: i32,
    pub microseconds: i64,
}

/// A single time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// By the clock of the schedule's zone, in seconds since 1970-01-01 00:00 by that clock, and microseconds after it.
    Clock { seconds: i64, microseconds: i64 },
    /// With an offset, so in any zone the same.
    Instant(i64),
}

static NAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// The byte at which the text of an interval begins, which the server reads.
struct Interval(usize);

impl Spec {
    /// Reads a specification. Guarded. 22023 for what is none, with the number of the character where it goes wrong, and for what can never be
    /// due; 22008 for an interval that is out of range.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let read = match read(text) {
            Ok(Ok(spec)) => Ok(spec),
            Ok(Err(Interval(at))) => {
                let interval = zone::interval(text.get(at..).unwrap_or_default().trim_ascii())?;
                every(
                    at,
                    interval.map(|interval| (interval.months, interval.days, interval.microseconds)),
                )
            }
            Err(wrong) => Err(wrong),
        };
        read.map_err(|wrong| refused(text, wrong))
    }

    /// Makes sure that this specification, which is `text`, is due after `now` at all: see [`Spec::next`]. 22023 with the number of the character where
    /// its time begins.
    pub fn check_due(&self, text: &[u8], zone: &Zone, anchor: i64, now: i64) -> Result<()> {
        if self.next(zone, anchor, now)?.is_some() {
            return Ok(());
        }
        let (message, expected) = match self {
            Self::At(_) if self.next(zone, anchor, i64::MIN)?.is_some() => {
                ("the time has passed", "Expected a time in the future.")
            }
            Self::At(_) => ("time is out of range", "Expected a time that timestamptz can hold."),
            Self::Every(_) => ("interval is too long", TOO_LONG),
            Self::Cron(_) => ("no time is left", "Expected a time that timestamptz can hold."),
        };
        // Behind the first word, which an interval of pg_cron and cron fields do not have.
        let is_space = u8::is_ascii_whitespace;
        let begin = text.iter().position(|byte| !is_space(byte)).unwrap_or(0);
        let word = text.get(begin..).unwrap_or_default();
        let at = match word.first() {
            Some(first) if first.is_ascii_alphabetic() => {
                let rest = word
                    .iter()
                    .skip_while(|byte| !is_space(byte))
                    .skip_while(|byte| is_space(byte));
                text.len() - rest.count()
            }
            _ => begin,
        };
        Err(refused(
            text,
            Wrong {
                at,
                message: message.to_owned(),
                expected: expected.to_owned(),
                hint: None,
            },
        ))
    }
}

fn refused(text: &[u8], wrong: Wrong) -> Failure {
    let position = text::characters(text.get(..wrong.at).unwrap_or(text)) + 1;
    let report = Report::new(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("invalid schedule at character {position}: {}", wrong.message),
    )
    .detail(wrong.expected);
    match wrong.hint {
        Some(hint) => report.hint(hint).into(),
        None => report.into(),
    }
}

/// Reads all but an interval.
fn read(text: &[u8]) -> Read<core::result::Result<Spec, Interval>> {
    let mut cursor = Cursor::new(text, 0);
    cursor.skip_spaces();
    let begin = cursor.at;
    let is_space = |at: usize| text.get(at).is_none_or(u8::is_ascii_whitespace);
    let end = (begin..text.len()).find(|at| is_space(*at)).unwrap_or(text.len());
    let word = text.get(begin..end).unwrap_or_default().to_ascii_lowercase();
    cursor.at = end;
    cursor.skip_spaces();
    match word.as_slice() {
        b"" => wrong(
            begin,
            "the text is empty",
            "Expected cron fields, a name like @daily, \"every\" and an interval, or \"at\" and a time.",
        ),
        b"every" => Ok(Err(Interval(cursor.at))),
        b"at" => Ok(Ok(Spec::At(at(&mut cursor)?))),
        [b'@', ..] => {
            let fields = NAMES.iter().find(|(name, _)| name.as_bytes() == word);
            match fields {
                Some((_, fields)) if cursor.peek().is_none() => Ok(Ok(Spec::Cron(fields::read(fields.as_bytes(), 0)?))),
                Some(_) => cursor.unexpected("Expected nothing after the name."),
                None if word == b"@reboot" => wrong(
                    begin,
                    "@reboot is not supported",
                    "Expected times: a start of the server is none.",
                ),
                None => wrong(
                    begin,
                    "unknown name",
                    "Expected @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually.",
                ),
            }
        }
        _ => {
            cursor.at = begin;
            match seconds(&mut cursor)? {
                Some(every) => Ok(Ok(Spec::Every(every))),
                None => Ok(Ok(Spec::Cron(fields::read(text, begin)?))),
            }
        }
    }
}

/// The `30 seconds` of pg_cron, if it is that.
fn seconds(cursor: &mut Cursor) -> Read<Option<Every>> {
    let begin = cursor.at;
    let Some((number, _)) = cursor.number() else {
        return Ok(None);
    };
    cursor.skip_spaces();
    if !b"second".iter().all(|letter| cursor.takes(*letter)) {
        return Ok(None);
    }
    cursor.takes(b's');
    cursor.skip_spaces();
    if cursor.peek().is_some() {
        return cursor.unexpected("Expected nothing after \"seconds\".");
    }
    if !(1..=59).contains(&number) {
        return Err(Wrong {
            at: begin,
            message: "number of seconds is out of range".to_owned(),
            expected: "Expected a number from 1 to 59.".to_owned(),
            hint: Some("\"every\" takes any interval, as in every 90 seconds."),
        });
    }
    Ok(Some(Every {
        months: 0,
        days: 0,
        microseconds: i64::from(number) * MICROSECONDS,
    }))
}

const TOO_LONG: &str = "Expected an interval that ends at a time that timestamptz can hold.";

/// An interval of months, days and microseconds, which is the text at byte `at`.
fn every(at: usize, interval: Option<(i32, i32, i64)>) -> Read<Spec> {
    let expected = "Expected an interval of at least one second, as in every 90 seconds.";
    let Some((months, days, microseconds)) = interval else {
        return wrong(at, "invalid interval", expected);
    };
    // The infinite ones of versions since 17.
    if months == i32::MAX || months == i32::MIN {
        return wrong(at, "interval is infinite", expected);
    }
    if months < 0 || days < 0 || microseconds < 0 {
        return wrong(at, "a part of the interval is negative", expected);
    }
    if months == 0 && days == 0 && microseconds < MICROSECONDS {
        return wrong(at, "interval is too short", expected);
    }
    // As long as all of timestamptz, from whatever time it counts.
    let days_until = |instant: i64| instant / MICROSECONDS / DAY;
    let longest = days_until(zone::END) - days_until(zone::FIRST);
    if i64::from(months) * 28 + i64::from(days) + days_until(microseconds) > longest {
        return wrong(at, "interval is too long", TOO_LONG);
    }
    Ok(Spec::Every(Every {
        months,
        days,
        microseconds,
    }))
}

const TIME: &str = "Expected a time as in at 2027-01-31 03:00, with seconds and an offset if wanted.";

/// A number of so many digits, from `low` to `high`.
fn digits(cursor: &mut Cursor, what: &str, lengths: (usize, usize), low: u32, high: u32) -> Read<u32> {
    let begin = cursor.at;
    match cursor.number() {
        Some((_, length)) if length < lengths.0 || length > lengths.1 => {
            wrong(begin, format!("wrong number of digits in the {what}"), TIME)
        }
        Some((number, _)) if (low..=high).contains(&number) => Ok(number),
        Some(_) => wrong(
            begin,
            format!("{what} is out of range"),
            format!("Expected a number from {low} to {high}."),
        ),
        None => cursor.unexpected(TIME),
    }
}

fn takes(cursor: &mut Cursor, byte: u8) -> Read<()> {
    if cursor.takes(byte) {
        Ok(())
    } else {
        cursor.unexpected(TIME)
    }
}

/// What follows `at`: a date, a time of day, and perhaps an offset, as in ISO 8601.
fn at(cursor: &mut Cursor) -> Read<At> {
    let begin = cursor.at;
    let year = digits(cursor, "year", (4, 6), 1, 294_276)?;
    takes(cursor, b'-')?;
    let month = digits(cursor, "month", (2, 2), 1, 12)?;
    takes(cursor, b'-')?;
    let longest = calendar::month_length(i64::from(year), month);
    let day = digits(cursor, "day", (2, 2), 1, longest)?;
    let after_date = cursor.at;
    if !cursor.takes(b'T') {
        cursor.skip_spaces();
        if cursor.at == after_date || cursor.peek().is_none() {
            return cursor.unexpected(TIME);
        }
    }
    let hour = digits(cursor, "hour", (2, 2), 0, 23)?;
    takes(cursor, b':')?;
    let minute = digits(cursor, "minute", (2, 2), 0, 59)?;
    let (mut second, mut microseconds) = (0, 0);
    if cursor.takes(b':') {
        second = digits(cursor, "second", (2, 2), 0, 59)?;
        if cursor.takes(b'.') {
            let begin = cursor.at;
            let fraction = digits(cursor, "fraction", (1, 6), 0, 999_999)?;
            microseconds = i64::from(fraction) * 10i64.pow(6 - (cursor.at - begin) as u32);
        }
    }
    let seconds =
        calendar::day_number(i64::from(year), month, day) * DAY + i64::from(hour * 3600 + minute * 60 + second);
    cursor.skip_spaces();
    let offset = offset(cursor)?;
    cursor.skip_spaces();
    if cursor.peek().is_some() {
        return with_hint(
            cursor.unexpected("Expected an offset like +02 or +05:30, \"Z\" or the end of the text."),
            "A time zone by its name is an argument of its own, time_zone.",
        );
    }
    let Some(offset) = offset else {
        return Ok(At::Clock { seconds, microseconds });
    };
    match zone::instant(seconds - offset) {
        Some(instant) => Ok(At::Instant(instant + microseconds)),
        None => wrong(
            begin,
            "time is out of range",
            "Expected a time that timestamptz can hold.",
        ),
    }
}

/// Seconds before UTC, if an offset is there.
fn offset(cursor: &mut Cursor) -> Read<Option<i64>> {
    let sign = if cursor.takes(b'+') {
        1
    } else if cursor.takes(b'-') {
        -1
    } else {
        return Ok(cursor.takes(b'Z').then_some(0));
    };
    let begin = cursor.at;
    let number = cursor.number();
    let (hours, mut minutes, mut seconds) = match number {
        Some((number, 4)) => (number / 100, number % 100, 0),
        Some((number, 2)) => (number, 0, 0),
        Some(_) => return wrong(begin, "wrong number of digits in the offset", TIME),
        None => return cursor.unexpected(TIME),
    };
    if matches!(number, Some((_, 2))) && cursor.takes(b':') {
        minutes = digits(cursor, "minute of the offset", (2, 2), 0, 59)?;
        if cursor.takes(b':') {
            seconds = digits(cursor, "second of the offset", (2, 2), 0, 59)?;
        }
    }
    if hours > 15 || minutes > 59 {
        return wrong(
            begin,
            "offset is out of range",
            "Expected an offset from -15:59 to +15:59.",
        );
    }
    Ok(Some(sign * i64::from(hours * 3600 + minutes * 60 + seconds)))
}

#[cfg(test)]
mod tests {
    use super::{At, Every, Spec, every, read};
    use crate::pg::value::zone;

    fn spec(text: &str) -> Spec {
        match read(text.as_bytes()) {
            Ok(Ok(spec)) => spec,
            Ok(Err(_)) => panic!("{text} has an interval"),
            Err(wrong) => panic!("{text}: {wrong:?}"),
        }
    }

    #[test]
    fn names_of_schedules() {
        for (name, fields) in [
            ("@hourly", "0 * * * *"),
            (" @Daily ", "0 0 * * *"),
            ("@midnight", "0 0 * * *"),
            ("@weekly", "0 0 * * sun"),
            ("@monthly", "0 0 1 * *"),
            ("@yearly", "0 0 1 1 *"),
            ("@ANNUALLY", "0 0 1 1 *"),
        ] {
            assert_eq!(spec(name), spec(fields));
        }
    }

    #[test]
    fn seconds_of_pg_cron() {
        for text in ["30 seconds", "30  SECOND ", " 30 seconds"] {
            assert_eq!(
                spec(text),
                Spec::Every(Every {
                    months: 0,
                    days: 0,
                    microseconds: 30_000_000
                })
            );
        }
    }

    #[test]
    fn single_times() {
        let seconds = 1_801_364_400; // 2027-01-31 03:00
        for text in [
            "at 2027-01-31 03:00",
            "AT  2027-01-31T03:00:00 ",
            "at 2027-01-31 03:00:00.0",
        ] {
            assert_eq!(
                spec(text),
                Spec::At(At::Clock {
                    seconds,
                    microseconds: 0
                }),
                "{text}"
            );
        }
        assert_eq!(
            spec("at 2027-01-31 03:00:07.05"),
            Spec::At(At::Clock {
                seconds: seconds + 7,
                microseconds: 50_000
            })
        );
        let instant = |seconds: i64| Spec::At(At::Instant(zone::instant(seconds).unwrap()));
        for (offset, before) in [
            ("Z", 0),
            ("+00", 0),
            (" +02", 7200),
            ("-05:30", -19_800),
            ("+0545", 20_700),
            ("-00:00:01", -1),
        ] {
            assert_eq!(
                spec(&format!("at 2027-01-31 03:00{offset}")),
                instant(seconds - before),
                "{offset}"
            );
        }
    }

    #[test]
    fn intervals() {
        assert!(every(6, Some((0, 0, 1_000_000))).is_ok());
        assert!(every(6, Some((1, 3, 0))).is_ok());
        for bad in [
            None,
            Some((0, 0, 999_999)),
            Some((0, 0, 0)),
            Some((1, 0, -1)),
            Some((-1, 40, 0)),
            Some((1, -1, 0)),
            Some((i32::MAX, i32::MAX, i64::MAX)),
            Some((i32::MIN, i32::MIN, i64::MIN)),
        ] {
            assert_eq!(every(6, bad).map_err(|wrong| wrong.at), Err(6), "{bad:?}");
        }
    }

    #[test]
    fn what_is_refused_and_where() {
        for (text, at, message) in [
            ("", 0, "the text is empty"),
            ("  ", 2, "the text is empty"),
            ("@reboot", 0, "@reboot is not supported"),
            (" @fortnightly", 1, "unknown name"),
            ("@daily 3", 7, "unexpected \"3\""),
            ("0 seconds", 0, "number of seconds is out of range"),
            ("60 seconds", 0, "number of seconds is out of range"),
            ("30 seconds ago", 11, "unexpected \"a\""),
            ("30 secondss", 10, "unexpected \"s\""),
            ("30 minutes", 10, "too few fields (2)"),
            ("tomorrow", 8, "too few fields (1)"),
            ("at", 2, "unexpected end of the text"),
            ("at tomorrow", 3, "unexpected \"t\""),
            ("at 2027-01-31", 13, "unexpected end of the text"),
            ("at 27-01-31 03:00", 3, "wrong number of digits in the year"),
            ("at 0000-01-31 03:00", 3, "year is out of range"),
            ("at 294277-01-01 00:00", 3, "year is out of range"),
            ("at 2027-13-31 03:00", 8, "month is out of range"),
            ("at 2027-02-29 03:00", 11, "day is out of range"),
            ("at 2027-1-31 03:00", 8, "wrong number of digits in the month"),
            ("at 2027-01-31 3:00", 14, "wrong number of digits in the hour"),
            ("at 2027-01-31 24:00", 14, "hour is out of range"),
            ("at 2027-01-31 03:60", 17, "minute is out of range"),
            ("at 2027-01-31 03:00:60", 20, "second is out of range"),
            (
                "at 2027-01-31 03:00:00.1234567",
                23,
                "wrong number of digits in the fraction",
            ),
            ("at 2027-01-31 03:00:00.", 23, "unexpected end of the text"),
            ("at 2027-01-31 03:00 Europe/Berlin", 20, "unexpected \"E\""),
            ("at 2027-01-31 03:00+0260", 20, "offset is out of range"),
            ("at 2027-01-31 03:00+16", 20, "offset is out of range"),
            ("at 2027-01-31 03:00+2", 20, "wrong number of digits in the offset"),
            ("at 2027-01-31 03:00 +02 x", 24, "unexpected \"x\""),
            ("at 294276-12-31 23:00-05", 3, "time is out of range"),
        ] {
            match read(text.as_bytes()) {
                Ok(_) => panic!("{text} is taken"),
                Err(wrong) => assert_eq!((wrong.at, wrong.message.as_str()), (at, message), "{text}: {wrong:?}"),
            }
        }
    }
}
