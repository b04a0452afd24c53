//! A writer of pcapng (draft-ietf-opsawg-pcapng): what Wireshark and tshark read.
//!
//! Five blocks are needed, and the one crate at hand (pcap-file) writes no Decryption Secrets Block; so they are written
//! here, little-endian, each padded to 32 bits, with its length at both ends.

use super::{Count, Interface, Way};
use std::io::{self, Write};

/// LINKTYPE_ETHERNET and LINKTYPE_RAW.
pub(crate) const LINK_ETHERNET: u16 = 1;
pub(crate) const LINK_RAW: u16 = 101;

const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const DECRYPTION_SECRETS: u32 = 0x0A;
const BYTE_ORDER_MAGIC: u32 = 0x1A2B_3C4D;
/// "TLSK": an NSS key log.
const TLS_KEY_LOG: u32 = 0x544C_534B;

const OPT_COMMENT: u16 = 1;
const SHB_HARDWARE: u16 = 2;
const SHB_OS: u16 = 3;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
const EPB_DROPCOUNT: u16 = 4;
const ISB_STARTTIME: u16 = 2;
const ISB_ENDTIME: u16 = 3;
const ISB_IFRECV: u16 = 4;
const ISB_IFDROP: u16 = 5;
const ISB_USRDELIV: u16 = 8;

/// Nanoseconds.
const TSRESOL: u8 = 9;

/// A packet to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written<'a> {
    /// In order of the interfaces' descriptions.
    pub(crate) interface: u32,
    pub(crate) at_ns: u64,
    pub(crate) way: Way,
    pub(crate) wire_bytes: u32,
    pub(crate) bytes: &'a [u8],
    pub(crate) comment: &'a str,
    /// Packets lost between this one and the one before it on this interface.
    pub(crate) lost_count: u64,
}

/// See the module.
pub(crate) struct Writer<W> {
    out: W,
    /// Bytes written so far.
    pub(crate) written_bytes: u64,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a section.
    pub(crate) fn new(out: W, application: &str) -> io::Result<Self> {
        let mut this = Self { out, written_bytes: 0, block: Vec::new() };
        this.block.extend_from_slice(&BYTE_ORDER_MAGIC.to_le_bytes());
        this.block.extend_from_slice(&[1, 0, 0, 0]);
        this.block.extend_from_slice(&(-1_i64).to_le_bytes());
        this.option(SHB_HARDWARE, std::env::consts::ARCH.as_bytes());
        this.option(SHB_OS, std::env::consts::OS.as_bytes());
        this.option(SHB_USERAPPL, application.as_bytes());
        this.end_options();
        this.end(SECTION_HEADER)?;
        Ok(this)
    }

    /// Describes the next interface.
    pub(crate) fn interface(&mut self, interface: &Interface, snap: u32) -> io::Result<()> {
        self.block.extend_from_slice(&interface.link.to_le_bytes());
        self.block.extend_from_slice(&[0, 0]);
        self.block.extend_from_slice(&snap.to_le_bytes());
        self.option(IF_NAME, interface.name.as_bytes());
        self.option(IF_DESCRIPTION, interface.description.as_bytes());
        self.option(IF_TSRESOL, &[TSRESOL]);
        self.end_options();
        self.end(INTERFACE_DESCRIPTION)
    }

    pub(crate) fn packet(&mut self, packet: &Written<'_>) -> io::Result<()> {
        self.block.extend_from_slice(&packet.interface.to_le_bytes());
        self.time(packet.at_ns);
        self.block.extend_from_slice(&(packet.bytes.len() as u32).to_le_bytes());
        self.block.extend_from_slice(&packet.wire_bytes.to_le_bytes());
        self.block.extend_from_slice(packet.bytes);
        self.pad();
        self.option(EPB_FLAGS, &(packet.way as u32).to_le_bytes());
        if packet.lost_count > 0 {
            self.option(EPB_DROPCOUNT, &packet.lost_count.to_le_bytes());
        }
        if !packet.comment.is_empty() {
            self.option(OPT_COMMENT, packet.comment.as_bytes());
        }
        self.end_options();
        self.end(ENHANCED_PACKET)
    }

    /// TLS secrets, as an NSS key log: for the packets that follow.
    pub(crate) fn secrets(&mut self, lines: &str) -> io::Result<()> {
        self.block.extend_from_slice(&TLS_KEY_LOG.to_le_bytes());
        self.block.extend_from_slice(&(lines.len() as u32).to_le_bytes());
        self.block.extend_from_slice(lines.as_bytes());
        self.pad();
        self.end(DECRYPTION_SECRETS)
    }

    /// What became of an interface's packets between two times, in nanoseconds since 1970.
    pub(crate) fn statistics(
        &mut self,
        interface: u32,
        count: &Count,
        (from_ns, to_ns): (u64, u64),
        comment: &str,
    ) -> io::Result<()> {
        let (seen, missed) = (count.seen.iter().sum::<u64>(), count.missed.iter().sum::<u64>());
        self.block.extend_from_slice(&interface.to_le_bytes());
        self.time(to_ns);
        for (code, at_ns) in [(ISB_STARTTIME, from_ns), (ISB_ENDTIME, to_ns)] {
            let mut time = [0; 8];
            time[..4].copy_from_slice(&((at_ns >> 32) as u32).to_le_bytes());
            time[4..].copy_from_slice(&(at_ns as u32).to_le_bytes());
            self.option(code, &time);
        }
        self.option(ISB_IFRECV, &seen.to_le_bytes());
        self.option(ISB_IFDROP, &missed.to_le_bytes());
        self.option(ISB_USRDELIV, &(seen - missed.min(seen)).to_le_bytes());
        if !comment.is_empty() {
            self.option(OPT_COMMENT, comment.as_bytes());
        }
        self.end_options();
        self.end(INTERFACE_STATISTICS)
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// High half first, whatever the byte order.
    fn time(&mut self, at_ns: u64) {
        self.block.extend_from_slice(&((at_ns >> 32) as u32).to_le_bytes());
        self.block.extend_from_slice(&(at_ns as u32).to_le_bytes());
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.block.extend_from_slice(&code.to_le_bytes());
        self.block.extend_from_slice(&(value.len() as u16).to_le_bytes());
        self.block.extend_from_slice(value);
        self.pad();
    }

    fn end_options(&mut self) {
        self.block.extend_from_slice(&[0; 4]);
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn end(&mut self, kind: u32) -> io::Result<()> {
        let length = (self.block.len() as u32 + 12).to_le_bytes();
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&length)?;
        self.out.write_all(&self.block)?;
        self.out.write_all(&length)?;
        self.written_bytes += self.block.len() as u64 + 12;
        self.block.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the blocks of the specification, byte for byte where it gives them, and a reader of its rules for the rest.
    //! (That third parties read the files is shown by tests/capture, with tshark.)
    use super::*;

    type Opt = (u16, Vec<u8>);

    /// Type and body of each block; panics where a rule of section 3.1 is broken.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let (kind, length) = (word(bytes, 0), word(bytes, 4) as usize);
            assert_eq!(length % 4, 0, "aligned to 32 bits");
            assert_eq!(word(bytes, length - 4) as usize, length, "the length stands at both ends");
            found.push((kind, bytes[8..length - 4].to_vec()));
            bytes = &bytes[length..];
        }
        found
    }

    fn options(mut bytes: &[u8]) -> Vec<Opt> {
        let mut found = Vec::new();
        loop {
            let code = u16::from_le_bytes([bytes[0], bytes[1]]);
            let length = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
            if code == 0 {
                assert_eq!((length, bytes.len()), (0, 4), "opt_endofopt is the last");
                return found;
            }
            found.push((code, bytes[4..4 + length].to_vec()));
            bytes = &bytes[4 + length.next_multiple_of(4)..];
        }
    }

    fn written(fill: impl FnOnce(&mut Writer<&mut Vec<u8>>)) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, "beam test").unwrap();
        fill(&mut writer);
        let counted = writer.written_bytes;
        assert_eq!(counted, out.len() as u64);
        out
    }

    #[test]
    fn a_section_says_its_byte_order_and_version() {
        let out = written(|_| {});
        assert_eq!(&out[..4], [0x0A, 0x0D, 0x0D, 0x0A]);
        assert_eq!(&out[8..24], [0x4D, 0x3C, 0x2B, 0x1A, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        let [(_, body)] = &blocks(&out)[..] else { panic!("one block") };
        assert!(options(&body[16..]).contains(&(4, b"beam test".to_vec())));
    }

    #[test]
    fn an_interface_has_its_name_and_counts_in_nanoseconds() {
        let interface = Interface { id: 9, name: "eth0/1".into(), description: "AF_XDP".into(), link: 101 };
        let out = written(|writer| writer.interface(&interface, 96).unwrap());
        let (kind, body) = &blocks(&out)[1];
        assert_eq!((*kind, &body[..8]), (1, &[101, 0, 0, 0, 96, 0, 0, 0][..]));
        let expected: [Opt; 3] = [(2, b"eth0/1".to_vec()), (3, b"AF_XDP".to_vec()), (9, vec![9])];
        assert_eq!(options(&body[8..]), expected);
    }

    #[test]
    fn a_packet_has_its_direction_reason_and_losses() {
        let at_ns = 0x0123_4567_89AB_CDEF;
        for bytes in [&b""[..], b"1", b"12", b"123", b"1234"] {
            let packet = Written {
                interface: 2,
                at_ns,
                way: Way::Out,
                wire_bytes: 1500,
                bytes,
                comment: "drop_malformed",
                lost_count: 3,
            };
            let out = written(|writer| {
                writer.packet(&packet).unwrap();
                writer.packet(&Written { way: Way::In, comment: "", lost_count: 0, ..packet }).unwrap();
            });
            let blocks = blocks(&out);
            let (kind, body) = &blocks[1];
            let head = [2, 0, 0, 0, 0x67, 0x45, 0x23, 0x01, 0xEF, 0xCD, 0xAB, 0x89];
            assert_eq!((*kind, &body[..12]), (6, &head[..]));
            assert_eq!(body[12..20], [bytes.len() as u8, 0, 0, 0, 0xDC, 5, 0, 0]);
            assert_eq!(&body[20..20 + bytes.len()], bytes);
            let expected: [Opt; 3] =
                [(2, vec![2, 0, 0, 0]), (4, vec![3, 0, 0, 0, 0, 0, 0, 0]), (1, b"drop_malformed".to_vec())];
            assert_eq!(options(&body[20 + bytes.len().next_multiple_of(4)..]), expected);
            let plain: [Opt; 1] = [(2, vec![1, 0, 0, 0])];
            assert_eq!(options(&blocks[2].1[20 + bytes.len().next_multiple_of(4)..]), plain);
        }
    }

    #[test]
    fn secrets_are_a_key_log_of_tls() {
        let out = written(|writer| writer.secrets("CLIENT_RANDOM a b\n").unwrap());
        let (kind, body) = &blocks(&out)[1];
        assert_eq!((*kind, &body[..8]), (0x0A, &[0x4B, 0x53, 0x4C, 0x54, 18, 0, 0, 0][..]));
        assert_eq!(&body[8..], b"CLIENT_RANDOM a b\n\0\0");
    }

    #[test]
    fn statistics_tell_what_was_missed() {
        let count = Count { interface: 0, seen: [5, 4, 0, 0], missed: [1, 1, 0, 0] };
        let out = written(|writer| writer.statistics(1, &count, (1 << 32, 2 << 32), "").unwrap());
        let (kind, body) = &blocks(&out)[1];
        assert_eq!((*kind, &body[..12]), (5, &[1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0][..]));
        let number = |n: u64| n.to_le_bytes().to_vec();
        let expected: [Opt; 5] = [
            (2, vec![1, 0, 0, 0, 0, 0, 0, 0]),
            (3, vec![2, 0, 0, 0, 0, 0, 0, 0]),
            (4, number(9)),
            (5, number(2)),
            (8, number(7)),
        ];
        assert_eq!(options(&body[12..]), expected);
    }
}
