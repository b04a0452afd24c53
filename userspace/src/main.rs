//! beam.
fn main() {}
