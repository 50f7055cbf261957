//! Any bytes as a vault's head.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| farshore_vault::fuzzing::head(bytes));
