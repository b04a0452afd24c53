//! The ones' complement sum of one packet, a vector of bytes at a time.

use super::lanes::Lanes;
use wire::checksum::Sum;

/// The sum of `bytes`, as if they began at an even offset; an odd last byte is padded with zero.
///
/// Three operations a vector: `all` adds whole 64-bit lanes and wraps, `high` adds their upper halves and doesn't. What
/// the lower halves come to is `all - high * 2^32` modulo 2^64, exactly: fewer than 2^31 of them are added.
#[inline(always)]
pub(super) fn sum<L: Lanes>(lanes: L, bytes: &[u8]) -> Sum {
    let zero = lanes.splat(0);
    let (mut all, mut high) = ([zero; 2], [zero; 2]);
    let mut pairs = bytes.chunks_exact(2 * L::BYTES);
    for pair in &mut pairs {
        let (first, second) = pair.split_at(L::BYTES);
        let (first, second) = (lanes.load(first), lanes.load(second));
        all = [lanes.wide_add(all[0], first), lanes.wide_add(all[1], second)];
        let (first, second) = (lanes.wide_high(first), lanes.wide_high(second));
        high = [lanes.wide_add(high[0], first), lanes.wide_add(high[1], second)];
    }
    let rest = pairs.remainder();
    if rest.len() >= L::BYTES {
        let vector = lanes.load(rest);
        all[0] = lanes.wide_add(all[0], vector);
        high[0] = lanes.wide_add(high[0], lanes.wide_high(vector));
    }
    if !bytes.len().is_multiple_of(L::BYTES) {
        let vector = lanes.tail(bytes);
        all[1] = lanes.wide_add(all[1], vector);
        high[1] = lanes.wide_add(high[1], lanes.wide_high(vector));
    }
    let all = lanes.wide_add(all[0], all[1]);
    let high = lanes.wide_add(high[0], high[1]);
    let low = lanes.wide_sub(all, lanes.wide_raise(high));
    Sum::from_words(lanes.wide_total(lanes.wide_add(low, high)))
}
