//! A TOML file as tables of entries, each with the place where it stands. Knows TOML, and nothing of flags.

use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// Where something stands: both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Place {
    fn of(text: &str, offset: usize) -> Self {
        // A place that is no boundary of a character can't be asked for, and is none to stop at either.
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

/// Something wrong in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) place: Place,
    pub(crate) text: String,
}

/// `[serve]`, or what stands above every table, whose name is empty.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) entries: Vec<Entry>,
}

/// `key = value`
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    One(Item),
    List(Vec<Item>),
}

/// A value that isn't made of others.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) scalar: Scalar,
}

#[derive(Debug)]
pub(super) enum Scalar {
    Text(String),
    /// In decimal digits, as it was written or converted.
    Number(String),
    Bool(bool),
    /// A time, or a table or list where none can be.
    Other(&'static str),
}

impl Scalar {
    /// As it would stand in the file.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Number(digits) => digits.clone(),
            Self::Bool(value) => value.to_string(),
            Self::Other(what) => (*what).to_owned(),
        }
    }
}

/// Reads the text. Where it is no TOML, all that is wrong with it.
pub(super) fn parse(text: &str) -> Result<Vec<Table>, Vec<Wrong>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let wrong = |error: toml::de::Error| Wrong {
            place: Place::of(text, error.span().map_or(0, |span| span.start)),
            text: format!("no TOML: {}", error.message().replace('\n', ", ")),
        };
        return Err(errors.into_iter().map(wrong).collect());
    }
    let mut tables = Vec::new();
    let mut above = Table { name: String::new(), place: Place { line: 1, column: 1 }, entries: Vec::new() };
    for (key, value) in document.get_ref() {
        let place = Place::of(text, key.span().start);
        let name = key.get_ref().to_string();
        match value.get_ref() {
            DeValue::Table(table) => tables.push(Table { name, place, entries: entries(text, table) }),
            other => above.entries.push(entry(text, name, place, other, value.span())),
        }
    }
    tables.push(above);
    tables.sort_by_key(|table| table.place);
    Ok(tables)
}

fn entries(text: &str, table: &DeTable<'_>) -> Vec<Entry> {
    let each = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let key: &toml::Spanned<std::borrow::Cow<'_, str>> = key;
        entry(
            text,
            key.get_ref().to_string(),
            Place::of(text, key.span().start),
            value.get_ref(),
            value.span(),
        )
    };
    let mut entries: Vec<Entry> = table.iter().map(each).collect();
    // The map sorts by name.
    entries.sort_by_key(|entry| entry.place);
    entries
}

fn entry(text: &str, key: String, place: Place, value: &DeValue<'_>, span: Range<usize>) -> Entry {
    let value = match value {
        DeValue::Array(items) => {
            let item = |item: &toml::Spanned<DeValue<'_>>| self::item(text, item.get_ref(), item.span());
            Value::List(items.iter().map(item).collect())
        }
        one => Value::One(item(text, one, span)),
    };
    Entry { key, place, value }
}

fn item(text: &str, value: &DeValue<'_>, span: Range<usize>) -> Item {
    let scalar = match value {
        DeValue::String(text) => Scalar::Text(text.to_string()),
        DeValue::Boolean(value) => Scalar::Bool(*value),
        DeValue::Integer(integer) => match i128::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => Scalar::Number(number.to_string()),
            Err(_) => Scalar::Other("a number beyond all limits"),
        },
        DeValue::Float(float) => Scalar::Number(float.as_str().to_owned()),
        DeValue::Datetime(_) => Scalar::Other("a date or a time of day"),
        DeValue::Array(_) => Scalar::Other("a list"),
        DeValue::Table(_) => Scalar::Other("a table"),
    };
    Item { place: Place::of(text, span.start), scalar }
}

#[cfg(test)]
mod tests {
    //! Goal: every key and value is there with its line and column, and what is no TOML is told by them.
    use super::*;

    #[test]
    fn places_are_told() {
        let text =
            "# ä\n[serve]\nlisten = \":443\" # é\nallow = [\n  \"10.0.0.0/8\", 'b',\n]\nring-size = 0x800\n";
        let tables = parse(text).unwrap();
        let serve = tables.iter().find(|table| table.name == "serve").unwrap();
        let at = |place: Place| (place.line, place.column);
        assert_eq!(at(serve.place), (2, 2));
        let keys: Vec<_> = serve.entries.iter().map(|entry| (entry.key.as_str(), at(entry.place))).collect();
        assert_eq!(keys, [("listen", (3, 1)), ("allow", (4, 1)), ("ring-size", (7, 1))]);
        let Value::List(items) = &serve.entries[1].value else { panic!("a list") };
        assert_eq!(at(items[1].place), (5, 17));
        let Value::One(Item { scalar: Scalar::Number(digits), .. }) = &serve.entries[2].value else {
            panic!()
        };
        assert_eq!(digits, "2048");
    }

    #[test]
    fn what_is_no_toml_is_told() {
        for (text, line) in
            [("[serve\n", 1), ("a = 1\na = 2\n", 2), ("a = \"x\n", 1), ("[serve]\n\nlisten\n", 3)]
        {
            let wrong = parse(text).unwrap_err();
            assert_eq!(wrong[0].place.line, line, "{text:?}: {wrong:?}");
            assert!(wrong[0].text.len() > 12 && !wrong[0].text.contains('\n'), "{wrong:?}");
        }
    }
}
