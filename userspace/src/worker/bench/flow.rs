//! One stream of a measurement: the count wanted back, the upload, the answer.

use super::{Figures, STEP_BYTES, UNLIMITED, payload};
use bytes::Bytes;
use std::time::Instant;
use tunnel::{ConnMut, Read, StreamId, Write};

/// A stream that was opened, and what is still to go and to come.
pub(super) struct Flow {
    pub(super) load: usize,
    pub(super) link: usize,
    pub(super) head: Bytes,
    pub(super) up_left: u64,
    pub(super) finished: bool,
    /// All of the answer has come.
    pub(super) answered: bool,
    pub(super) wanted: u64,
    pub(super) got: u64,
    pub(super) since: Instant,
    pub(super) queued: bool,
}

/// What became of a flow in a step.
pub(super) enum Step {
    Waits,
    More,
    Done,
    Failed,
}

/// Sends what the stream takes. True if it took all that was given, and there is more.
pub(super) fn write(
    quic: &mut ConnMut<'_>,
    id: StreamId,
    flow: &mut Flow,
    figures: &mut Figures,
    counts: bool,
) -> bool {
    if flow.finished {
        return false;
    }
    if !flow.head.is_empty() {
        let mut head = [flow.head.clone()];
        match quic.write_chunks(id, &mut head) {
            Write::Written { .. } => flow.head = std::mem::take(&mut head[0]),
            Write::Blocked | Write::Stopped(_) | Write::Gone => return false,
        }
        if !flow.head.is_empty() {
            return true;
        }
    }
    if flow.up_left > 0 {
        let (mut next, count) = payload(flow.up_left);
        match quic.write_chunks(id, &mut next[..count]) {
            Write::Written { bytes, .. } => {
                figures.moved_up(bytes as u64, counts);
                if flow.up_left != UNLIMITED {
                    flow.up_left -= bytes as u64;
                }
            }
            Write::Blocked | Write::Stopped(_) | Write::Gone => return false,
        }
    }
    if flow.up_left == 0 {
        flow.finished = true;
        quic.finish(id);
    }
    !flow.finished
}

/// Takes what has come of the answer.
pub(super) fn read(
    quic: &mut ConnMut<'_>,
    id: StreamId,
    flow: &mut Flow,
    figures: &mut Figures,
    counts: bool,
    chunks: &mut Vec<Bytes>,
) -> Step {
    if !flow.answered {
        let end = quic.read_all(id, STEP_BYTES, chunks);
        let bytes: u64 = chunks.drain(..).map(|chunk| chunk.len() as u64).sum();
        flow.got += bytes;
        figures.moved_down(bytes, counts);
        match end {
            Read::Chunk(_) => return Step::More,
            Read::Blocked => return Step::Waits,
            Read::Fin if flow.got == flow.wanted => flow.answered = true,
            // An answer of another length is none.
            Read::Fin | Read::Reset(_) | Read::Gone => return Step::Failed,
        }
    }
    // A server may answer before it has all of the upload.
    if flow.finished { Step::Done } else { Step::Waits }
}
