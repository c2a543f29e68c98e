//! Numbers as text, without an allocation.

/// The decimal digits of a number, stored in the frame.
pub struct Digits([u8; 20], usize);

impl Digits {
    /// Formats `number`.
    pub fn of(mut number: u64) -> Self {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 || at == 0 {
                return Self(digits, at);
            }
        }
    }

    /// The digits as text.
    pub fn bytes(&self) -> &[u8] {
        &self.0[self.1..]
    }
}

#[cfg(test)]
mod tests {
    use super::Digits;

    #[test]
    fn digits_of_the_extremes() {
        assert_eq!(Digits::of(0).bytes(), b"0");
        assert_eq!(Digits::of(u64::MAX).bytes(), b"18446744073709551615");
    }
}
