//! Any bytes as a journal and its mirror.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| farshore_vault::fuzzing::journal_pair(bytes));
