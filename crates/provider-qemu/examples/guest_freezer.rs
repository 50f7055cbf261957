//! What holds a guest frozen in this crate's tests; cargo builds it beside them.

use std::process::ExitCode;

fn main() -> ExitCode {
    farshore_provider_qemu::freezer_main(std::env::args_os().skip(1))
}
