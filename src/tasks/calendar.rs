//! The calendar that PostgreSQL uses for all times, the Gregorian one, extended to both sides. Times are seconds since 1970-01-01 00:00 by
//! whatever clock.

pub use crate::pg::value::zone::month_length;

pub const DAY: i64 = 86_400;

/// The number of a day since 1970-01-01. The month is from 1 to 12.
pub fn day_number(year: i64, month: u32, day: u32) -> i64 {
    // Years that begin in March end with the leap day.
    let (year, month) = if month > 2 {
        (year, i64::from(month) - 3)
    } else {
        (year - 1, i64::from(month) + 9)
    };
    let days = (153 * month + 2) / 5 + i64::from(day) - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + days - 719_468
}

/// Year, month and day of a number of [`day_number`].
pub fn date(number: i64) -> (i64, u32, u32) {
    const FOUR_CENTURIES: i64 = 146_097;
    let number = number + 719_468;
    let (era, day) = (number.div_euclid(FOUR_CENTURIES), number.rem_euclid(FOUR_CENTURIES));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = (day - (153 * month + 2) / 5 + 1) as u32;
    let (next_year, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
    (era * 400 + year + next_year, month as u32, day)
}

/// The day of the week, 0 for Sunday.
pub fn weekday(number: i64) -> u32 {
    (number + 4).rem_euclid(7) as u32
}

#[cfg(test)]
mod tests {
    use super::{date, day_number, month_length, weekday};

    #[test]
    fn days_and_their_numbers() {
        assert_eq!(day_number(1970, 1, 1), 0);
        assert_eq!(day_number(2000, 2, 29), 11_016);
        assert_eq!(weekday(day_number(2026, 11, 28)), 6);
        assert_eq!(weekday(day_number(1969, 12, 28)), 0);
        // From 4800 BC to 294300, each day follows the one before.
        let mut number = day_number(-4799, 1, 1);
        for year in (-4799..-4300).chain(1890..2410).chain(294_200..294_300) {
            number = if year == 1890 || year == 294_200 {
                day_number(year, 1, 1)
            } else {
                number
            };
            for month in 1..=12 {
                for day in 1..=month_length(year, month) {
                    assert_eq!(
                        (day_number(year, month, day), date(number)),
                        (number, (year, month, day))
                    );
                    number += 1;
                }
            }
        }
    }
}
