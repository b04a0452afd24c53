//! The status codes that a tunnel speaks, by name. Which one to send is the caller's policy.

/// 200
pub const OK: u16 = 200;
/// 204
pub const NO_CONTENT: u16 = 204;
/// 400
pub const BAD_REQUEST: u16 = 400;
/// 401
pub const UNAUTHORIZED: u16 = 401;
/// 403
pub const FORBIDDEN: u16 = 403;
/// 404
pub const NOT_FOUND: u16 = 404;
/// 405
pub const METHOD_NOT_ALLOWED: u16 = 405;
/// 407
pub const PROXY_AUTHENTICATION_REQUIRED: u16 = 407;
/// 409
pub const CONFLICT: u16 = 409;
/// 421
pub const MISDIRECTED_REQUEST: u16 = 421;
/// 425
pub const TOO_EARLY: u16 = 425;
/// 429
pub const TOO_MANY_REQUESTS: u16 = 429;
/// 431
pub const REQUEST_HEADER_FIELDS_TOO_LARGE: u16 = 431;
/// 500
pub const INTERNAL_SERVER_ERROR: u16 = 500;
/// 501
pub const NOT_IMPLEMENTED: u16 = 501;
/// 502
pub const BAD_GATEWAY: u16 = 502;
/// 503
pub const SERVICE_UNAVAILABLE: u16 = 503;
/// 504
pub const GATEWAY_TIMEOUT: u16 = 504;

/// 1xx: another response follows.
#[must_use]
pub fn is_interim(status: u16) -> bool {
    (100..200).contains(&status)
}

/// 2xx: for a CONNECT, the tunnel is open.
#[must_use]
pub fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}
