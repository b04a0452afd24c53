//! What is authenticated beside the rounds of a step: of one packet two blocks a double round, of another one block.
//!
//! That makes 30 blocks in a step of eight lanes, which make at most 32. Four a double round, which would always
//! suffice, was slower: the CPU has six operations a cycle for all of this.

use super::{
    block::DOUBLE_ROUNDS,
    engine::{NOBODY, POLYS},
    job::Job,
    plan::Cursor,
    poly::{Poly, Polys},
};
use std::slice::Iter;

/// Bytes that are authenticated in one go.
pub(super) const DOUBLE_BYTES: usize = 32;
const SINGLE_BYTES: usize = 16;

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
    fn pieces<J: Job>(self, jobs: &[J], done: Cursor) -> &[[u8; BYTES]] {
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
    /// Whose the pieces are, unless they are [`Self::NOTHING`].
    poly: &'a Poly,
    busy: bool,
    pieces: Iter<'a, [u8; BYTES]>,
}

impl<'a, const BYTES: usize> Feed<'a, BYTES> {
    /// Enough for a step.
    const NOTHING: &'static [[u8; BYTES]] = &[[0; BYTES]; DOUBLE_ROUNDS];

    #[inline(always)]
    fn new<J: Job>(mut stream: Stream<BYTES>, jobs: &'a [J], done: Cursor, polys: &'a Polys) -> Self {
        let pieces = stream.pieces(jobs, done);
        stream.bytes_done += pieces.as_flattened().len();
        Self { stream, poly: &polys[stream.job % POLYS], busy: true, pieces: pieces.iter() }
    }

    /// The next piece, and the authenticator it is for. The branch is taken once a packet, and nothing is planned ahead: loops over the
    /// pieces of each packet cost a mispredicted branch or two in each step.
    #[inline(always)]
    fn next<J: Job>(
        &mut self,
        jobs: &'a [J],
        done: Cursor,
        polys: &'a Polys,
        next_job: &mut usize,
    ) -> (&'a Poly, &'a [u8; BYTES]) {
        loop {
            if let Some(piece) = self.pieces.next() {
                return (self.poly, piece);
            }
            if self.stream.advance(jobs, done, next_job) {
                *self = Self::new(self.stream, jobs, done, polys);
            } else {
                (self.poly, self.pieces, self.busy) = (&polys[NOBODY], Self::NOTHING.iter(), false);
            }
        }
    }

    /// The stream after the step.
    #[inline(always)]
    fn end(&self) -> Stream<BYTES> {
        let left = if self.busy { self.pieces.as_slice().as_flattened().len() } else { 0 };
        Stream { bytes_done: self.stream.bytes_done - left, ..self.stream }
    }
}

/// All packets that wait to be authenticated: `WIDTH` streams of either kind.
pub(super) struct Streams<const WIDTH: usize> {
    doubles: [Stream<DOUBLE_BYTES>; WIDTH],
    singles: [Stream<SINGLE_BYTES>; WIDTH],
    next_job: usize,
}

/// The streams during a step.
pub(super) struct Feeds<'a, J, const WIDTH: usize> {
    jobs: &'a [J],
    done: Cursor,
    polys: &'a Polys,
    doubles: [Feed<'a, DOUBLE_BYTES>; WIDTH],
    singles: [Feed<'a, SINGLE_BYTES>; WIDTH],
    next_job: usize,
}

impl<const WIDTH: usize> Streams<WIDTH> {
    pub(super) fn new() -> Self {
        Self { doubles: [Stream::NEW; WIDTH], singles: [Stream::NEW; WIDTH], next_job: 0 }
    }

    #[inline(always)]
    pub(super) fn start<'a, J: Job>(
        &self,
        jobs: &'a [J],
        done: Cursor,
        polys: &'a Polys,
    ) -> Feeds<'a, J, WIDTH> {
        Feeds {
            jobs,
            done,
            polys,
            doubles: self.doubles.map(|stream| Feed::new(stream, jobs, done, polys)),
            singles: self.singles.map(|stream| Feed::new(stream, jobs, done, polys)),
            next_job: self.next_job,
        }
    }

    /// Authenticates what the steps have left of the texts, when all is made: four packets at a time, as each is a
    /// chain of dependent multiplications.
    #[inline(always)]
    pub(super) fn finish<J: Job>(mut self, jobs: &[J], done: Cursor, polys: &Polys) {
        let mut chains = [(NOBODY, [].as_slice()); 4];
        let mut busy = true;
        while busy {
            busy = false;
            for (poly, pieces) in &mut chains {
                if let Some((piece, rest)) = pieces.split_first() {
                    polys[*poly % POLYS].double(piece);
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
        for i in 0..WIDTH {
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

impl<J: Job, const WIDTH: usize> Feeds<'_, J, WIDTH> {
    /// Two blocks from each stream that takes two.
    #[inline(always)]
    pub(super) fn doubles(&mut self) {
        for feed in &mut self.doubles {
            let (poly, piece) = feed.next(self.jobs, self.done, self.polys, &mut self.next_job);
            poly.double(piece);
        }
    }

    /// One block from each stream that takes one.
    #[inline(always)]
    pub(super) fn singles(&mut self) {
        for feed in &mut self.singles {
            let (poly, piece) = feed.next(self.jobs, self.done, self.polys, &mut self.next_job);
            poly.single(piece);
        }
    }

    #[inline(always)]
    pub(super) fn end(&self) -> Streams<WIDTH> {
        Streams {
            doubles: self.doubles.each_ref().map(Feed::end),
            singles: self.singles.each_ref().map(Feed::end),
            next_job: self.next_job,
        }
    }
}
