//! The workload as an executable of its own, for tests that build a guest without the whole product.

use std::{env, process::ExitCode};

fn main() -> ExitCode {
    farshore_guest::workload::main(env::args_os().skip(1))
}
