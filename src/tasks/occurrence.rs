//! The times at which a schedule is due.

use crate::pg::error::Result;
use crate::pg::value::zone::{self, Zone};
use crate::tasks::spec::{Every, Spec};

impl Spec {
    /// The first occurrence strictly after `after`, both instants in PostgreSQL's microseconds; None if there is none any more, also because
    /// it would be beyond what a `timestamptz` can hold. `every` counts from `anchor`, which is an occurrence itself, and has none before it;
    /// the others do not depend on it. Infinite instants are allowed: nothing follows infinity, and nothing is counted from it.
    pub fn next(&self, zone: &Zone, anchor: i64, after: i64) -> Result<Option<i64>> {
        match self {
            Self::Every(every) => Ok(every.next(zone, anchor, after)),
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
        const DAY: i128 = 86_400 * zone::MICROSECONDS as i128;
        /// More than two clocks can differ.
        const SLACK: i128 = 3 * DAY;
        zone::in_range(anchor)?;
        if after < anchor {
            return Some(anchor);
        }
        // As a month and a day are at least: so many intervals later it is after `after`.
        let shortest = i128::from(self.months) * 28 * DAY + i128::from(self.days) * DAY + i128::from(self.microseconds);
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
