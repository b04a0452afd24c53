//! Failures that end a verb, and the exit codes that the command line promises for them.

use std::{fmt, process::ExitCode};

/// Why a verb ended without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something broke while running (exit code 1).
    Runtime(anyhow::Error),
    /// The configuration is invalid: files, flags that contradict each other (exit code 3).
    Config(anyhow::Error),
    /// The host isn't fit: interface, privileges, ports, memory (exit code 4).
    Preflight(anyhow::Error),
    /// No daemon answers on the control socket (exit code 5).
    Unreachable(anyhow::Error),
}

impl Failure {
    pub(crate) fn config(error: impl Into<anyhow::Error>) -> Self {
        Self::Config(error.into())
    }

    pub(crate) fn preflight(error: impl Into<anyhow::Error>) -> Self {
        Self::Preflight(error.into())
    }

    pub(crate) fn runtime(error: impl Into<anyhow::Error>) -> Self {
        Self::Runtime(error.into())
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Runtime(_) => 1,
            Self::Config(_) => 3,
            Self::Preflight(_) => 4,
            Self::Unreachable(_) => 5,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(e) | Self::Config(e) | Self::Preflight(e) | Self::Unreachable(e) => {
                write!(f, "{}", one_text(e))
            }
        }
    }
}

/// An error and its causes, each said once: some messages contain their cause, and put the advice behind it.
fn one_text(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
    }
    text
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Runtime(error)
    }
}
