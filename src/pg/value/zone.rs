//! Time zones of the server, and what their clocks show.
//!
//! An instant is a `timestamptz`: microseconds since 2000-01-01 00:00 UTC. What a zone's clock shows is counted here in seconds since
//! 1970-01-01 00:00 by that clock. The rules of the zones are the server's data, so an instant means the same here as in SQL.

use crate::pg::error::{self, Report, Result};
use crate::pg::function::call::Interval;
use crate::pg::memory;
use crate::pg::raw::{self, may_raise};
use core::ffi::{CStr, c_char, c_int, c_long};
use core::ptr;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, pg_time_t, pg_tm, pg_tz};

/// The first instant that a `timestamptz` can hold: 4713-11-24 BC (`MIN_TIMESTAMP` of `datatype/timestamp.h`).
pub const FIRST: i64 = -211_813_488_000_000_000;
/// The first one that it cannot hold any more: year 294277 (`END_TIMESTAMP` of `datatype/timestamp.h`).
pub const END: i64 = 9_223_371_331_200_000_000;

pub const MICROSECONDS: i64 = 1_000_000;
/// 2000-01-01, the epoch of timestamps, in seconds since 1970-01-01.
const UNIX_TIME_OF_2000: i64 = 946_684_800;
const MONTHS_PER_YEAR: c_int = 12;
/// The longest name that pg_tzset takes (`TZ_STRLEN_MAX` of `pgtime.h`).
const NAME_MAX: usize = 255;

// pgtime.h
may_raise! {
    fn pg_tzset(name: *const c_char) -> *mut pg_tz;
}

#[allow(
    clashing_extern_declarations,
    reason = "the guarded twins in pgrx have the same signatures"
)]
unsafe extern "C-unwind" {
    // pgtime.h, utils/timestamp.h, utils/datetime.h: these compute, and raise nothing.
    fn pg_localtime(time: *const pg_time_t, zone: *const pg_tz) -> *mut pg_tm;
    fn pg_next_dst_boundary(
        time: *const pg_time_t,
        before_gmtoff: *mut c_long,
        before_isdst: *mut c_int,
        boundary: *mut pg_time_t,
        after_gmtoff: *mut c_long,
        after_isdst: *mut c_int,
        zone: *const pg_tz,
    ) -> c_int;
    fn pg_tz_acceptable(zone: *mut pg_tz) -> bool;
    fn pg_get_timezone_name(zone: *mut pg_tz) -> *const c_char;
    fn timestamp2tm(
        instant: pg_sys::Timestamp,
        offset: *mut c_int,
        tm: *mut pg_tm,
        fraction: *mut pg_sys::fsec_t,
        abbreviation: *mut *const c_char,
        zone: *mut pg_tz,
    ) -> c_int;
    fn tm2timestamp(
        tm: *mut pg_tm,
        fraction: pg_sys::fsec_t,
        offset: *mut c_int,
        instant: *mut pg_sys::Timestamp,
    ) -> c_int;
    fn DetermineTimeZoneOffset(tm: *mut pg_tm, zone: *mut pg_tz) -> c_int;
    fn date2j(year: c_int, month: c_int, day: c_int) -> c_int;
    fn j2date(day: c_int, year: *mut c_int, month: *mut c_int, day_of_month: *mut c_int);
}

/// The seconds since 1970-01-01 00:00 UTC of an instant, rounded down.
pub fn seconds(instant: i64) -> i64 {
    instant.div_euclid(MICROSECONDS) + UNIX_TIME_OF_2000
}

/// The instant that many seconds after 1970-01-01 00:00 UTC. None out of range.
pub fn instant(seconds: i64) -> Option<i64> {
    in_range(seconds.checked_sub(UNIX_TIME_OF_2000)?.checked_mul(MICROSECONDS)?)
}

/// None for an instant that a `timestamptz` cannot hold, infinite ones included.
pub fn in_range(instant: i64) -> Option<i64> {
    (FIRST..END).contains(&instant).then_some(instant)
}

/// A time in which a zone's clock has one offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Era {
    /// What the clock shows is that many seconds after UTC.
    pub offset: i64,
    /// The seconds since 1970 UTC at which the next era begins, if one is known.
    pub end: Option<i64>,
}

/// A time zone, which lives as long as the process.
#[derive(Clone, Copy)]
pub struct Zone(*mut pg_tz);

impl Zone {
    /// The zone that SET TimeZone would take by this name. Guarded. 22023 for an unknown one.
    pub fn by_name(name: &[u8]) -> Result<Self> {
        let unknown = || {
            Report::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("time zone \"{}\" not recognized", String::from_utf8_lossy(name)),
            )
        };
        if name.is_empty() || name.len() > NAME_MAX {
            return Err(Report::new(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                "the name of a time zone has 1 to 255 bytes",
            )
            .into());
        }
        let name = memory::copy_c_str(name);
        // SAFETY: NUL-terminated; a zone that is found stays in the cache of the process.
        let zone = error::catching(|raw| unsafe { pg_tzset(raw, name.as_ptr()) })?;
        if zone.is_null() {
            return Err(unknown().hint("The names are in pg_timezone_names.").into());
        }
        // SAFETY: a zone.
        if !unsafe { pg_tz_acceptable(zone) } {
            return Err(unknown().detail("PostgreSQL does not support leap seconds.").into());
        }
        Ok(Self(zone))
    }

    /// The zone of the session: its setting `TimeZone`.
    pub fn of_session() -> Self {
        // SAFETY: set before any session begins.
        Self(unsafe { pg_sys::session_timezone })
    }

    /// The name, as the server spells it. [`Zone::by_name`] knows it.
    pub fn name(&self) -> &'static CStr {
        // SAFETY: a zone has a name, which lives as long as it.
        unsafe { CStr::from_ptr(pg_get_timezone_name(self.0)) }
    }

    /// The era of these seconds since 1970 UTC.
    pub fn era(&self, seconds: i64) -> Era {
        Era {
            offset: self.offset(seconds),
            // PostgreSQL does not see what follows its last known change from exactly there. No two changes are a second apart.
            end: self.boundary(seconds).or_else(|| self.boundary(seconds + 1)),
        }
    }

    fn offset(&self, seconds: i64) -> i64 {
        // SAFETY: a zone; the result is in static memory of the function.
        unsafe {
            let tm = pg_localtime(&seconds, self.0);
            if tm.is_null() { 0 } else { (*tm).tm_gmtoff }
        }
    }

    /// When the next era begins that begins after these seconds.
    fn boundary(&self, seconds: i64) -> Option<i64> {
        let (mut boundary, mut ignored) = (0, (0, 0, 0, 0));
        // SAFETY: a zone, and places for the results.
        let found = unsafe {
            pg_next_dst_boundary(
                &seconds,
                &mut ignored.0,
                &mut ignored.1,
                &mut boundary,
                &mut ignored.2,
                &mut ignored.3,
                self.0,
            )
        };
        (found == 1 && boundary > seconds).then_some(boundary)
    }

    /// `instant` and an interval, as SQL adds them in this zone (timestamptz_pl_interval of utils/adt/timestamp.c): first the months, then the
    /// days, both by the clock of the zone, then the rest. None out of range.
    pub fn add(&self, instant: i64, months: i32, days: i32, microseconds: i64) -> Option<i64> {
        let mut instant = in_range(instant)?;
        if months != 0 {
            instant = self.by_clock(instant, |tm| {
                let month = (tm.tm_mon - 1).checked_add(months)?;
                tm.tm_year = tm.tm_year.checked_add(month.div_euclid(MONTHS_PER_YEAR))?;
                tm.tm_mon = month.rem_euclid(MONTHS_PER_YEAR) + 1;
                let longest = month_length(tm.tm_year.into(), tm.tm_mon as u32);
                tm.tm_mday = tm.tm_mday.min(longest as c_int);
                Some(())
            })?;
        }
        if days != 0 {
            instant = self.by_clock(instant, |tm| {
                // SAFETY: these compute.
                unsafe {
                    let day = date2j(tm.tm_year, tm.tm_mon, tm.tm_mday).checked_add(days)?;
                    if day < -1 {
                        return None;
                    }
                    j2date(day, &mut tm.tm_year, &mut tm.tm_mon, &mut tm.tm_mday);
                }
                Some(())
            })?;
        }
        in_range(instant.checked_add(microseconds)?)
    }

    /// The instant at which the clock shows what `change` makes of what it shows at `instant`.
    fn by_clock(&self, instant: i64, change: impl FnOnce(&mut pg_tm) -> Option<()>) -> Option<i64> {
        let (mut offset, mut fraction, mut made) = (0, 0, 0);
        // SAFETY: all-zero is a valid pg_tm; places for the results.
        unsafe {
            let mut tm: pg_tm = core::mem::zeroed();
            if timestamp2tm(instant, &mut offset, &mut tm, &mut fraction, ptr::null_mut(), self.0) != 0 {
                return None;
            }
            change(&mut tm)?;
            offset = DetermineTimeZoneOffset(&mut tm, self.0);
            (tm2timestamp(&mut tm, fraction, &mut offset, &mut made) == 0).then_some(made)
        }
    }
}

/// How many days a month has, in the calendar that PostgreSQL uses for all times.
pub fn month_length(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Reads an interval as SQL does. Guarded. None for what is none, on which the caller raises an error; 22008 for one that is out of range.
pub fn interval(text: &[u8]) -> Result<Option<Interval>> {
    let text = memory::copy_c_str(text);
    // SAFETY: the arguments of an input function: the text, a type that does not count, no modifier.
    let read = error::catch(|raw| unsafe {
        raw::DirectFunctionCall3Coll(
            raw,
            Some(raw::interval_in),
            pg_sys::Oid::INVALID,
            pg_sys::Datum::from(text.as_ptr()),
            pg_sys::Datum::from(0u32),
            pg_sys::Datum::from(-1i32),
        )
    });
    match read {
        Ok(datum) => Ok(Some(Interval::of(datum))),
        Err(edata) if error::sqlstate(edata) == PgSqlErrorCode::ERRCODE_INVALID_DATETIME_FORMAT as i32 => Ok(None),
        Err(edata) => Err(error::Failure::Caught(edata)),
    }
}
