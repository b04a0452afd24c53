//! Instructions and allocations of each operation, kept, and what has moved since.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The object's schema.
pub const SCHEMA: &str = "beam.bench.instructions.v1";
/// An operation that moved by more than this is marked.
pub const MARKED_PERCENT: f64 = 1.0;
/// Allocations a unit that differ by less are the same, as is a hundredth of them: some come once in some passes.
const ALLOCATIONS_SAME: f64 = 0.05;

/// What `scripts/bench instructions` keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// How it was counted.
    pub method: String,
    /// The commit that was built, with `+` behind it when the checkout differed from it.
    pub commit: Option<String>,
    /// What the counts depend on.
    pub tools: Tools,
    /// The operations, in their order.
    pub rows: Vec<Row>,
}

/// Counts are comparable where all of this is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tools {
    /// `rustc --version`.
    pub rustc: String,
    /// `valgrind --version`.
    pub valgrind: String,
    /// The vector level of packet protection.
    pub simd_level: String,
    /// Architecture, and the vectors that valgrind shows to what looks for itself (ring, the C library).
    pub machine: String,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// As its criterion bench names it.
    pub operation: String,
    /// What the figures are a.
    pub unit: String,
    /// Instructions.
    pub instructions: f64,
    /// Calls of the allocator.
    pub allocations: f64,
    /// Bytes asked for.
    pub allocated_bytes: f64,
}

/// What became of one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// Its name.
    pub operation: String,
    /// In the baseline.
    pub before: Option<Row>,
    /// In this run.
    pub now: Option<Row>,
}

impl Moved {
    /// Instructions of this run over those of the baseline, less one.
    #[must_use]
    pub fn percent(&self) -> Option<f64> {
        let (before, now) = (self.before.as_ref()?, self.now.as_ref()?);
        Some((now.instructions / before.instructions - 1.0) * 100.0)
    }

    /// Allocations a unit more than in the baseline.
    #[must_use]
    pub fn allocations(&self) -> Option<f64> {
        Some(self.now.as_ref()?.allocations - self.before.as_ref()?.allocations)
    }

    /// Whether it moved by more than `percent`, up or down, allocates more or less, is new or gone.
    #[must_use]
    pub fn is_beyond(&self, percent: f64) -> bool {
        let moved = self.percent().is_none_or(|moved| moved.abs() > percent);
        let (Some(more), Some(before)) = (self.allocations(), &self.before) else { return true };
        moved || more.abs() > ALLOCATIONS_SAME.max(before.allocations * percent.max(1.0) / 100.0)
    }
}

/// Each operation of both, in the order of this run, those that are gone behind it.
#[must_use]
pub fn compared(before: &[Row], now: &[Row]) -> Vec<Moved> {
    let mut known: BTreeMap<&str, &Row> = before.iter().map(|row| (row.operation.as_str(), row)).collect();
    let mut moved: Vec<Moved> = now
        .iter()
        .map(|row| Moved {
            operation: row.operation.clone(),
            before: known.remove(row.operation.as_str()).cloned(),
            now: Some(row.clone()),
        })
        .collect();
    let gone = before.iter().filter(|row| known.contains_key(row.operation.as_str()));
    moved.extend(gone.map(|row| Moved {
        operation: row.operation.clone(),
        before: Some(row.clone()),
        now: None,
    }));
    moved
}

impl fmt::Display for Moved {
    /// One line: the operation, its figures, and a mark where it moved.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count =
            |row: &Option<Row>| row.as_ref().map_or("-".into(), |row| format!("{:.1}", row.instructions));
        let allocations =
            |row: &Option<Row>| row.as_ref().map_or("-".into(), |row| format!("{:.2}", row.allocations));
        let unit = self.now.as_ref().or(self.before.as_ref()).map_or("", |row| &row.unit);
        let change = match (&self.before, self.percent()) {
            (_, Some(percent)) => format!("{percent:+.2} %"),
            (None, _) => "new".into(),
            (Some(_), None) => "gone".into(),
        };
        let mark = if self.before.is_some() && self.is_beyond(MARKED_PERCENT) { "  <-- moved" } else { "" };
        write!(
            f,
            "{:<40} {:>14} {:>14} {change:>10} {:>9} {:>9}  a {unit}{mark}",
            self.operation,
            count(&self.before),
            count(&self.now),
            allocations(&self.before),
            allocations(&self.now),
        )
    }
}

/// What the columns of [`Moved`]'s lines are.
#[must_use]
pub fn heading() -> String {
    format!(
        "{:<40} {:>14} {:>14} {:>10} {:>9} {:>9}",
        "operation", "baseline", "instructions", "change", "alloc. b.", "alloc."
    )
}

#[cfg(test)]
mod tests {
    //! Goal: percentages, new and gone operations, and what counts as moved. Method: a made-up pair.
    use super::*;

    fn row(operation: &str, instructions: f64, allocations: f64) -> Row {
        let unit = "packet".into();
        Row { operation: operation.into(), unit, instructions, allocations, allocated_bytes: 0.0 }
    }

    #[test]
    fn what_moved_is_found() {
        let before = [
            row("same", 100.0, 0.0),
            row("slower", 200.0, 1.0),
            row("gone", 5.0, 0.0),
            row("allocates", 9.0, 0.0),
        ];
        let now = [
            row("slower", 205.0, 1.0),
            row("new", 1.0, 0.0),
            row("same", 100.4, 0.004),
            row("allocates", 9.0, 1.0),
        ];
        let moved = compared(&before, &now);
        let names: Vec<&str> = moved.iter().map(|it| it.operation.as_str()).collect();
        assert_eq!(names, ["slower", "new", "same", "allocates", "gone"]);
        let percents: Vec<_> =
            moved.iter().map(|it| it.percent().map(|percent| (percent * 10.0).round())).collect();
        assert_eq!(percents, [Some(25.0), None, Some(4.0), Some(0.0), None]);
        let beyond = |percent| moved.iter().filter(|it| it.is_beyond(percent)).count();
        assert_eq!(
            (beyond(1.0), beyond(2.5), beyond(3.0)),
            (4, 3, 3),
            "allocations, new and gone always are"
        );
        assert!(compared(&before, &before).iter().all(|it| !it.is_beyond(0.0)));
    }

    #[test]
    fn faster_has_moved_too() {
        let moved = compared(&[row("faster", 200.0, 0.0)], &[row("faster", 150.0, 0.0)]);
        assert_eq!(moved[0].percent(), Some(-25.0));
        assert!(moved[0].is_beyond(24.0) && !moved[0].is_beyond(26.0));
    }
}
