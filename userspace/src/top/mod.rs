//! `beam top`.
pub(crate) fn run(_args: &crate::cli::TopArgs) -> Result<(), crate::failure::Failure> {
    Ok(())
}
