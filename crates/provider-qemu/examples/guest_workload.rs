//! What runs inside the guests of this crate's tests; cargo builds it beside them.

use std::process::ExitCode;

fn main() -> ExitCode {
    farshore_guest::workload::main(std::env::args_os().skip(1))
}
