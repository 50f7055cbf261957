//! Any bytes as a segment or a pack.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| farshore_vault::fuzzing::segment(bytes));
