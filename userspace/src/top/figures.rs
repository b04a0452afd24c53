//! Figures for narrow columns: three digits and a letter.

use super::table::Cell;

/// A figure, or a dash where there is none yet.
pub(super) fn figure(value: Option<f64>, text: impl Fn(f64) -> String) -> Cell {
    value.map_or_else(Cell::none, |value| Cell::number(value, text(value)))
}

/// `0`, `999`, `1.23k`, `45.6M`.
pub(super) fn si(n: f64) -> String {
    scaled(n, 1e3, ["", "k", "M", "G", "T"])
}

/// `1.23 Gbit/s`.
pub(super) fn with_unit(n: f64, unit: &str) -> String {
    let text = si(n);
    let digits = text.trim_end_matches(char::is_alphabetic);
    format!("{digits} {}{unit}", &text[digits.len()..])
}

/// Bit/s; the heading has the unit.
pub(super) fn bits(n: f64) -> String {
    si(n)
}

/// `12.3 MiB`.
pub(super) fn bytes(n: f64) -> String {
    scaled(n, 1024.0, [" B", " KiB", " MiB", " GiB", " TiB"])
}

fn scaled(n: f64, by: f64, units: [&str; 5]) -> String {
    // A sum of nothing is -0.
    let mut n = n + 0.0;
    let mut step = 0;
    // 999.5 would be rounded to four digits.
    while n >= by.min(999.5) && step + 1 < units.len() {
        n /= by;
        step += 1;
    }
    let unit = units[step];
    match n {
        _ if step == 0 => format!("{n:.0}{unit}"),
        ..9.995 => format!("{n:.2}{unit}"),
        ..99.95 => format!("{n:.1}{unit}"),
        _ => format!("{n:.0}{unit}"),
    }
}

/// `0`, `0.25`, `100`.
pub(super) fn percent(n: f64) -> String {
    match n {
        ..=0.0 => "0".to_owned(),
        ..9.995 => format!("{n:.2}"),
        ..99.95 => format!("{n:.1}"),
        _ => format!("{n:.0}"),
    }
}

/// Of so many; the heading has the unit.
pub(super) fn milliseconds(n: f64) -> String {
    match n {
        ..9.9995 => format!("{n:.3}"),
        ..99.995 => format!("{n:.2}"),
        _ => format!("{n:.0}"),
    }
}

/// `45s`, `12m05s`, `3h12m`, `4d07h`.
pub(super) fn duration(seconds: f64) -> String {
    let s = seconds as u64;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86400, s % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    //! Goal: no figure is wider than its column was made for, at the edges of rounding too.
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        let seen = [0.0, 0.4, 9.0, 999.0, 999.6, 1234.0, 45_600.0, 99_960.0, 999_600.0, 1.234e9].map(si);
        assert_eq!(seen, ["0", "0", "9", "999", "1.00k", "1.23k", "45.6k", "100k", "1.00M", "1.23G"]);
        assert_eq!([0.0, 1023.0, 1536.0, 3e9].map(bytes), ["0 B", "1.00 KiB", "1.50 KiB", "2.79 GiB"]);
        assert_eq!([0.0, 1.2e9].map(|n| with_unit(n, "bit/s")), ["0 bit/s", "1.20 Gbit/s"]);
        assert_eq!([0.0, 0.254, 12.34, 99.97, 100.0].map(percent), ["0", "0.25", "12.3", "100", "100"]);
        assert_eq!([0.1234, 9.9999, 123.4].map(milliseconds), ["0.123", "10.00", "123"]);
        assert_eq!([5.0, 65.0, 3700.0, 90_000.0].map(duration), ["5s", "1m05s", "1h01m", "1d01h"]);
    }
}
