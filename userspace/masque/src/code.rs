//! Error codes that go into CONNECTION_CLOSE, RESET_STREAM and STOP_SENDING.

use std::fmt;

/// An HTTP/3 or QPACK application error code (RFC 9114 section 8.1, RFC 9204 section 6, RFC 9297 section 5.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub u64);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// Every code that has a name here.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The registered name; `None` for a code that nobody here defines.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// A datagram or capsule did not parse (RFC 9297).
    H3_DATAGRAM_ERROR = 0x33, "H3_DATAGRAM_ERROR";
    /// Closed with nothing wrong.
    H3_NO_ERROR = 0x100, "H3_NO_ERROR";
    /// A violation without a code of its own.
    H3_GENERAL_PROTOCOL_ERROR = 0x101, "H3_GENERAL_PROTOCOL_ERROR";
    /// Our own fault.
    H3_INTERNAL_ERROR = 0x102, "H3_INTERNAL_ERROR";
    /// The peer created a stream that is not accepted.
    H3_STREAM_CREATION_ERROR = 0x103, "H3_STREAM_CREATION_ERROR";
    /// A stream that the connection needs was closed or reset.
    H3_CLOSED_CRITICAL_STREAM = 0x104, "H3_CLOSED_CRITICAL_STREAM";
    /// A frame that is not permitted in this state or on this stream.
    H3_FRAME_UNEXPECTED = 0x105, "H3_FRAME_UNEXPECTED";
    /// A frame whose layout or size is wrong.
    H3_FRAME_ERROR = 0x106, "H3_FRAME_ERROR";
    /// The peer generates excessive load.
    H3_EXCESSIVE_LOAD = 0x107, "H3_EXCESSIVE_LOAD";
    /// A stream id or push id used wrongly.
    H3_ID_ERROR = 0x108, "H3_ID_ERROR";
    /// A wrong SETTINGS payload.
    H3_SETTINGS_ERROR = 0x109, "H3_SETTINGS_ERROR";
    /// The control stream did not begin with SETTINGS.
    H3_MISSING_SETTINGS = 0x10a, "H3_MISSING_SETTINGS";
    /// The server refused the request before it looked at it: safe to retry elsewhere.
    H3_REQUEST_REJECTED = 0x10b, "H3_REQUEST_REJECTED";
    /// The request or its response is no longer wanted.
    H3_REQUEST_CANCELLED = 0x10c, "H3_REQUEST_CANCELLED";
    /// The stream ended before a whole request was there.
    H3_REQUEST_INCOMPLETE = 0x10d, "H3_REQUEST_INCOMPLETE";
    /// A malformed HTTP message.
    H3_MESSAGE_ERROR = 0x10e, "H3_MESSAGE_ERROR";
    /// The TCP connection behind a CONNECT was reset.
    H3_CONNECT_ERROR = 0x10f, "H3_CONNECT_ERROR";
    /// The peer should retry over HTTP/1.1.
    H3_VERSION_FALLBACK = 0x110, "H3_VERSION_FALLBACK";
    /// A field section could not be decoded.
    QPACK_DECOMPRESSION_FAILED = 0x200, "QPACK_DECOMPRESSION_FAILED";
    /// A wrong instruction on the peer's encoder stream.
    QPACK_ENCODER_STREAM_ERROR = 0x201, "QPACK_ENCODER_STREAM_ERROR";
    /// A wrong instruction on the peer's decoder stream.
    QPACK_DECODER_STREAM_ERROR = 0x202, "QPACK_DECODER_STREAM_ERROR";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Code> for u64 {
    fn from(code: Code) -> Self {
        code.0
    }
}
