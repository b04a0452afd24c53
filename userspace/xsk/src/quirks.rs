//! What is known of single drivers, beyond what the kernel says when one refuses.
//!
//! A row is here because a stock kernel with that driver was booted (`scripts/kernels`) and refused in just this way, or
//! because the driver's source says so; each row tells which. It's no list of what drivers can do: that is asked of the
//! kernel ([`crate::genl::xdp_features`]), and what it grants is read back after every bind.

/// What was asked of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To run a program.
    Native,
    /// To bind a socket without copies.
    ZeroCopy,
}

struct Quirk {
    driver: &'static str,
    asked: Asked,
    errno: i32,
    /// Why, and what helps.
    advice: &'static str,
}

const QUIRKS: [Quirk; 0] = [];

/// What is known about a refusal.
pub(crate) fn advice(driver: Option<&str>, asked: Asked, errno: Option<i32>) -> Option<&'static str> {
    let fits =
        |quirk: &&Quirk| Some(quirk.driver) == driver && quirk.asked == asked && Some(quirk.errno) == errno;
    QUIRKS.iter().find(fits).map(|quirk| quirk.advice)
}
