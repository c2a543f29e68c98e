//! Which occurrences of a schedule are due, and what becomes of those that were missed.
//!
//! The next occurrence is kept with the schedule, and each further one is computed from the one before, never from the present time. So a clock
//! that jumps back brings no occurrence twice, and one that jumps forward skips none unseen.
//!
//! An occurrence was **missed** if no keeper was on duty at its time: the server was down, tasks did not run in this database, or the clock has
//! jumped over it. One that comes late since the keeper is busy is not missed, unless it is very late.

use crate::pg::error::Result;
use crate::pg::fallible;
use crate::pg::process::backend;
use crate::pg::value::zone::Zone;
use crate::tasks::spec::Spec;
use std::collections::VecDeque;

/// An occurrence that is late by more than this was missed, in microseconds.
pub const LATE: i64 = 60_000_000;

/// The most occurrences that are made up for.
const MOST: usize = 1000;

/// The most missed occurrences that are looked at one by one, and if each is to be made up for.
const LOOKED_AT: i64 = 10_000;
const LOOKED_AT_FOR_ALL: i64 = 100_000;

/// What becomes of missed occurrences.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CatchUp {
    None,
    /// One task for all.
    One,
    All,
}

impl CatchUp {
    /// What the word stands for.
    pub fn of_word(word: &[u8]) -> Option<Self> {
        match word {
            b"none" => Some(Self::None),
            b"one" => Some(Self::One),
            b"all" => Some(Self::All),
            _ => None,
        }
    }

    /// As it is kept.
    pub fn letter(self) -> u8 {
        match self {
            Self::None => b'n',
            Self::One => b'o',
            Self::All => b'a',
        }
    }

    /// What is kept.
    pub fn of_letter(letter: u8) -> Self {
        match letter {
            b'n' => Self::None,
            b'a' => Self::All,
            _ => Self::One,
        }
    }
}

/// The next occurrence, and when it becomes a task. Microseconds, as a `timestamptz`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Next {
    pub occurs_at: i64,
    /// Later by the jitter, and not before the one before.
    pub fires_at: i64,
}

/// An occurrence that becomes a task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Occurrence {
    pub at: i64,
    pub was_missed: bool,
}

/// What is due.
#[derive(PartialEq, Eq, Debug)]
pub struct Due {
    /// Those that become tasks, in order.
    pub occurrences: Vec<Occurrence>,
    /// How many were missed and are not made up for. Of very many not all are counted.
    pub missed: i64,
    pub next: Option<Next>,
}

/// The rule, as the keeper and the sessions compute with it.
pub struct Timing {
    spec: Spec,
    zone: Zone,
    /// Where `every` counts from.
    anchor: i64,
    starts_at: Option<i64>,
    ends_at: Option<i64>,
    /// The longest delay, in microseconds.
    jitter: i64,
}

/// What a schedule says of its times. Instants are microseconds, as a `timestamptz`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule<'a> {
    pub spec: &'a [u8],
    pub time_zone: &'a [u8],
    pub created_at: i64,
    pub starts_at: Option<i64>,
    pub ends_at: Option<i64>,
    pub jitter: i64,
}

impl Timing {
    /// Reads the rule. Guarded. 22023 and 22008 as [`Spec::parse`] and [`Zone::by_name`].
    pub fn of(rule: &Rule) -> Result<Self> {
        Ok(Self {
            spec: Spec::parse(rule.spec)?,
            zone: Zone::by_name(rule.time_zone)?,
            anchor: rule.starts_at.unwrap_or(rule.created_at),
            starts_at: rule.starts_at,
            ends_at: rule.ends_at,
            jitter: rule.jitter,
        })
    }

    /// Makes sure that the specification, which is `spec`, is due after `now`, whatever the last time is. 22023.
    pub fn check_due(&self, spec: &[u8], now: i64) -> Result<()> {
        self.spec.check_due(spec, &self.zone, self.anchor, now)
    }

    /// The first occurrence after `after`, as far as the schedule goes.
    fn following(&self, after: i64) -> Result<Option<i64>> {
        let after = self.starts_at.map_or(after, |at| after.max(at.saturating_sub(1)));
        let next = self.spec.next(&self.zone, self.anchor, after)?;
        Ok(next.filter(|next| self.ends_at.is_none_or(|end| *next <= end)))
    }

    /// The first occurrence after `now`.
    pub fn first(&self, now: i64) -> Result<Option<Next>> {
        let at = self.following(now)?;
        Ok(at.map(|at| Next {
            occurs_at: at,
            fires_at: at.saturating_add(self.delay()),
        }))
    }

    fn delay(&self) -> i64 {
        match backend::strong_random() {
            Ok(random) if self.jitter > 0 => (random % (self.jitter as u64 + 1)) as i64,
            _ => 0,
        }
    }

    /// What is due at `now`, if `next` is what comes next, and a keeper is on duty since `since`.
    pub fn due(&self, next: Next, now: i64, since: i64, catch_up: CatchUp) -> Result<Due> {
        look(
            next,
            now,
            since,
            catch_up,
            |after| self.following(after),
            || self.delay(),
        )
    }
}

fn look(
    first: Next,
    now: i64,
    since: i64,
    catch_up: CatchUp,
    mut following: impl FnMut(i64) -> Result<Option<i64>>,
    mut delay: impl FnMut() -> i64,
) -> Result<Due> {
    let (most, looked_at) = match catch_up {
        CatchUp::None => (0, LOOKED_AT),
        CatchUp::One => (1, LOOKED_AT),
        CatchUp::All => (MOST, LOOKED_AT_FOR_ALL),
    };
    let horizon = since.max(now.saturating_sub(LATE));
    // The last ones.
    let mut made_up = VecDeque::with_capacity(most.min(64));
    let mut missed = 0;
    let mut in_time = Vec::new();
    let mut next = Some(first);
    while let Some(due) = next.filter(|next| next.fires_at <= now) {
        let mut after = due.occurs_at;
        if due.fires_at < horizon {
            missed += 1;
            if most > 0 {
                if made_up.len() == most {
                    made_up.pop_front();
                }
                made_up.push_back(due.occurs_at);
            }
            if missed >= looked_at {
                after = after.max(horizon.saturating_sub(1));
            }
        } else {
            fallible::push(&mut in_time, due.occurs_at)?;
        }
        next = following(after)?.map(|at| Next {
            occurs_at: at,
            fires_at: at.saturating_add(delay()).max(due.fires_at),
        });
    }
    let missed = missed - made_up.len() as i64;
    let made_up = made_up.into_iter().map(|at| (at, true));
    let in_time = in_time.into_iter().map(|at| (at, false));
    let occurrences = made_up
        .chain(in_time)
        .map(|(at, was_missed)| Occurrence { at, was_missed });
    Ok(Due {
        occurrences: fallible::collected(occurrences)?,
        missed,
        next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn at(second: i64) -> Next {
        Next {
            occurs_at: second * SECOND,
            fires_at: second * SECOND,
        }
    }

    /// Each `period` seconds, without delay.
    fn every(period: i64, first: i64, now: i64, since: i64, catch_up: CatchUp) -> Due {
        let next = |after: i64| Ok(Some((after.div_euclid(period * SECOND) + 1) * period * SECOND));
        look(at(first), now * SECOND, since * SECOND, catch_up, next, || 0).unwrap()
    }

    fn seconds(due: &Due) -> Vec<(i64, bool)> {
        due.occurrences
            .iter()
            .map(|one| (one.at / SECOND, one.was_missed))
            .collect()
    }

    #[test]
    fn what_is_due_in_time() {
        let due = every(10, 100, 100, 0, CatchUp::None);
        assert_eq!(
            (seconds(&due), due.missed, due.next),
            (vec![(100, false)], 0, Some(at(110)))
        );
        let due = every(10, 100, 99, 0, CatchUp::None);
        assert_eq!((seconds(&due), due.missed, due.next), (vec![], 0, Some(at(100))));
        // The keeper comes late.
        let due = every(1, 100, 103, 0, CatchUp::None);
        assert_eq!(seconds(&due).len(), 4);
        assert_eq!((due.missed, due.next), (0, Some(at(104))));
    }

    #[test]
    fn what_was_missed() {
        let due = every(1, 100, 150, 149, CatchUp::None);
        assert_eq!(
            (seconds(&due), due.missed, due.next),
            (vec![(149, false), (150, false)], 49, Some(at(151)))
        );
        let due = every(1, 100, 150, 149, CatchUp::One);
        assert_eq!(
            (seconds(&due), due.missed),
            (vec![(148, true), (149, false), (150, false)], 48)
        );
        let due = every(1, 100, 150, 149, CatchUp::All);
        assert_eq!((seconds(&due).len(), due.missed), (51, 0));
        // Very late.
        let due = every(1000, 1000, 1061, 0, CatchUp::None);
        assert_eq!((seconds(&due), due.missed, due.next), (vec![], 1, Some(at(2000))));
    }

    #[test]
    fn at_most_so_many_are_made_up_for() {
        let due = every(1, 0, 5000, 5001, CatchUp::All);
        assert_eq!(
            (due.occurrences.len(), due.missed, due.next),
            (1000, 4001, Some(at(5001)))
        );
        assert_eq!(seconds(&due)[0], (4001, true));
        // Of very many not all are looked at.
        let due = every(1, 0, 100_000_000, 100_000_001, CatchUp::One);
        assert_eq!((seconds(&due).len(), due.next), (1, Some(at(100_000_001))));
        assert!(due.missed >= LOOKED_AT - 1);
    }

    #[test]
    fn delays_keep_the_order() {
        let mut delays = [50 * SECOND, 0, 0].into_iter();
        let next = |after: i64| Ok(Some(after + 10 * SECOND));
        let due = look(at(100), 100 * SECOND, 0, CatchUp::One, next, || delays.next().unwrap()).unwrap();
        let delayed = due.next.unwrap();
        assert_eq!((delayed.occurs_at, delayed.fires_at), (110 * SECOND, 160 * SECOND));
        let due = look(delayed, 160 * SECOND, 0, CatchUp::One, next, || {
            delays.next().unwrap_or(0)
        })
        .unwrap();
        // 110 to 160, none before the one at 160.
        assert_eq!(due.occurrences.len(), 6);
        assert_eq!(due.next.map(|next| next.occurs_at), Some(170 * SECOND));
    }

    #[test]
    fn the_end() {
        let due = look(at(100), 100 * SECOND, 0, CatchUp::One, |_| Ok(None), || 0).unwrap();
        assert_eq!((due.occurrences.len(), due.next), (1, None));
    }
}
