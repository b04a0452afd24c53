//! `1gbps_tunnel`: a tunnel's whole way in memory, an HTTP/3 CONNECT from gateway to client with packet protection, frames
//! and checksums (see [`crate::path`]). The gateway sends, the client receives, and both ends are one after the other on one
//! thread; two ends on two cores do more.

use super::{Done, Effort, Meter, Op};
use crate::path::{BURST, Bench, MTUS, Mode, Setup, Side};
use simd::Cipher;

const PASS_BYTES: u64 = 1 << 20;
const WARM_PACKETS: u64 = 5_000;

pub(super) fn ops() -> Vec<Op> {
    let sides = [("both_ends", Side::Both), ("gateway", Side::Out), ("client", Side::In)];
    MTUS.into_iter().flat_map(|mtu| sides.map(|(name, side)| op(mtu, name, side))).collect()
}

fn op(mtu: u16, name: &str, side: Side) -> Op {
    let units = PASS_BYTES.div_ceil(mtu.into());
    let meant = Done { units, bytes: PASS_BYTES };
    let op = Op::new(format!("1gbps_tunnel/{mtu}/{name}"), "packet", meant, move |effort| {
        let level = crate::level().expect("BEAM_SIMD");
        let setup = Setup { mode: Mode::Batched, cipher: Some(Cipher::Aes128Gcm), mtu, level };
        let warm_packets = if effort == Effort::Try { 16 * BURST as u64 } else { WARM_PACKETS };
        let mut bench = Bench::new(setup, warm_packets);
        move |meter: &mut dyn Meter| {
            let cost = bench.pass(PASS_BYTES, side, meter);
            // All that arrives is payload, less headers of less than a tenth.
            let most = cost.packets * u64::from(mtu);
            assert!(cost.payload_bytes >= PASS_BYTES && cost.payload_bytes <= most, "{cost:?}");
            assert!(cost.payload_bytes > most / 10 * 9, "{cost:?}");
            Done { units: cost.packets, bytes: cost.payload_bytes }
        }
    });
    // The two ends are counted, each by itself.
    if side == Side::Both { op.uncounted() } else { op }
}
