//! What is authenticated beside the rounds of a step: of one packet two blocks a double round, of another one block.
//!
//! That makes 30 blocks in a step of eight lanes, which make at most 32. Four a double round, which would always
//! suffice, was slower: the CPU has six operations a cycle for all of this.

use super::{
    block::DOUBLE_ROUNDS,
    engine::NOBODY,
    job::Job,
    lanes::LANES_MAX,
    plan::Cursor,
    poly::{Poly, Polys},
};

/// Bytes that are authenticated in one go.
pub(super) const DOUBLE_BYTES: usize = 32;
const SINGLE_BYTES: usize = 16;
/// Pairs of streams beside the widest vector.
const WIDTH_MAX: usize = LANES_MAX / 8;

/// One packet after another, in pieces of `BYTES`.
#[derive(Clone, Copy)]
struct Stream<const BYTES: usize> {
    /// The packet, or [`NONE`].
    job: usize,
    bytes_done: usize,
}

const NONE: usize = usize::MAX;

impl<const BYTES: usize> Stream<BYTES> {
    const NEW: Self = Self { job: NONE, bytes_done: 0 };

    /// The pieces that are there of the packet and aren't done. It ends at a whole [`DOUBLE_BYTES`], whatever `BYTES`
    /// is, so that it may pass from stream to stream.
    #[inline(always)]
    fn pieces<'a, J: Job>(self, jobs: &'a [J], done: Cursor) -> &'a [[u8; BYTES]] {
        match done.there(jobs, self.job) {
            Some((there, _)) => {
                let end = there / DOUBLE_BYTES * DOUBLE_BYTES;
                jobs[self.job].ciphertext()[self.bytes_done..end].as_chunks().0
            }
            None => &[],
        }
    }

    /// Goes on to the next packet, given that this one's pieces are done so far. `false`: there is none yet.
    #[inline(always)]
    fn advance<J: Job>(&mut self, jobs: &[J], done: Cursor, next_job: &mut usize) -> bool {
        let more = done.there(jobs, self.job).is_some_and(|(_, more)| more);
        let any = !more && done.there(jobs, *next_job).is_some();
        if any {
            *self = Self { job: *next_job, bytes_done: 0 };
            *next_job += 1;
        }
        any
    }
}

/// A stream during a step.
struct Feed<'a, const BYTES: usize> {
    /// As it will be when the pieces are done.
    stream: Stream<BYTES>,
    poly: usize,
    pieces: &'a [[u8; BYTES]],
}

impl<'a, const BYTES: usize> Feed<'a, BYTES> {
    /// Enough for a step.
    const NOTHING: &'static [[u8; BYTES]] = &[[0; BYTES]; DOUBLE_ROUNDS];

    #[inline(always)]
    fn new<J: Job>(mut stream: Stream<BYTES>, jobs: &'a [J], done: Cursor) -> Self {
        let pieces = stream.pieces(jobs, done);
        stream.bytes_done += pieces.as_flattened().len();
        Self { stream, poly: stream.job, pieces }
    }

    /// The next piece, and whose it is. The branch is taken once a packet, and nothing is planned ahead: loops over the
    /// pieces of each packet cost a mispredicted branch or two in each step.
    #[inline(always)]
    fn next<J: Job>(
        &mut self,
        jobs: &'a [J],
        done: Cursor,
        next_job: &mut usize,
    ) -> (usize, &'a [u8; BYTES]) {
        loop {
            if let Some((piece, rest)) = self.pieces.split_first() {
                self.pieces = rest;
                return (self.poly, piece);
            }
            if self.stream.advance(jobs, done, next_job) {
                *self = Self::new(self.stream, jobs, done);
            } else {
                (self.poly, self.pieces) = (NOBODY, Self::NOTHING);
            }
        }
    }

    /// The stream after the step.
    #[inline(always)]
    fn end(self) -> Stream<BYTES> {
        let left = if self.poly == NOBODY { 0 } else { self.pieces.as_flattened().len() };
        Stream { bytes_done: self.stream.bytes_done - left, ..self.stream }
    }
}

/// All packets that wait to be authenticated.
pub(super) struct Streams {
    doubles: [Stream<DOUBLE_BYTES>; WIDTH_MAX],
    singles: [Stream<SINGLE_BYTES>; WIDTH_MAX],
    next_job: usize,
}

/// The streams during a step.
pub(super) struct Feeds<'a, J> {
    jobs: &'a [J],
    done: Cursor,
    doubles: [Feed<'a, DOUBLE_BYTES>; WIDTH_MAX],
    singles: [Feed<'a, SINGLE_BYTES>; WIDTH_MAX],
    next_job: usize,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self { doubles: [Stream::NEW; WIDTH_MAX], singles: [Stream::NEW; WIDTH_MAX], next_job: 0 }
    }

    #[inline(always)]
    pub(super) fn start<'a, J: Job>(&self, jobs: &'a [J], done: Cursor) -> Feeds<'a, J> {
        Feeds {
            jobs,
            done,
            doubles: [Feed::new(self.doubles[0], jobs, done), Feed::new(self.doubles[1], jobs, done)],
            singles: [Feed::new(self.singles[0], jobs, done), Feed::new(self.singles[1], jobs, done)],
            next_job: self.next_job,
        }
    }

    /// Authenticates what the steps have left of the texts, when all is made: four packets at a time, as each is a
    /// chain of dependent multiplications.
    #[inline(always)]
    pub(super) fn finish<J: Job>(mut self, jobs: &[J], done: Cursor, polys: &mut Polys) {
        let mut chains = [(NOBODY, [].as_slice()); 4];
        let mut busy = true;
        while busy {
            busy = false;
            for (poly, pieces) in &mut chains {
                if let Some((piece, rest)) = pieces.split_first() {
                    poly_of(polys, *poly).double(piece);
                    *pieces = rest;
                    busy = true;
                } else if let Some(stream) = self.leftover(jobs) {
                    (*poly, *pieces) = (stream.job, stream.pieces(jobs, done));
                    busy = true;
                }
            }
        }
    }

    /// Takes one packet that may not be done.
    #[inline(always)]
    fn leftover<J>(&mut self, jobs: &[J]) -> Option<Stream<DOUBLE_BYTES>> {
        for i in 0..WIDTH_MAX {
            if self.doubles[i].job != NONE {
                return Some(std::mem::replace(&mut self.doubles[i], Stream::NEW));
            }
            if self.singles[i].job != NONE {
                let Stream { job, bytes_done } = std::mem::replace(&mut self.singles[i], Stream::NEW);
                return Some(Stream { job, bytes_done });
            }
        }
        let job = self.next_job;
        self.next_job += 1;
        (job < jobs.len()).then_some(Stream { job, bytes_done: 0 })
    }
}

impl<J: Job> Feeds<'_, J> {
    /// Two blocks from each of the first `width` streams that take two.
    #[inline(always)]
    pub(super) fn doubles(&mut self, width: usize, polys: &mut Polys) {
        for feed in &mut self.doubles[..width] {
            let (poly, piece) = feed.next(self.jobs, self.done, &mut self.next_job);
            poly_of(polys, poly).double(piece);
        }
    }

    /// One block from each of the first `width` streams that take one.
    #[inline(always)]
    pub(super) fn singles(&mut self, width: usize, polys: &mut Polys) {
        for feed in &mut self.singles[..width] {
            let (poly, piece) = feed.next(self.jobs, self.done, &mut self.next_job);
            poly_of(polys, poly).single(piece);
        }
    }

    #[inline(always)]
    pub(super) fn end(self) -> Streams {
        let ([a, b], [c, d]) = (self.doubles, self.singles);
        Streams { doubles: [a.end(), b.end()], singles: [c.end(), d.end()], next_job: self.next_job }
    }
}

#[inline(always)]
fn poly_of(polys: &mut Polys, job: usize) -> &mut Poly {
    &mut polys[job % polys.len()]
}
