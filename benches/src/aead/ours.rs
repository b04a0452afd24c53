//! Our batches, out of place, at one level.

use super::{Case, HEADER_BYTES, Op, PACKETS, apply_mask, in_place, number, timed};
use simd::{
    HeaderKey, Level, MASK_BYTES, MaskJob, OpenJob, PacketKey, SAMPLE_BYTES, SealJob, TAG_BYTES, mask_batch,
    open_batch, seal_batch,
};

struct Keys {
    packet: Vec<PacketKey>,
    header: Vec<HeaderKey>,
}

pub(super) fn with_pass(case: &Case, level: Level, measure: &mut dyn FnMut(&mut dyn FnMut() -> u64)) {
    let (packet, header) = case
        .materials()
        .map(|material| {
            let packet = PacketKey::new(case.cipher, &material.key, material.iv);
            (packet, HeaderKey::new(case.cipher, &material.header_key))
        })
        .unzip();
    let keys = Keys { packet, header };
    match case.op {
        Op::Seal => seal(case, level, &keys, measure),
        Op::Open => open(case, level, &keys, measure),
        Op::Protect => protect(case, level, &keys, measure),
    }
}

fn seal(case: &Case, level: Level, keys: &Keys, measure: &mut dyn FnMut(&mut dyn FnMut() -> u64)) {
    let plain: Vec<_> = (0..PACKETS).map(|packet| case.plain(packet)).collect();
    let mut sealed: Vec<_> = plain.iter().map(|bytes| vec![0; bytes.len()]).collect();
    let mut jobs = Vec::with_capacity(PACKETS);
    for (index, (from, to)) in plain.iter().zip(&mut sealed).enumerate() {
        jobs.push(seal_job(case, keys, index, from, &mut to[HEADER_BYTES..]));
    }
    let mut pass = || timed(|| jobs.chunks_mut(case.batch).for_each(|batch| seal_batch(level, batch)));
    pass();
    measure(&mut pass);
    for (sealed, expected) in sealed.iter().zip(in_place::reference(case)) {
        assert_eq!(
            sealed[HEADER_BYTES..],
            expected[HEADER_BYTES..],
            "{case} at {level}: not what ring makes"
        );
    }
}

fn open(case: &Case, level: Level, keys: &Keys, measure: &mut dyn FnMut(&mut dyn FnMut() -> u64)) {
    let sealed = in_place::reference(case);
    let mut opened: Vec<_> = (0..PACKETS).map(|_| vec![0; case.size_bytes]).collect();
    let mut jobs = Vec::with_capacity(PACKETS);
    for (index, (from, to)) in sealed.iter().zip(&mut opened).enumerate() {
        jobs.push(OpenJob {
            key: &keys.packet[case.key_of(index)],
            packet_number: number(index),
            header: &from[..HEADER_BYTES],
            ciphertext: &from[HEADER_BYTES..],
            dst: to,
            authentic: false,
        });
    }
    let mut pass = || {
        let ticks = timed(|| jobs.chunks_mut(case.batch).for_each(|batch| open_batch(level, batch)));
        assert!(jobs.iter().all(|job| job.authentic), "{case} at {level}: a genuine packet was refused");
        jobs.iter_mut().for_each(|job| job.authentic = false);
        ticks
    };
    pass();
    measure(&mut pass);
    for (packet, opened) in opened.iter().enumerate() {
        let expected = case.plain(packet);
        let expected = &expected[HEADER_BYTES..][..case.size_bytes];
        assert_eq!(opened, expected, "{case} at {level}: not what was sealed");
    }
}

/// The whole of it is timed but for the jobs' making: headers copied, payloads sealed, samples taken, masks computed and
/// applied.
fn protect(case: &Case, level: Level, keys: &Keys, measure: &mut dyn FnMut(&mut dyn FnMut() -> u64)) {
    let plain: Vec<_> = (0..PACKETS).map(|packet| case.plain(packet)).collect();
    let mut sealed: Vec<_> = plain.iter().map(|bytes| vec![0; bytes.len()]).collect();
    let (mut headers, mut jobs, mut masks) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (from, to)) in plain.iter().zip(&mut sealed).enumerate() {
        let (header, rest) = to.split_at_mut(HEADER_BYTES);
        headers.push(header);
        jobs.push(seal_job(case, keys, index, from, rest));
        let key = &keys.header[case.key_of(index)];
        masks.push(MaskJob { key, sample: [0; SAMPLE_BYTES], mask: [0; MASK_BYTES] });
    }
    let mut pass = || {
        timed(|| {
            let batches = jobs.chunks_mut(case.batch).zip(masks.chunks_mut(case.batch));
            for ((jobs, masks), headers) in batches.zip(headers.chunks_mut(case.batch)) {
                protect_batch(level, jobs, masks, headers);
            }
        })
    };
    pass();
    measure(&mut pass);
    for (sealed, expected) in sealed.iter().zip(in_place::reference(case)) {
        assert_eq!(*sealed, expected, "{case} at {level}: not what ring makes");
    }
}

fn protect_batch(
    level: Level,
    jobs: &mut [SealJob<'_>],
    masks: &mut [MaskJob<'_>],
    headers: &mut [&mut [u8]],
) {
    for (header, job) in headers.iter_mut().zip(&*jobs) {
        header.copy_from_slice(job.header);
    }
    seal_batch(level, jobs);
    for (mask, job) in masks.iter_mut().zip(&*jobs) {
        mask.sample.copy_from_slice(&job.dst[..SAMPLE_BYTES]);
    }
    mask_batch(level, masks);
    for (header, job) in headers.iter_mut().zip(&*masks) {
        apply_mask(header, job.mask);
    }
}

fn seal_job<'a>(
    case: &Case,
    keys: &'a Keys,
    packet: usize,
    from: &'a [u8],
    dst: &'a mut [u8],
) -> SealJob<'a> {
    SealJob {
        key: &keys.packet[case.key_of(packet)],
        packet_number: number(packet),
        header: &from[..HEADER_BYTES],
        plaintext: &from[HEADER_BYTES..from.len() - TAG_BYTES],
        dst,
    }
}
