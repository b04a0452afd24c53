//! From what QUIC wrote to what the wire may see: seals packets into their slots and protects their headers.
//!
//! [`Sealed`] is made here and nowhere else, and ports send nothing but `Sealed`: so no plaintext can leave by
//! oversight.

use crate::{Guard, HeaderKey, MaskJob, PacketKey, SAMPLE_BYTES, SealJob, TAG_BYTES};

/// The header-form bit; what is protected of the first byte of a long and of a short header (RFC 9001 section 5.4.1).
const LONG_HEADER_FORM: u8 = 0x80;
const LONG_HEADER_MASK: u8 = 0x0f;
const SHORT_HEADER_MASK: u8 = 0x1f;
/// The sample begins so far behind the packet number's first byte (RFC 9001 section 5.4.2).
const SAMPLE_OFFSET_BYTES: usize = 4;

/// A buffer whose every byte is as it may go on the wire.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed<B>(B);

impl<B> Sealed<B> {
    /// The buffer, for whoever sends it.
    #[must_use]
    pub fn into_inner(self) -> B {
        self.0
    }
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Sealed<B> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// One packet as QUIC left it.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    /// To be sealed: header and payload in the clear, and room for the tag.
    Plain {
        /// Seals the payload.
        key: &'a PacketKey,
        /// Protects the header.
        header_key: &'a HeaderKey,
        /// The full packet number.
        packet_number: u64,
        /// Header, payload, and [`TAG_BYTES`] of any value.
        bytes: &'a [u8],
        /// Bytes of the header, packet number included.
        header_bytes: usize,
        /// Bytes of the packet number at the header's end, 1 to 4.
        packet_number_bytes: usize,
    },
    /// One or more packets, or a stateless answer, that are as the wire may see them already. That they are is the
    /// caller's word: the type proves that every byte came through here, and that whatever was called plain is sealed.
    Protected {
        /// The bytes.
        bytes: &'a [u8],
    },
}

impl<'a> Packet<'a> {
    /// Its bytes, as long as what goes on the wire.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Plain { bytes, .. } | Self::Protected { bytes } => bytes,
        }
    }

    /// Whether it can be sealed: a whole header, a packet number of a legal length, room for sample and tag.
    fn is_sound(&self) -> bool {
        match *self {
            Self::Protected { .. } => true,
            Self::Plain { bytes, header_bytes, packet_number_bytes, .. } => {
                let payload = bytes.len().checked_sub(header_bytes + TAG_BYTES);
                (1..=4).contains(&packet_number_bytes)
                    && header_bytes > packet_number_bytes
                    && payload.is_some_and(|payload| payload + packet_number_bytes >= SAMPLE_OFFSET_BYTES)
            }
        }
    }
}

/// The packets and the slots don't fit each other, so nothing was sealed; the slots come back.
#[derive(Debug)]
pub struct NotTiled<B>(pub Vec<B>);

/// What is left to do with a packet once it is sealed: its header, where it will be sent from.
#[derive(Debug)]
struct Header<'a> {
    key: &'a HeaderKey,
    first_and_rest: &'a mut [u8],
    packet_number_bytes: usize,
}

impl Guard {
    /// Seals packets into slots. Both are in the order of the wire, and the packets' bytes tile the slots exactly: no
    /// packet crosses from one slot to the next, and no byte of a slot is left over.
    ///
    /// # Errors
    /// When they don't tile, or a packet is too short to be sealed.
    pub fn protect<B: AsMut<[u8]>>(
        &mut self,
        mut slots: Vec<B>,
        packets: &[Packet<'_>],
    ) -> Result<Vec<Sealed<B>>, NotTiled<B>> {
        match self.seal_into(&mut slots, packets) {
            Some(()) => Ok(slots.into_iter().map(Sealed).collect()),
            None => Err(NotTiled(slots)),
        }
    }

    fn seal_into<B: AsMut<[u8]>>(&mut self, slots: &mut [B], packets: &[Packet<'_>]) -> Option<()> {
        let Scratch { jobs, headers, masks } = std::mem::take(&mut self.scratch);
        let mut jobs: Vec<SealJob<'_>> = reused(jobs);
        let mut headers: Vec<Header<'_>> = reused(headers);
        let mut masks: Vec<MaskJob<'_>> = reused(masks);
        let mut packets = packets.iter();
        for slot in slots {
            let mut room = slot.as_mut();
            while !room.is_empty() {
                let packet =
                    packets.next().filter(|packet| packet.is_sound() && !packet.bytes().is_empty())?;
                let (dst, rest) = room.split_at_mut_checked(packet.bytes().len())?;
                room = rest;
                match *packet {
                    Packet::Protected { bytes } => dst.copy_from_slice(bytes),
                    Packet::Plain {
                        key,
                        header_key,
                        packet_number,
                        bytes,
                        header_bytes,
                        packet_number_bytes,
                    } => {
                        let (header, body) = bytes.split_at(header_bytes);
                        let (first_and_rest, dst) = dst.split_at_mut(header_bytes);
                        first_and_rest.copy_from_slice(header);
                        let plaintext = &body[..body.len() - TAG_BYTES];
                        jobs.push(SealJob { key, packet_number, header, plaintext, dst });
                        headers.push(Header { key: header_key, first_and_rest, packet_number_bytes });
                    }
                }
            }
        }
        if packets.next().is_some() {
            return None;
        }
        self.seal(&mut jobs);
        masks.extend(jobs.iter().zip(&headers).map(mask_job));
        self.mask(&mut masks);
        for (header, job) in headers.iter_mut().zip(&masks) {
            header.apply(&job.mask);
        }
        self.scratch = Scratch { jobs: reused(jobs), headers: reused(headers), masks: reused(masks) };
        Some(())
    }
}

/// Working memory of [`Guard::protect`], kept for its capacity: empty between calls.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    jobs: Vec<SealJob<'static>>,
    headers: Vec<Header<'static>>,
    masks: Vec<MaskJob<'static>>,
}

/// An empty `Vec` in the memory of another, whose items may have borrowed what is gone: the standard library collects in
/// place where the layouts are the same.
fn reused<T, U>(mut from: Vec<T>) -> Vec<U> {
    from.clear();
    from.into_iter().map(|_| unreachable!("it is empty")).collect()
}

fn mask_job<'a>((job, header): (&SealJob<'_>, &Header<'a>)) -> MaskJob<'a> {
    let mut sample = [0; SAMPLE_BYTES];
    let offset = SAMPLE_OFFSET_BYTES - header.packet_number_bytes;
    sample.copy_from_slice(&job.dst[offset..offset + SAMPLE_BYTES]);
    MaskJob { key: header.key, sample, mask: [0; 5] }
}

impl Header<'_> {
    fn apply(&mut self, mask: &[u8; 5]) {
        let number = self.first_and_rest.len() - self.packet_number_bytes;
        let (first, numbers) = self.first_and_rest.split_at_mut(number);
        first[0] ^= mask[0] & protected_bits(first[0]);
        for (byte, mask) in numbers.iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
        }
    }
}

/// Which bits of a header's first byte are protected (RFC 9001 section 5.4.1); the form bit itself never is.
#[must_use]
pub fn protected_bits(first: u8) -> u8 {
    match first & LONG_HEADER_FORM {
        0 => SHORT_HEADER_MASK,
        _ => LONG_HEADER_MASK,
    }
}
