//! What replication costs and carries beside plain tools and beside no protection: initial sync, cycles, the line, the guest.
//!
//! `cargo bench --bench replication -- sync guest` measures only these; without names, everything is measured.

#![allow(
    clippy::print_stdout,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a bench prints its table; its figures are for people"
)]

mod comparison;
mod conductor;
mod disk_usage;
mod figures;
mod guest_vm;
mod libvirt_host;
mod noise;
mod process;
mod replication_rows;
mod still_vm;
mod two_sites;

use std::{env, fs, path::Path, thread, time::Instant};

use anyhow::{bail, ensure};

use comparison::Row;
use replication_rows::{guest, incremental, large, line, rpo, scattered, sync};

type Rows = fn(&Path) -> anyhow::Result<Vec<Row>>;

/// The measurements, each in a directory of its own.
const MEASUREMENTS: [(&str, Rows); 7] = [
    ("sync", sync::rows),
    ("large", large::rows),
    ("scattered", scattered::rows),
    ("guest", guest::rows),
    ("incremental", incremental::rows),
    ("rpo", rpo::rows),
    ("line", line::rows),
];

fn main() -> anyhow::Result<()> {
    // Cargo says `--bench`.
    let names: Vec<String> = env::args()
        .skip(1)
        .filter(|name| !name.starts_with("--"))
        .collect();
    for name in &names {
        let known = MEASUREMENTS.iter().any(|(known, _)| known == name);
        ensure!(known, "there is no measurement `{name}`");
    }
    let directory = tempfile::Builder::new().prefix("fsb").tempdir()?;
    let mut failed = Vec::new();
    for (name, measurement) in MEASUREMENTS {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let place = directory.path().join(name);
        fs::create_dir(&place)?;
        let began = Instant::now();
        match measured(measurement, &place) {
            Ok(rows) => {
                let ratios = "Ratios are medians of the pairs' ratios, ours to the other's.";
                let took = format!("Measured in {:.0} s.", began.elapsed().as_secs_f64());
                let title = format!("replication: {name}");
                comparison::print(&title, directory.path(), &rows, &[ratios, &took]);
            }
            // The others are worth measuring all the same.
            Err(error) => {
                println!("\nreplication: {name} failed: {error:?}");
                failed.push(name);
            }
        }
        fs::remove_dir_all(&place)?;
    }
    ensure!(failed.is_empty(), "not measured: {}", failed.join(", "));
    Ok(())
}

/// The rows; a harness that fails by a panic, which it has told of, is an error.
fn measured(measurement: Rows, place: &Path) -> anyhow::Result<Vec<Row>> {
    let outcome = thread::scope(|scope| scope.spawn(|| measurement(place)).join());
    outcome.unwrap_or_else(|_| bail!("it panicked"))
}
