//! Puts the checksums right, so that what lies behind them is reached: damage becomes forgery.

use farshore_blocks::Digest;

use super::field;
use crate::format::record::{RECORD_HEADER_BYTES, RECORD_MAGIC};

const UNIT: usize = 4096;
const NODE: usize = 8192;
/// Of a run's summary, before its file: where the root's position and checksum and those of the attachment stand.
const SUMMARY: usize = 73;

/// Puts right every checksum of every structure of the vault that stands in the bytes, and numbers the records of
/// a journal in order.
pub fn repair(bytes: &mut [u8]) {
    let mut at = 0;
    let mut behind_record = None;
    while let Some(found) = find(bytes, at) {
        match &field::<8>(bytes, found) {
            b"FARSHEAD" => seal(bytes, found, 76),
            b"FARSHSEG" | b"FARSHPAK" => seal(bytes, found, 60),
            b"FARSHGRP" => repair_group(bytes, found),
            b"FARSHRUN" => repair_run(bytes, found),
            magic if *magic == RECORD_MAGIC => {
                let number = match behind_record {
                    Some((end, number)) if end == found => number,
                    Some(_) | None => 0,
                };
                let end = repair_record(bytes, found, number);
                behind_record = Some((end, number.saturating_add(1)));
            }
            _ => {}
        }
        at = found.saturating_add(1);
    }
}

/// The next place at which a magic number may stand.
fn find(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let found = rest.windows(5).position(|window| window == b"FARSH")?;
    from.checked_add(found)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(value.len())) {
        place.copy_from_slice(value);
    }
}

fn crc32(bytes: &[u8], at: usize, length: usize) -> [u8; 4] {
    let covered = bytes.get(at..at.saturating_add(length)).unwrap_or_default();
    crc32fast::hash(covered).to_le_bytes()
}

fn number(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u32::from_le_bytes(field(bytes, at))).unwrap_or(0)
}

/// Puts the checksum of so many bytes behind them.
fn seal(bytes: &mut [u8], at: usize, length: usize) {
    let sum = crc32(bytes, at, length);
    put(bytes, at.saturating_add(length), &sum);
}

fn repair_group(bytes: &mut [u8], at: usize) {
    let directory = number(bytes, at.saturating_add(156));
    repair_frames(bytes, at, directory);
    let tables = crc32(bytes, at.saturating_add(256), directory.saturating_sub(256));
    put(bytes, at.saturating_add(200), &tables);
    seal(bytes, at, 252);
}

/// The checksums and fingerprints of those frames that are stored as they are.
fn repair_frames(bytes: &mut [u8], at: usize, directory: usize) {
    let mut payload = at.saturating_add(directory.next_multiple_of(UNIT));
    for frame in 0..number(bytes, at.saturating_add(76)).min(64) {
        let entry = at.saturating_add(256).saturating_add(frame.saturating_mul(32));
        let stored = number(bytes, entry.saturating_add(16));
        if field::<1>(bytes, entry.saturating_add(2)) == [1]
            && let Some(raw) = bytes.get(payload..payload.saturating_add(stored))
        {
            let (sum, digest) = (crc32fast::hash(raw), Digest::of(raw));
            put(bytes, entry.saturating_add(20), &sum.to_le_bytes());
            let fingerprint: [u8; 8] = field(digest.as_bytes(), 0);
            put(bytes, entry.saturating_add(24), &fingerprint);
        }
        payload = payload.saturating_add(stored);
    }
}

/// Gives where the record ends.
fn repair_record(bytes: &mut [u8], at: usize, ordinal: u64) -> usize {
    let body = at.saturating_add(RECORD_HEADER_BYTES);
    let length = number(bytes, at.saturating_add(52));
    put(bytes, at.saturating_add(40), &ordinal.to_le_bytes());
    let sum = crc32(bytes, body, length);
    put(bytes, at.saturating_add(56), &sum);
    seal(bytes, at, 60);
    body.saturating_add(length)
}

/// Nodes come before those that name them, so once through is enough.
fn repair_run(bytes: &mut [u8], at: usize) {
    seal(bytes, at, 56);
    let identity: [u8; 32] = field(bytes, at.saturating_add(16));
    let mut node = at.saturating_add(UNIT);
    while field::<4>(bytes, node) == *b"FRNN" {
        if field::<1>(bytes, node.saturating_add(4)) != [0] {
            repair_children(bytes, at, node);
        }
        put(bytes, node.saturating_add(28), &[0; 4]);
        let mut sum = crc32fast::Hasher::new();
        sum.update(bytes.get(node..node.saturating_add(NODE)).unwrap_or_default());
        sum.update(&identity);
        put(bytes, node.saturating_add(28), &sum.finalize().to_le_bytes());
        node = node.saturating_add(NODE);
    }
    if let Some(summary) = at.checked_sub(SUMMARY) {
        let root = named(bytes, at, summary.saturating_add(17));
        put(bytes, summary.saturating_add(25), &root);
        let position = u64::from_le_bytes(field(bytes, summary.saturating_add(29)));
        let length = u64::from_le_bytes(field(bytes, summary.saturating_add(37)));
        let (position, length) = (position.try_into().unwrap_or(0), length.try_into().unwrap_or(0));
        let attachment = crc32(bytes, at.saturating_add(position), length);
        put(bytes, summary.saturating_add(45), &attachment);
    }
}

fn repair_children(bytes: &mut [u8], run: usize, node: usize) {
    let count = u16::from_le_bytes(field(bytes, node.saturating_add(6)));
    for child in 0..usize::from(count).min(291) {
        let child = node.saturating_add(32).saturating_add(child.saturating_mul(28));
        let sum = named(bytes, run, child.saturating_add(16));
        put(bytes, child.saturating_add(24), &sum);
    }
}

/// The checksum of the node whose position stands at `at`.
fn named(bytes: &[u8], run: usize, at: usize) -> [u8; 4] {
    let position = u64::from_le_bytes(field(bytes, at));
    let position = usize::try_from(position).unwrap_or(usize::MAX);
    field(bytes, run.saturating_add(position).saturating_add(28))
}
