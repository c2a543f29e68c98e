//! Schedules of five or six fields, as cron has them: which times they name, by whatever clock.

use crate::tasks::calendar::{self, DAY};

/// A set of small numbers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Set(u64);

impl Set {
    pub fn add(&mut self, number: u32) {
        self.0 |= 1 << number;
    }

    pub fn has(self, number: u32) -> bool {
        self.0 & 1 << number != 0
    }

    /// The first number from `from` on.
    fn from(self, from: u32) -> Option<u32> {
        let rest = if from < 64 { self.0 >> from << from } else { 0 };
        (rest != 0).then(|| rest.trailing_zeros())
    }

    fn each(self) -> impl Iterator<Item = u32> {
        (0..64).filter(move |number| self.has(*number))
    }

    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// The days of month that are named.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Days {
    /// False if the field begins with `*`.
    pub is_given: bool,
    pub numbers: Set,
    /// How many days before the last one, 0 for the last one itself.
    pub before_last: Set,
    /// The days whose nearest weekday is meant, 0 for the last one.
    pub nearest: Set,
}

/// The days of the week that are named, 0 for Sunday.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Weekdays {
    /// False if the field begins with `*`.
    pub is_given: bool,
    pub numbers: Set,
    /// The last ones of the month.
    pub last: Set,
    /// Those of a number within the month: the first ones, the second ones and so on.
    pub nth: [Set; 5],
}

/// The times that the fields name.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Cron {
    pub seconds: Set,
    pub minutes: Set,
    pub hours: Set,
    pub days: Days,
    pub months: Set,
    pub weekdays: Weekdays,
    /// Whether the hour field begins with `*`: then each time that the clock shows counts, and no other. Else each time counts once, when the clock
    /// shows it, or jumps over it.
    pub follows_clock: bool,
}

impl Days {
    fn of_month(&self, length: u32, first: u32) -> Set {
        let mut days = Set::default();
        for day in self.numbers.each().filter(|day| *day <= length) {
            days.add(day);
        }
        for before in self.before_last.each().filter(|before| *before < length) {
            days.add(length - before);
        }
        for day in self.nearest.each().filter(|day| *day <= length) {
            let day = if day == 0 { length } else { day };
            days.add(match (first + day - 1) % 7 {
                0 if day == length => day - 2,
                0 => day + 1,
                6 if day == 1 => day + 2,
                6 => day - 1,
                _ => day,
            });
        }
        days
    }
}

impl Weekdays {
    fn of_month(&self, length: u32, first: u32) -> Set {
        let mut days = Set::default();
        for day in 1..=length {
            let weekday = (first + day - 1) % 7;
            let nth = self.nth.get((day as usize - 1) / 7).copied().unwrap_or_default();
            if self.numbers.has(weekday) || nth.has(weekday) || (self.last.has(weekday) && day + 7 > length) {
                days.add(day);
            }
        }
        days
    }
}

impl Cron {
    /// The days that are named in a month of `length` days, the first of which is the day `first` of the week. Days of month and of the week
    /// that are both given: either.
    pub(super) fn days_of_month(&self, length: u32, first: u32) -> Set {
        let (days, weekdays) = (self.days.of_month(length, first), self.weekdays.of_month(length, first));
        if self.days.is_given && self.weekdays.is_given {
            days.or(weekdays)
        } else {
            days.and(weekdays)
        }
    }

    /// Whether there is a day in the calendar that is named.
    pub fn has_days(&self) -> bool {
        const LEAP_YEAR: i64 = 2000;
        self.months.each().any(|month| {
            let longest = calendar::month_length(LEAP_YEAR, month);
            let shortest = calendar::month_length(LEAP_YEAR + 1, month);
            (shortest..=longest).any(|length| (0..7).any(|first| self.days_of_month(length, first) != Set::default()))
        })
    }

    /// The first time from `from` on that is named, both in seconds since 1970-01-01 00:00 by the same clock. None only if no day is.
    pub fn first(&self, from: i64) -> Option<i64> {
        /// The same day of the same weekday comes again after 40 years at the latest, as a Sunday on 29 February over 2100.
        const LONGEST: u32 = 41 * 12;
        let today = from.div_euclid(DAY);
        let (mut year, mut month, mut day) = calendar::date(today);
        for _ in 0..=LONGEST {
            if self.months.has(month) {
                let first = calendar::day_number(year, month, 1);
                let days = self.days_of_month(calendar::month_length(year, month), calendar::weekday(first));
                while let Some(found) = days.from(day) {
                    let number = first + i64::from(found) - 1;
                    let begin = if number == today { from - today * DAY } else { 0 };
                    if let Some(time) = self.time(begin as u32) {
                        return Some(number * DAY + time);
                    }
                    day = found + 1;
                }
            }
            day = 1;
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        }
        None
    }

    /// The first time of day from `from` on, in seconds.
    fn time(&self, from: u32) -> Option<i64> {
        let (hour, minute, second) = (from / 3600, from / 60 % 60, from % 60);
        let (first_minute, first_second) = (self.minutes.from(0)?, self.seconds.from(0)?);
        let within_minute = || Some((hour, minute, self.seconds.from(second)?));
        let within_hour = || Some((hour, self.minutes.from(minute + 1)?, first_second));
        let (hour, minute, second) = None
            .or_else(|| within_minute().filter(|_| self.hours.has(hour) && self.minutes.has(minute)))
            .or_else(|| within_hour().filter(|_| self.hours.has(hour)))
            .or_else(|| Some((self.hours.from(hour + 1)?, first_minute, first_second)))?;
        Some(i64::from(hour * 3600 + minute * 60 + second))
    }
}

#[cfg(test)]
mod tests {
    use crate::tasks::calendar::{date, day_number, month_length, weekday};

    #[test]
    fn no_month_of_its_kind_is_further_away_than_is_looked() {
        // Four centuries are a whole number of weeks, and the calendar repeats.
        let mut last = std::collections::HashMap::new();
        for number in 0..12 * 900 {
            let (year, month) = (2000 + number / 12, (number % 12 + 1) as u32);
            let kind = (month, month_length(year, month), weekday(day_number(year, month, 1)));
            if let Some(before) = last.insert(kind, number) {
                assert!(
                    number - before <= 40 * 12,
                    "{kind:?}, {:?}",
                    date(day_number(year, month, 1))
                );
            }
        }
        assert_eq!(last.len(), 12 * 7 + 7);
    }
}
