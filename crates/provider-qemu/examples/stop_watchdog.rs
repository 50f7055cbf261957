//! What watches over a stopped guest in this crate's tests; cargo builds it beside them.

use std::process::ExitCode;

fn main() -> ExitCode {
    farshore_provider_qemu::watchdog_main(std::env::args_os().skip(1))
}
