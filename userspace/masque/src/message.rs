//! What a [`crate::MessageReader`] has to know about requests and about responses.
#![expect(private_interfaces, reason = "the trait is sealed: nobody outside can name these types")]

use crate::{
    Code, ConnectionError, Limits, MessageError, Request, Response, ResponseTo, frame, qpack::RawSection,
    request::Kind, status,
};

/// A request or a response; nothing else can be read from a request stream.
pub trait Message: sealed::Sealed {}

impl Message for Request {}
impl Message for Response {}

/// What follows a header section.
pub(crate) enum Body {
    /// Another header section.
    Interim,
    /// Content, of this length if it is known.
    Content(Option<u64>),
    /// A tunnel: DATA only.
    Tunnel,
}

pub(crate) mod sealed {
    use super::{Body, ConnectionError, Limits, MessageError, RawSection};

    pub trait Sealed: Sized {
        /// What has to be known beforehand.
        type Context: Copy + std::fmt::Debug;
        /// The stream ended before the header section.
        const INCOMPLETE: MessageError;
        /// PUSH_PROMISE outside of a tunnel.
        const PUSH_PROMISE: ConnectionError;

        fn parse(raw: RawSection, limits: &Limits, context: Self::Context) -> Result<Self, MessageError>;
        fn body(&self, context: Self::Context) -> Body;
    }
}

impl sealed::Sealed for Request {
    type Context = ();
    const INCOMPLETE: MessageError = MessageError::Incomplete;
    const PUSH_PROMISE: ConnectionError =
        ConnectionError::new(Code::H3_FRAME_UNEXPECTED, "PUSH_PROMISE from a client", frame::PUSH_PROMISE);

    fn parse(raw: RawSection, limits: &Limits, (): ()) -> Result<Self, MessageError> {
        Self::parse(raw, limits.extended_connect)
    }

    fn body(&self, (): ()) -> Body {
        match self.kind {
            Kind::Other { .. } => Body::Content(self.content_length),
            // A CONNECT has no content and no trailers, so its stream is a tunnel from here on, whether or not it will
            // be accepted.
            Kind::Connect { .. } | Kind::ExtendedConnect { .. } => Body::Tunnel,
        }
    }
}

impl sealed::Sealed for Response {
    type Context = ResponseTo;
    const INCOMPLETE: MessageError = MessageError::Malformed("the stream ended before the response");
    const PUSH_PROMISE: ConnectionError = ConnectionError::new(
        Code::H3_ID_ERROR,
        "PUSH_PROMISE, though MAX_PUSH_ID was never sent",
        frame::PUSH_PROMISE,
    );

    fn parse(raw: RawSection, _: &Limits, to: ResponseTo) -> Result<Self, MessageError> {
        Self::parse(raw, to)
    }

    fn body(&self, to: ResponseTo) -> Body {
        if status::is_interim(self.status) {
            Body::Interim
        } else if to == ResponseTo::Connect && status::is_success(self.status) {
            Body::Tunnel
        } else {
            Body::Content(self.content_length)
        }
    }
}
