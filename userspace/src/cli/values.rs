//! Lists of numbers, and times.

use std::{str::FromStr, time::Duration};

/// `all`, or a list of queue numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Queues {
    All,
    List(Vec<u32>),
}

impl FromStr for Queues {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" { Ok(Self::All) } else { text.parse::<NumberList>().map(|list| Self::List(list.0)) }
    }
}

/// A list such as `0-3,8` (the kernel's CPU list syntax).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NumberList(pub(crate) Vec<u32>);

impl FromStr for NumberList {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const LENGTH_MAX: u32 = 1024;
        let mut list = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |s: &str| {
                s.trim().parse::<u32>().map_err(|_| format!("`{text}` is not a list such as 0-3 or 0,2"))
            };
            let (first, last) = (number(first)?, number(last)?);
            if last < first || last - first >= LENGTH_MAX {
                return Err(format!("range `{part}` runs backwards or is longer than {LENGTH_MAX}"));
            }
            list.extend(first..=last);
        }
        list.sort_unstable();
        list.dedup();
        Ok(Self(list))
    }
}

/// Bytes: `512MiB`, `2GiB`, `65536KiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let shift = match unit {
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "" => return Err(format!("`{text}` has no unit: use KiB, MiB or GiB, as in 512MiB")),
            _ => return Err(format!("`{text}` is not a size such as 512MiB or 2GiB")),
        };
        let digits = &text[..text.len() - unit.len()];
        let number: u64 =
            digits.parse().map_err(|_| format!("`{text}` is not a size such as 512MiB or 2GiB"))?;
        match number.checked_mul(1 << shift) {
            Some(bytes @ 1..) => Ok(Self(bytes)),
            Some(0) => Err(format!("`{text}` leaves no memory at all; leave the limit out for none")),
            None => Err(format!("`{text}` is more than any machine has")),
        }
    }
}

/// `250ms`, `30s`, `5m`, `1h`, or a bare number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| format!("`{text}` is not a time such as 250ms, 30s or 5m"))?;
    let milliseconds = match &text[digits.len()..] {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        unit => return Err(format!("unit `{unit}` of `{text}`: use ms, s, m or h")),
    };
    const LONGEST_MS: u64 = 365 * 24 * 3_600_000;
    milliseconds
        .filter(|&ms| ms <= LONGEST_MS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is too long"))
}

#[cfg(test)]
mod tests {
    //! Goal: the forms that the contract names parse to what they say, and others are refused with a reason.
    use super::*;

    #[test]
    fn lists_and_times() {
        assert_eq!("0-2,5".parse::<NumberList>().unwrap().0, [0, 1, 2, 5]);
        assert!("3-1".parse::<NumberList>().is_err());
        assert!("0-4294967295".parse::<NumberList>().is_err());
        assert_eq!("2GiB".parse(), Ok(Size(2 << 30)));
        assert_eq!("48MiB".parse(), Ok(Size(48 << 20)));
        for wrong in ["", "5", "MiB", "5MB", "-5MiB", "5 MiB", "0KiB", "99999999999999GiB", "5.5MiB"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert!(duration("5 parsecs").is_err());
        assert!(duration("99999999999999999h").is_err());
    }
}
