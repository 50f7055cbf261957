//! Any bytes as a group's header and tables.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| farshore_vault::fuzzing::group(bytes));
