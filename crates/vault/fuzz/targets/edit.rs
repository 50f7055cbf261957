//! Any bytes as the body of a record, behind its kind.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| farshore_vault::fuzzing::edit(bytes));
