//! What a verb says on standard output. Nobody may be reading any more (`beam status | head`): then there is nothing left to
//! do, and the verb ends quietly, where `println!` would panic.

use std::{
    fmt::Arguments,
    io::{self, ErrorKind, Write as _},
};

/// Prints a line.
macro_rules! say {
    ($($arg:tt)*) => { $crate::say::print(format_args!("{}\n", format_args!($($arg)*))) };
}

/// Prints a text that has its line ends.
macro_rules! say_text {
    ($($arg:tt)*) => { $crate::say::print(format_args!($($arg)*)) };
}

/// See [`say!`].
pub(crate) fn print(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_fmt(text).and_then(|()| out.flush()) {
        let code = match error.kind() {
            ErrorKind::BrokenPipe => 0,
            _ => {
                let _ = writeln!(io::stderr(), "beam: can't write to standard output: {error}");
                1
            }
        };
        std::process::exit(code);
    }
}
