//! Any bytes as a run of the index, behind its summary.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| farshore_vault::fuzzing::run(bytes));
