//! A rate in bits a second, as people write it: `250M`.

use std::{fmt, num::NonZeroU64, str::FromStr};

/// Bits a second, from [`Rate::MIN`] to [`Rate::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(NonZeroU64);

/// A text that is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rate: wanted 8k to 1000G, a whole number of bits a second with k, M or G (thousands)")]
pub struct RateError(pub String);

impl Rate {
    /// Below it a full packet would wait for longer than a person does.
    pub const MIN: u64 = 8_000;
    /// More than any NIC carries.
    pub const MAX: u64 = 1_000_000_000_000;

    /// A rate, if it is within bounds.
    #[must_use]
    pub fn new(bits_per_s: u64) -> Option<Self> {
        let within = (Self::MIN..=Self::MAX).contains(&bits_per_s);
        within.then(|| NonZeroU64::new(bits_per_s).map(Self))?
    }

    /// The number.
    #[must_use]
    pub fn bits_per_s(self) -> u64 {
        self.0.get()
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let wrong = || RateError(text.into());
        let (digits, unit) = match text.strip_suffix(|c: char| c.is_ascii_alphabetic()) {
            Some(digits) => (digits, &text[digits.len()..]),
            None => (text, ""),
        };
        let factor = match unit {
            "" => 1,
            "k" | "K" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            _ => return Err(wrong()),
        };
        // `+8` would parse as a number.
        let number: Option<u64> =
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten();
        number.and_then(|n| n.checked_mul(factor)).and_then(Self::new).ok_or_else(wrong)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.bits_per_s();
        for (factor, unit) in [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")] {
            if n.is_multiple_of(factor) {
                return write!(f, "{}{unit}", n / factor);
            }
        }
        write!(f, "{n}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_as_people_write_them() {
        for (text, bits, printed) in [
            ("8k", 8_000, "8k"),
            ("8000", 8_000, "8k"),
            ("12345", 12_345, "12345"),
            ("250M", 250_000_000, "250M"),
            ("1000k", 1_000_000, "1M"),
            ("10G", 10_000_000_000, "10G"),
            ("1000G", Rate::MAX, "1000G"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.bits_per_s(), rate.to_string().as_str()), (bits, printed), "{text}");
            assert_eq!(printed.parse(), Ok(rate));
        }
        for bad in [
            "",
            "k",
            "0",
            "7999",
            "1001G",
            "1T",
            "1m",
            "-1M",
            "+1M",
            "1.5M",
            "1 M",
            "10Mbit",
            "99999999999999999999",
        ] {
            assert_eq!(bad.parse::<Rate>(), Err(RateError(bad.into())));
        }
    }
}
