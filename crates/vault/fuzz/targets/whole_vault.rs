//! Any bytes as a script of damage to one file of a vault.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| farshore_vault::fuzzing::whole_vault(bytes));
