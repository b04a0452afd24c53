//! The peer's control stream (RFC 9114 section 6.2.1).

use crate::{
    Code, ConnectionError, Settings,
    connection::{Event, Role},
    frame, settings, varint,
};

/// Reads the frames of a control stream. Holds at most one SETTINGS payload ([`settings::PAYLOAD_BYTES_MAX`]).
#[derive(Debug, Default)]
pub(crate) struct ControlReader {
    header: frame::HeaderReader,
    /// The frame whose payload is arriving and what is missing of it.
    current: Option<frame::Header>,
    payload: Vec<u8>,
    has_settings: bool,
    goaway: Option<u64>,
    max_push_id: Option<u64>,
}

impl ControlReader {
    /// Takes bytes; appends what they mean to `events`.
    pub(crate) fn feed(
        &mut self,
        role: Role,
        mut bytes: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), ConnectionError> {
        while !bytes.is_empty() {
            let Some(current) = &mut self.current else {
                let (header, taken) = self.header.read(bytes);
                bytes = &bytes[taken..];
                if let Some(header) = header {
                    self.begin(role, header)?;
                    self.finish_if_whole(role, events)?;
                }
                continue;
            };
            let part = usize::try_from(current.payload_bytes).unwrap_or(usize::MAX).min(bytes.len());
            if frame::is_known(current.kind) {
                self.payload.extend_from_slice(&bytes[..part]);
            }
            current.payload_bytes -= part as u64;
            bytes = &bytes[part..];
            self.finish_if_whole(role, events)?;
        }
        Ok(())
    }

    /// Bytes held of a frame that is not whole yet.
    pub(crate) fn held_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Decides by type, order and length whether the frame may come at all.
    fn begin(&mut self, role: Role, header: frame::Header) -> Result<(), ConnectionError> {
        let frame::Header { kind, payload_bytes } = header;
        let unexpected = |what| Err(ConnectionError::new(Code::H3_FRAME_UNEXPECTED, what, kind));
        let can_be_integer = (1..=varint::VARINT_BYTES_MAX as u64).contains(&payload_bytes);
        if !self.has_settings && kind != frame::SETTINGS {
            let what = "the control stream does not begin with SETTINGS";
            return Err(ConnectionError::new(Code::H3_MISSING_SETTINGS, what, kind));
        }
        match kind {
            frame::SETTINGS if self.has_settings => return unexpected("a second SETTINGS frame"),
            frame::SETTINGS if payload_bytes > settings::PAYLOAD_BYTES_MAX => {
                let what = "SETTINGS of more than 1024 bytes";
                return Err(ConnectionError::new(Code::H3_EXCESSIVE_LOAD, what, payload_bytes));
            }
            frame::SETTINGS => {}
            frame::MAX_PUSH_ID if role == Role::Client => return unexpected("MAX_PUSH_ID from a server"),
            frame::GOAWAY | frame::MAX_PUSH_ID | frame::CANCEL_PUSH if can_be_integer => {}
            frame::GOAWAY | frame::MAX_PUSH_ID | frame::CANCEL_PUSH => {
                let what = "a payload that cannot be one integer";
                return Err(ConnectionError::new(Code::H3_FRAME_ERROR, what, payload_bytes));
            }
            _ if frame::is_known(kind) => {
                return unexpected("a frame that the control stream does not carry");
            }
            _ => {}
        }
        self.current = Some(header);
        Ok(())
    }

    fn finish_if_whole(&mut self, role: Role, events: &mut Vec<Event>) -> Result<(), ConnectionError> {
        let Some(frame::Header { kind, payload_bytes: 0 }) = self.current else { return Ok(()) };
        self.current = None;
        let result = match kind {
            frame::SETTINGS => Settings::parse(&self.payload).map(|settings| {
                self.has_settings = true;
                events.push(Event::Settings(settings));
            }),
            frame::GOAWAY => single_integer(&self.payload).and_then(|id| self.on_goaway(role, id, events)),
            frame::MAX_PUSH_ID => single_integer(&self.payload).and_then(|id| self.on_max_push_id(id)),
            frame::CANCEL_PUSH => single_integer(&self.payload).and_then(|id| {
                // Neither side of a connection without push has any push id to cancel.
                Err(ConnectionError::new(
                    Code::H3_ID_ERROR,
                    "CANCEL_PUSH of a push that was never promised",
                    id,
                ))
            }),
            _ => Ok(()),
        };
        // Nothing as large follows SETTINGS: give the memory back.
        self.payload = Vec::new();
        result
    }

    fn on_goaway(&mut self, role: Role, id: u64, events: &mut Vec<Event>) -> Result<(), ConnectionError> {
        if role == Role::Client && !id.is_multiple_of(4) {
            let what = "GOAWAY with an id that is not a client's bidirectional stream";
            return Err(ConnectionError::new(Code::H3_ID_ERROR, what, id));
        }
        match self.goaway {
            Some(earlier) if id > earlier => {
                return Err(ConnectionError::new(
                    Code::H3_ID_ERROR,
                    "GOAWAY with a larger id than before",
                    id,
                ));
            }
            Some(earlier) if id == earlier => return Ok(()),
            _ => {}
        }
        self.goaway = Some(id);
        // Of several in one chunk only the last counts, so a chunk yields at most one event each.
        events.retain(|event| !matches!(event, Event::GoAway { .. }));
        events.push(Event::GoAway { id });
        Ok(())
    }

    fn on_max_push_id(&mut self, id: u64) -> Result<(), ConnectionError> {
        if self.max_push_id.is_some_and(|earlier| id < earlier) {
            return Err(ConnectionError::new(Code::H3_ID_ERROR, "MAX_PUSH_ID smaller than before", id));
        }
        self.max_push_id = Some(id);
        Ok(())
    }
}

fn single_integer(payload: &[u8]) -> Result<u64, ConnectionError> {
    match varint::read(payload) {
        Some((value, size_bytes)) if size_bytes == payload.len() => Ok(value),
        _ => {
            let what = "a payload that is not exactly one integer";
            Err(ConnectionError::new(Code::H3_FRAME_ERROR, what, payload.len() as u64))
        }
    }
}
