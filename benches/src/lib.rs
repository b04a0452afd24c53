//! Benches of beam; see `benches/README.md`.
