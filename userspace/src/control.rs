//! The control socket: one JSON request a line in, one JSON object a line out.
//!
//! Reached by whoever may open the socket file (0660). A request is at most [`REQUEST_BYTES_MAX`] long, and at most
//! [`CLIENTS_MAX`] callers are served at once; each has [`PATIENCE`] to say what it wants.

use crate::{
    capture::{Asked, Granted},
    drain::Progress,
    enroll,
    failure::Failure,
    show::{Question, Shown},
    status::Status,
    top::sample::Sample,
};
use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Where a gateway listens unless told otherwise.
pub(crate) const DEFAULT_PATH: &str = "/run/beam/beam.sock";

const REQUEST_BYTES_MAX: u64 = 4096;
const CLIENTS_MAX: usize = 16;
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "verb")]
pub(crate) enum Request {
    Status,
    /// Everything at this instant, for `beam top`.
    Sample,
    Reload,
    Kick {
        client: String,
    },
    Show(Question),
    Clear,
    /// The last lines of the log.
    Log,
    /// What a client needs to know of this gateway.
    Enrolment,
    /// Begin to drain, or say how far that is.
    Drain {
        wait: bool,
    },
    Capture(Box<Asked>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Answer {
    Status(Box<Status>),
    Sample(Box<Sample>),
    Show(Box<Shown>),
    Log(Box<crate::log_ring::Recent>),
    /// Records of the capture follow.
    Capture(Granted),
    Enrolment(Box<enroll::Gateway>),
    /// What was done.
    Done(String),
    Error(String),
    Drain(Progress),
}

/// Removes the socket file when the daemon ends.
pub(crate) struct Bound {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Binds the control socket, replacing one that a dead daemon left behind.
pub(crate) fn bind(path: &Path) -> anyhow::Result<Bound> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)
            .with_context(|| format!("can't make {} for the control socket", dir.display()))?;
    }
    let there = fs::symlink_metadata(path).ok();
    if there.as_ref().is_some_and(|meta| !meta.file_type().is_socket()) {
        return Err(anyhow!("{} is there and is no control socket; give --control PATH", path.display()));
    }
    if there.is_some() {
        if UnixStream::connect(path).is_ok() {
            return Err(anyhow!(
                "another beam answers on {}; stop it, or give --control PATH",
                path.display()
            ));
        }
        fs::remove_file(path).with_context(|| format!("can't remove the stale {}", path.display()))?;
    }
    let listener = UnixListener::bind(path).with_context(|| {
        format!("can't listen on the control socket {}; give --control PATH", path.display())
    })?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(Bound { listener, path: path.to_owned() })
}

/// What serves a capture: it has its connection for as long as it lasts.
pub(crate) type Capture = dyn Fn(&Asked, &UnixStream) -> std::io::Result<()> + Send + Sync;

/// Serves requests on a thread of its own until the process ends.
pub(crate) fn serve(
    bound: &Bound,
    answer: Arc<dyn Fn(Request) -> Answer + Send + Sync>,
    capture: Arc<Capture>,
) -> anyhow::Result<()> {
    let listener = bound.listener.try_clone()?;
    let clients = Arc::new(AtomicUsize::new(0));
    std::thread::Builder::new().name("beam-control".into()).spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                // Out of descriptors, most likely: don't spin.
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            if clients.fetch_add(1, Ordering::SeqCst) >= CLIENTS_MAX {
                clients.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let (answer, capture, place) = (answer.clone(), capture.clone(), Place(clients.clone()));
            let spawned = std::thread::Builder::new().name("beam-answer".into()).spawn(move || {
                let _place = place;
                if let Err(error) = converse(&stream, &*answer, &*capture) {
                    tracing::debug!("control socket: {error:#}");
                }
            });
            // Its place is free then, too, with the closure.
            if let Err(error) = spawned {
                tracing::warn!("control socket: can't start a thread: {error}");
            }
        }
    })?;
    Ok(())
}

/// One of the places of the control socket; free again when its thread ends, by a panic too.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn converse(
    stream: &UnixStream,
    answer: &dyn Fn(Request) -> Answer,
    capture: &Capture,
) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
    let reply = match serde_json::from_str(&line) {
        Ok(Request::Capture(asked)) => return Ok(capture(&asked, stream)?),
        Ok(request) => answer(request),
        Err(error) => Answer::Error(format!("request not understood: {error}")),
    };
    let mut text = serde_json::to_vec(&reply)?;
    text.push(b'\n');
    let mut stream = stream;
    Ok(stream.write_all(&text)?)
}

/// Asks the daemon behind `path`.
pub(crate) fn ask(path: &Path, request: &Request) -> Result<Answer, Failure> {
    open(path, request).map(|(answer, _)| answer)
}

/// Asks the daemon behind `path`, and keeps the connection for what follows the answer.
pub(crate) fn open(path: &Path, request: &Request) -> Result<(Answer, BufReader<UnixStream>), Failure> {
    let stream = UnixStream::connect(path).map_err(|error| {
        let why = match error.kind() {
            ErrorKind::NotFound => {
                "there is no such socket: is `beam serve` or `beam connect --control` running?".to_owned()
            }
            ErrorKind::ConnectionRefused => {
                "a socket is there but nobody listens: the daemon is dead".to_owned()
            }
            ErrorKind::PermissionDenied => {
                "permission denied: run as root or as a member of the socket's group".to_owned()
            }
            _ => error.to_string(),
        };
        Failure::Unreachable(anyhow!("no daemon at {}: {why}; --control PATH names another", path.display()))
    })?;
    let unreachable = |e: std::io::Error| {
        Failure::Unreachable(anyhow!("the daemon at {} doesn't answer: {e}", path.display()))
    };
    stream.set_read_timeout(Some(PATIENCE)).map_err(unreachable)?;
    let mut text = serde_json::to_vec(request).map_err(Failure::runtime)?;
    text.push(b'\n');
    (&stream).write_all(&text).map_err(unreachable)?;
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    reader.read_line(&mut line).map_err(unreachable)?;
    let answer = serde_json::from_str(&line).map_err(|e| {
        Failure::Unreachable(anyhow!(
            "the daemon at {} answers in a way this version doesn't know: {e}",
            path.display()
        ))
    })?;
    Ok((answer, reader))
}

/// Does it once, or every so many seconds for ever.
pub(crate) fn repeat(
    watch_s: Option<f64>,
    mut once: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        once()?;
        let Some(seconds) = watch_s else { return Ok(()) };
        std::thread::sleep(Duration::try_from_secs_f64(seconds.max(0.1)).unwrap_or(Duration::from_secs(1)));
    }
}
