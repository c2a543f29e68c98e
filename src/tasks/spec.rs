//! The specification of a schedule: when it is due.
//!
//! What follows `every` is read by the server, as an interval. All else is read here, strictly: what PostgreSQL would read as a time can depend on
//! settings, and mean something else each time (`tomorrow`).

use crate::pg::error::{Failure, Report, Result};
use crate::pg::text;
use crate::pg::value::zone::{self, MICROSECONDS};
use crate::tasks::calendar::{self, DAY};
use crate::tasks::cron::Cron;
use crate::tasks::fields::{self, Cursor, Read, Wrong, wrong};
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

/// Where the text of an interval begins, which the server reads.
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
            "it is empty",
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

/// An interval of months, days and microseconds, which is the text at byte `at`.
fn every(at: usize, interval: Option<(i32, i32, i64)>) -> Read<Spec> {
    let expected = "Expected an interval of at least one second, as in every 90 seconds.";
    let Some((months, days, microseconds)) = interval else {
        return wrong(at, "no interval", expected);
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
            wrong(begin, format!("{what} has {length} digits"), TIME)
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
        return with_zone_hint(
            cursor.unexpected("Expected an offset like +02 or +05:30, \"Z\" or the end of the text."),
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

fn with_zone_hint<T>(read: Read<T>) -> Read<T> {
    read.map_err(|wrong| Wrong {
        hint: Some("A time zone by its name is an argument of its own, time_zone."),
        ..wrong
    })
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
    let hours = digits(cursor, "hour of the offset", (2, 2), 0, 15)?;
    let (mut minutes, mut seconds) = (0, 0);
    let is_digit = |cursor: &Cursor| cursor.peek().is_some_and(|byte| byte.is_ascii_digit());
    if cursor.takes(b':') || is_digit(cursor) {
        minutes = digits(cursor, "minute of the offset", (2, 2), 0, 59)?;
        if cursor.takes(b':') {
            seconds = digits(cursor, "second of the offset", (2, 2), 0, 59)?;
        }
    }
    Ok(Some(sign * i64::from(hours * 3600 + minutes * 60 + seconds)))
}
