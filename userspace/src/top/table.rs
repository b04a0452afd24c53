//! A table for any width: cells with a text, a value to sort by and a tone. What doesn't fit goes by rank, least needed
//! first. Plain text and the terminal are both drawn from it.

/// How a cell is to be seen, where there is colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    /// Something to know.
    Warn,
    Bad,
    /// Nothing there.
    Dim,
}

/// What rows are sorted by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Key {
    Text(String),
    Number(f64),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) key: Key,
    pub(crate) tone: Tone,
}

impl Cell {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { key: Key::Text(text.clone()), text, tone: Tone::Plain }
    }

    pub(crate) fn number(value: f64, text: impl Into<String>) -> Self {
        Self { text: text.into(), key: Key::Number(value), tone: Tone::Plain }
    }

    /// Not known, or not there.
    pub(crate) fn none() -> Self {
        Self { text: "-".to_owned(), key: Key::Number(-1.0), tone: Tone::Dim }
    }

    pub(crate) fn toned(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

/// Which way a column's cells lean, and whether the last one may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
    /// Takes what is left of the line, cut at its end.
    Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) align: Align,
    /// 0 stays whatever happens; the highest goes first.
    pub(crate) rank: u8,
}

/// Rows under columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Table {
    pub(crate) columns: &'static [Column],
    pub(crate) rows: Vec<Vec<Cell>>,
    /// Said where there are no rows.
    pub(crate) nothing: &'static str,
    /// Rows that the daemon didn't send.
    pub(crate) more: usize,
}

/// Between two columns.
const GAP: usize = 2;
/// A text that is longer is cut, so that one long name doesn't push out the figures.
const CELL_MAX: usize = 24;
/// A column that takes the rest of the line isn't shown in less.
const REST_MIN: usize = 16;

/// A column of a table as it is laid out: which one, and how wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Laid {
    pub(crate) index: usize,
    pub(crate) width: usize,
}

impl Table {
    /// The columns that fit so many characters; `None`: all of them.
    pub(crate) fn layout(&self, width: Option<usize>) -> Vec<Laid> {
        let mut laid: Vec<Laid> =
            (0..self.columns.len()).map(|index| Laid { index, width: self.natural_width(index) }).collect();
        let Some(width) = width else { return laid };
        let needed = |laid: &[Laid]| {
            let cells: usize = laid
                .iter()
                .map(|one| match self.columns[one.index].align {
                    Align::Rest => one.width.min(REST_MIN),
                    _ => one.width,
                })
                .sum();
            cells + GAP * laid.len().saturating_sub(1)
        };
        while needed(&laid) > width {
            let last = laid.iter().enumerate().max_by_key(|(at, one)| (self.columns[one.index].rank, *at));
            match last {
                Some((at, one)) if self.columns[one.index].rank > 0 && laid.len() > 1 => laid.remove(at),
                _ => break,
            };
        }
        let fixed = needed(&laid);
        if let Some(rest) = laid.iter_mut().find(|one| self.columns[one.index].align == Align::Rest) {
            let least = rest.width.min(REST_MIN);
            rest.width = rest.width.min(least + width.saturating_sub(fixed));
        }
        laid
    }

    fn natural_width(&self, index: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.text.chars().count());
        let widest = cells.max().unwrap_or(0).max(self.columns[index].title.chars().count());
        match self.columns[index].align {
            Align::Rest => widest,
            _ => widest.min(CELL_MAX),
        }
    }

    /// A cell's text, padded or cut to its place.
    pub(crate) fn padded(&self, laid: Laid, text: &str) -> String {
        let width = laid.width;
        let mut text = text.to_owned();
        if text.chars().count() > width {
            text = text.chars().take(width.saturating_sub(1)).chain(['~']).collect();
        }
        match self.columns[laid.index].align {
            Align::Right => format!("{text:>width$}"),
            Align::Left | Align::Rest => format!("{text:<width$}"),
        }
    }

    /// Sorts by a column: numbers from the largest, texts from A, unless `reverse`. Rows that are equal keep their order.
    pub(crate) fn sort(&mut self, column: usize, reverse: bool) {
        let order = |a: &Cell, b: &Cell| match (&a.key, &b.key) {
            (Key::Number(a), Key::Number(b)) => b.total_cmp(a),
            (Key::Text(a), Key::Text(b)) => a.cmp(b),
            // What isn't known comes last.
            (Key::Number(_), Key::Text(_)) => std::cmp::Ordering::Greater,
            (Key::Text(_), Key::Number(_)) => std::cmp::Ordering::Less,
        };
        self.rows.sort_by(|a, b| match (a.get(column), b.get(column)) {
            (Some(a), Some(b)) if reverse => order(b, a),
            (Some(a), Some(b)) => order(a, b),
            _ => std::cmp::Ordering::Equal,
        });
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what fits is shown, by rank; a long text is cut; rows sort by their values.
    use super::*;

    const COLUMNS: &[Column] = &[
        Column { title: "name", align: Align::Left, rank: 0 },
        Column { title: "rate", align: Align::Right, rank: 0 },
        Column { title: "pages", align: Align::Right, rank: 2 },
        Column { title: "cpu", align: Align::Right, rank: 1 },
        Column { title: "means", align: Align::Rest, rank: 3 },
    ];

    fn table() -> Table {
        let row = |name: &str, rate: f64| {
            let rate = if rate < 0.0 { Cell::none() } else { Cell::number(rate, format!("{rate}")) };
            let (pages, cpu) = (Cell::number(7.0, "7"), Cell::number(0.0, "0"));
            vec![Cell::text(name), rate, pages, cpu, Cell::text("a meaning that is rather long")]
        };
        Table {
            columns: COLUMNS,
            rows: vec![row("b", 2.0), row("a", 10.0), row("c", -1.0)],
            nothing: "",
            more: 0,
        }
    }

    fn titles(width: usize) -> Vec<(&'static str, usize)> {
        table().layout(Some(width)).iter().map(|one| (COLUMNS[one.index].title, one.width)).collect()
    }

    #[test]
    fn columns_go_by_rank_and_the_last_takes_the_rest() {
        let all = [("name", 4), ("rate", 4), ("pages", 5), ("cpu", 3)];
        assert_eq!(titles(100), [&all[..], &[("means", 29)]].concat());
        assert_eq!(titles(42), [&all[..], &[("means", 18)]].concat());
        assert_eq!(titles(39), all);
        assert_eq!(titles(21), [("name", 4), ("rate", 4), ("cpu", 3)]);
        assert_eq!(titles(3), [("name", 4), ("rate", 4)], "what has rank 0 stays, and is cut by the screen");
        assert_eq!(table().layout(None).len(), 5);
    }

    #[test]
    fn cells_are_padded_or_cut() {
        let table = table();
        assert_eq!(table.padded(Laid { index: 0, width: 4 }, "ab"), "ab  ");
        assert_eq!(table.padded(Laid { index: 1, width: 4 }, "ab"), "  ab");
        assert_eq!(table.padded(Laid { index: 4, width: 4 }, "abcde"), "abc~");
    }

    #[test]
    fn rows_sort_by_value_and_unknown_ones_come_last() {
        let mut table = table();
        let names = |table: &Table| table.rows.iter().map(|row| row[0].text.clone()).collect::<String>();
        table.sort(1, false);
        assert_eq!(names(&table), "abc");
        table.sort(1, true);
        assert_eq!(names(&table), "cba");
        table.sort(0, false);
        assert_eq!(names(&table), "abc");
    }
}
