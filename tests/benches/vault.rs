//! What the vault costs beside the plain tools that move the same bytes: taking data in, sealing, serving a point,
//! space on disk, and opening again after a kill.
//!
//! `cargo bench --bench vault -- ingest read` measures only these; without names, everything is measured.

#![allow(
    clippy::print_stdout,
    clippy::panic,
    clippy::cast_precision_loss,
    reason = "a bench prints its table; its figures are for people"
)]

mod chain;
mod comparison;
mod disk_usage;
mod figures;
mod nbd_peers;
mod noise;
mod process;
mod random_reads;
mod vault_rows;

use std::{env, fs, path::Path};

use anyhow::{Context, ensure};

use comparison::Row;
use vault_rows::{export, ingest, reopen, seal, stored};

type Rows = fn(&Path) -> anyhow::Result<Vec<Row>>;

/// The measurements, each in a directory of its own.
const MEASUREMENTS: [(&str, Rows); 5] = [
    ("ingest", ingest::rows),
    ("seal", seal::rows),
    ("read", export::rows),
    ("stored", stored::rows),
    ("reopen", reopen::rows),
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [nbd_peers::SERVE_FILE, file, socket] => nbd_peers::serve_file(Path::new(file), Path::new(socket)),
        [reopen::SEAL_ON, vault] => reopen::seal_on(Path::new(vault)),
        [reopen::REOPEN, vault] => reopen::reopen(Path::new(vault)),
        _ => measure(&arguments),
    }
}

fn measure(arguments: &[&str]) -> anyhow::Result<()> {
    // Cargo says `--bench`.
    let names = arguments.iter().filter(|argument| !argument.starts_with("--"));
    let names: Vec<&str> = names.copied().collect();
    for name in &names {
        let known = MEASUREMENTS.iter().any(|(known, _)| known == name);
        ensure!(known, "there is no measurement `{name}`");
    }
    let directory = tempfile::Builder::new().prefix("fsb").tempdir()?;
    let mut rows = Vec::new();
    for (name, measurement) in MEASUREMENTS {
        if names.is_empty() || names.contains(&name) {
            let place = directory.path().join(name);
            fs::create_dir(&place)?;
            rows.extend(measurement(&place).context(name)?);
            fs::remove_dir_all(&place)?;
        }
    }
    let title = "vault: incompressible data, warm page cache; in turns with what stands beside";
    let note = "Ratios are medians of the pairs' ratios, ours to the other's.";
    comparison::print(title, directory.path(), &rows, &[note]);
    Ok(())
}
