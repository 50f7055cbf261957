//! For fuzzing: one function for each kind of bytes that the vault reads, which takes any bytes at all.
//!
//! The rule that they check: any byte string as any file of a vault gives an error, never a panic, never more memory
//! than the bytes call for, and never wrong data. What is accepted must also be exactly what would be written: a
//! decoder that lets more through than the format says has a hole.
//!
//! `tests/fuzzing.rs` runs them in `cargo test`, from the kept corpus in `corpus/` and from damage done to it; the package in
//! `fuzz/` hands them to libFuzzer.
#![expect(clippy::expect_used, reason = "a target tells what is wrong by failing")]

#[cfg(test)]
mod corpus;
mod damage;
mod journal;
mod repair;
mod run;
mod scratch;
mod segment;
mod whole;

pub use damage::damaged;
pub use journal::{edit, journal_pair, journal_record};
pub use repair::repair;
pub use run::run;
pub use segment::{group, segment};
pub use whole::whole_vault;

use crate::{
    entry::{ENTRY_BYTES, Entry},
    format::{Head, fields::Fields},
};

/// Something that is fuzzed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Fails where the bytes do what no bytes may.
    pub take: fn(&[u8]),
}

/// Everything that is fuzzed.
pub const TARGETS: &[Target] = &[
    target("head", head),
    target("segment", segment),
    target("group", group),
    target("journal_record", journal_record),
    target("edit", edit),
    target("journal_pair", journal_pair),
    target("run", run),
    target("entry", entry),
    target("whole_vault", whole_vault),
];

const fn target(name: &'static str, take: fn(&[u8])) -> Target {
    Target { name, take }
}

/// A vault's head.
pub fn head(bytes: &[u8]) {
    if let Ok(head) = Head::decode(bytes) {
        assert!(head.encode() == bytes, "more than one form of a head is accepted");
    }
}

/// An entry of the index.
pub fn entry(bytes: &[u8]) {
    let Some(bytes) = bytes.first_chunk::<ENTRY_BYTES>() else {
        return;
    };
    if let Ok(entry) = Entry::decode(bytes) {
        let mut again = Vec::new();
        entry
            .encode_into(&mut again)
            .expect("what was read can be written");
        assert!(again == bytes, "more than one form of an entry is accepted");
    }
}

/// So many bytes at this place, or zeroes where there are none: what a target takes for the identity that it expects
/// is what the bytes say, so that no check of identity keeps it from what lies behind.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let rest = bytes.get(at..).unwrap_or_default();
    Fields::new(rest).array().unwrap_or([0; N])
}
