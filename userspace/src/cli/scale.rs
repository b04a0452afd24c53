//! Numbers with K, M, G or T behind them, as iperf3 has them.

/// A number with K, M, G or T behind it, in steps of `step`.
fn scaled(text: &str, step: f64) -> Option<f64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let power = match &text[digits.len()..] {
        "" => 0,
        "k" | "K" => 1,
        "m" | "M" => 2,
        "g" | "G" => 3,
        "t" | "T" => 4,
        _ => return None,
    };
    let number: f64 = digits.parse().ok()?;
    (number.is_finite() && number >= 0.0).then(|| number * step.powi(power))
}

/// Bytes: K is 1024, as iperf3 has it.
pub(super) fn size(text: &str) -> Result<u64, String> {
    const LARGEST: f64 = (1_u64 << 60) as f64;
    match scaled(text, 1024.0) {
        Some(bytes) if bytes <= LARGEST => Ok(bytes as u64),
        Some(_) => Err(format!("`{text}` is more than 2^60 bytes")),
        None => Err(format!("`{text}` is not a size such as 1000, 64K or 1G")),
    }
}

/// Things a second: K is 1000.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    scaled(text, 1000.0).ok_or_else(|| format!("`{text}` is not a rate such as 5000, 100K or 1.5G"))
}
