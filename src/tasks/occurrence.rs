//! The times at which a schedule is due.
//!
//! A clock of a zone jumps where one era of the zone ends and the next begins: forward over a gap, or back, so that times come twice. There are
//! two rules for what is given by the clock. A spec that follows the clock is due whenever the clock shows one of its times, and never in
//! a gap. For all others, a time is due **when the clock shows it, or a later time, for the first time**. So times in a gap are due at its end,
//! together, and a time that comes twice is due the first time only. Intervals are added as SQL adds them.

use crate::pg::error::Result;
use crate::pg::value::zone::{self, MICROSECONDS, Zone};
use crate::tasks::calendar::DAY;
use crate::tasks::cron::Cron;
use crate::tasks::spec::{At, Every, Spec};

/// More than the clocks of two eras can differ, in seconds: an offset is below 168 hours (getsecs of timezone/localtime.c).
const REACH: i64 = 15 * DAY;

impl Spec {
    /// The first occurrence strictly after `after`, both instants in PostgreSQL's microseconds; None if there is none any more, also because
    /// it would be beyond what a `timestamptz` can hold. `every` counts from `anchor`, which is an occurrence itself, and has none before it;
    /// the others do not depend on it. Infinite instants are allowed: nothing follows infinity, and nothing is counted from it.
    pub fn next(&self, zone: &Zone, anchor: i64, after: i64) -> Result<Option<i64>> {
        if after >= zone::END {
            return Ok(None);
        }
        let after = after.max(zone::FIRST - 1);
        Ok(match self {
            Self::Cron(cron) => cron.next(zone, after),
            Self::Every(every) => every.next(zone, anchor, after),
            Self::At(at) => at.instant(zone).filter(|instant| *instant > after),
        })
    }
}

impl Cron {
    fn next(&self, zone: &Zone, after: i64) -> Option<i64> {
        // An occurrence is a whole second.
        let begin = zone::seconds(after) + 1;
        let found = if self.follows_clock {
            self.shown(zone, begin)?
        } else {
            let time = self.first(first_new(zone, begin))?;
            first_at_or_past(zone, begin, time)
        };
        zone::instant(found)
    }

    /// The first second from `begin` on at which the clock shows one of the times. It looks at one era after the other, since the clock can go back:
    /// some hundred until a rare day comes.
    fn shown(&self, zone: &Zone, begin: i64) -> Option<i64> {
        let mut at = begin;
        loop {
            zone::instant(at)?;
            let era = zone.era(at);
            let found = self.first(at + era.offset)? - era.offset;
            match era.end {
                Some(end) if end <= found => at = end,
                _ => return Some(found),
            }
        }
    }
}

/// The time that is later than all that the clock has shown before `begin`, by one second.
fn first_new(zone: &Zone, begin: i64) -> i64 {
    let mut at = begin - REACH;
    let mut new = i64::MIN;
    while at < begin {
        let era = zone.era(at);
        at = era.end.map_or(begin, |end| end.min(begin));
        new = new.max(at + era.offset);
    }
    new
}

/// The first second from `begin` on at which the clock shows this time or a later one.
fn first_at_or_past(zone: &Zone, begin: i64, time: i64) -> i64 {
    // Before that it shows earlier ones.
    let mut at = begin.max(time - REACH);
    loop {
        let era = zone.era(at);
        let found = (time - era.offset).max(at);
        match era.end {
            Some(end) if end <= found => at = end,
            _ => return found,
        }
    }
}

impl At {
    /// None out of range.
    fn instant(&self, zone: &Zone) -> Option<i64> {
        match *self {
            Self::Instant(instant) => Some(instant),
            Self::Clock { seconds, microseconds } => {
                let found = first_at_or_past(zone, i64::MIN, seconds);
                let is_shown = found + zone.era(found).offset == seconds;
                let fraction = if is_shown { microseconds } else { 0 };
                zone::instant(found)?.checked_add(fraction)
            }
        }
    }
}

impl Every {
    /// The instant `count` intervals after `anchor`. The interval is multiplied before it is added, so that what is due on the last day of
    /// a short month goes back to the 31st afterwards. None out of range.
    fn at(&self, zone: &Zone, anchor: i64, count: i64) -> Option<i64> {
        let times = |part: i32| i64::from(part).checked_mul(count)?.try_into().ok();
        zone.add(
            anchor,
            times(self.months)?,
            times(self.days)?,
            self.microseconds.checked_mul(count)?,
        )
    }

    /// Instants follow each other in the order of their numbers, so it is searched for by halves.
    fn next(&self, zone: &Zone, anchor: i64, after: i64) -> Option<i64> {
        const LENGTH: i128 = DAY as i128 * MICROSECONDS as i128;
        const SLACK: i128 = REACH as i128 * MICROSECONDS as i128;
        zone::in_range(anchor)?;
        if after < anchor {
            return Some(anchor);
        }
        // As a month and a day are at least: so many intervals later it is after `after`.
        let shortest =
            i128::from(self.months) * 28 * LENGTH + i128::from(self.days) * LENGTH + i128::from(self.microseconds);
        let most = (i128::from(after) - i128::from(anchor) + SLACK) / shortest.max(1) + 1;
        let (mut low, mut high) = (0i64, i64::try_from(most).ok()?);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.at(zone, anchor, middle) {
                Some(instant) if instant <= after => low = middle,
                _ => high = middle,
            }
        }
        self.at(zone, anchor, high)
    }
}
