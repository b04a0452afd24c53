//! The regular fields of a message, checked.

use crate::{
    error::MessageError,
    qpack::{Line, RawSection},
};
use bytes::Bytes;
use std::fmt;

/// One field line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Lower-case token.
    pub name: &'a str,
    /// Visible characters, blanks and bytes above 0x7f; no control characters.
    pub value: &'a [u8],
}

/// Field lines in the order in which they came. Invariant: no pseudo-header fields; names are lower-case tokens; values
/// hold no control characters but tab; nothing connection-specific.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FieldSection {
    text: Bytes,
    lines: Vec<Line>,
}

impl FieldSection {
    /// Checks and takes all lines of a section that must not have pseudo-header fields.
    pub(crate) fn from_raw(raw: RawSection) -> Result<Self, MessageError> {
        let mut section = Self { text: raw.text, lines: Vec::with_capacity(raw.lines.len()) };
        for line in raw.lines {
            section.push(line)?;
        }
        Ok(section)
    }

    pub(crate) fn over(text: Bytes) -> Self {
        Self { text, lines: Vec::new() }
    }

    /// Checks a line of the text that this section was made over and appends it.
    pub(crate) fn push(&mut self, line: Line) -> Result<(), MessageError> {
        let name = &self.text[line.name.clone()];
        check_name(name)?;
        check_value(&self.text[line.value.clone()])?;
        check_connection_specific(name, &self.text[line.value.clone()])?;
        self.lines.push(line);
        Ok(())
    }

    /// The lines, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Field<'_>> {
        self.lines.iter().map(|line| self.field(line))
    }

    fn field(&self, line: &Line) -> Field<'_> {
        // A checked name is ASCII, so the default is never taken.
        let name = str::from_utf8(&self.text[line.name.clone()]).unwrap_or_default();
        Field { name, value: &self.text[line.value.clone()] }
    }

    /// The values of all lines with this (lower-case) name.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |field| field.name == name).map(|field| field.value)
    }

    /// The value of the only line with this (lower-case) name; `None` when there is none or more than one, or when it
    /// is not UTF-8.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.values(name);
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        str::from_utf8(value).ok()
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// True when there are no lines.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Takes the values of all lines with this name out of the section, as slices of its text.
    pub(crate) fn take(&mut self, name: &str) -> Vec<Bytes> {
        let text = self.text.clone();
        let mut taken = Vec::new();
        self.lines.retain(|line| {
            let is_it = text[line.name.clone()] == *name.as_bytes();
            if is_it {
                taken.push(text.slice(line.value.clone()));
            }
            !is_it
        });
        taken
    }
}

/// True for fields whose value is a secret: never printed, and never indexed by an intermediary.
pub(crate) fn is_sensitive(name: &str) -> bool {
    matches!(name, "authorization" | "proxy-authorization" | "cookie" | "set-cookie")
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value: &[u8] = if is_sensitive(self.name) { b"(redacted)" } else { self.value };
        write!(f, "{}: {}", self.name, value.escape_ascii())
    }
}

impl fmt::Debug for FieldSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A token: at least one `tchar`.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

fn check_name(name: &[u8]) -> Result<(), MessageError> {
    match name.first() {
        None => return Err(MessageError::Malformed("a field without a name")),
        Some(b':') => {
            return Err(MessageError::Malformed("a pseudo-header field after a regular one or in trailers"));
        }
        Some(_) => {}
    }
    if name.iter().any(u8::is_ascii_uppercase) {
        return Err(MessageError::Malformed("an uppercase field name"));
    }
    if !is_token(name) {
        return Err(MessageError::Malformed("a character in a field name that is not permitted"));
    }
    Ok(())
}

/// Tab, blank, visible and `obs-text` (RFC 9110 section 5.5).
pub(crate) fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

pub(crate) fn check_value(value: &[u8]) -> Result<(), MessageError> {
    if value.iter().all(|&byte| is_value_byte(byte)) {
        Ok(())
    } else {
        Err(MessageError::Malformed("a control character in a field value"))
    }
}

/// RFC 9114 section 4.2: such fields belong to HTTP/1.1; `te: trailers` is the one exception.
fn check_connection_specific(name: &[u8], value: &[u8]) -> Result<(), MessageError> {
    match name {
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            Err(MessageError::Malformed("a connection-specific field"))
        }
        b"te" if !value.eq_ignore_ascii_case(b"trailers") => {
            Err(MessageError::Malformed("a te field other than `trailers`"))
        }
        _ => Ok(()),
    }
}
