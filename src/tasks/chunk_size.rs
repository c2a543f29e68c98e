//! How large the next chunk of an operation is.
//!
//! The speed is the median of the last chunks: one that waited for a lock, or read a cold table, does not change it. The size follows the chunks
//! that were measured and not those that were cut since, so several that run at once do not make it grow faster.

/// How many chunks are looked at.
pub const MEASURED: usize = 5;

/// The largest size. A larger one would not make an operation faster, but its end later than that of a pause.
pub const MOST: i64 = 10_000_000;

/// The size of the first chunk.
const FIRST: f64 = 1000.0;

/// How much larger than the largest of the last chunks the next one may be, and how much smaller than their smallest.
const GROWTH: f64 = 1.2;
const SHRINKAGE: f64 = 0.25;

/// A chunk that is done: its size, and how long it took in milliseconds.
pub type Measured = (i64, f64);

/// The size of the next chunk, after these, the last one first, if one is to take `target` milliseconds. `unit` is how many rows count as one: a chunk
/// of blocks begins smaller.
pub fn next(last: &[Measured], target: f64, unit: f64) -> i64 {
    let mut speeds = [0.0; MEASURED];
    let (mut count, mut smallest, mut largest) = (0, f64::MAX, 0.0_f64);
    for (to, (size, ms)) in speeds.iter_mut().zip(last) {
        let size = (*size).max(1) as f64;
        *to = size / ms.max(0.01);
        count += 1;
        smallest = smallest.min(size);
        largest = largest.max(size);
    }
    let size = match speeds.get_mut(..count) {
        Some([]) | None => FIRST / unit.max(1.0),
        Some(speeds) => {
            speeds.sort_unstable_by(f64::total_cmp);
            let median = speeds.get(count / 2).copied().unwrap_or(0.0);
            // A size of 1 has to grow, too.
            (median * target).clamp(smallest * SHRINKAGE, (largest * GROWTH).max(largest + 1.0))
        }
    };
    (size as i64).clamp(1, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_speed() {
        assert_eq!(next(&[], 1000.0, 1.0), 1000);
        assert_eq!(next(&[], 1000.0, 200.0), 5);
        // As fast as before: it stays.
        assert_eq!(next(&[(5000, 1000.0); 5], 1000.0, 1.0), 5000);
        // Growth is bounded, also from 1.
        assert_eq!(next(&[(1000, 1.0)], 1000.0, 1.0), 1200);
        assert_eq!(next(&[(1, 1.0)], 1000.0, 1.0), 2);
        // Half as fast: it shrinks at once, but not below a quarter.
        assert_eq!(next(&[(1000, 2000.0)], 1000.0, 1.0), 500);
        assert_eq!(next(&[(1000, 60_000.0)], 1000.0, 1.0), 250);
        assert_eq!(next(&[(1, 60_000.0)], 1000.0, 1.0), 1);
        assert_eq!(next(&[(MOST, 1.0)], 1e9, 1.0), MOST);
    }

    #[test]
    fn a_lock_wait_does_not_make_it_swing() {
        let waited = [
            (1000, 60_000.0),
            (1000, 45_000.0),
            (1000, 1000.0),
            (1000, 990.0),
            (1000, 1010.0),
        ];
        assert!((950..=1050).contains(&next(&waited, 1000.0, 1.0)));
    }

    #[test]
    fn it_comes_to_the_target() {
        let mut last: Vec<Measured> = Vec::new();
        for _ in 0..60 {
            let size = next(&last, 1000.0, 1.0);
            // 50 rows in a millisecond.
            last.insert(0, (size, size as f64 / 50.0));
        }
        assert!((49_000..=51_000).contains(&next(&last, 1000.0, 1.0)));
    }
}
