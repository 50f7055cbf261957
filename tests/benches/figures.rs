//! What benches print: samples reduced to a few figures, targets with met or not met, and one table.

#![allow(dead_code, reason = "what one bench does not need, another does")]

use std::{fs, path::Path, process::Command, time::Duration};

/// What was measured over and over, in one unit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

/// Below what the figure should be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target(pub(crate) f64);

/// A table: a title, a head, rows.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Samples {
    /// One more.
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// One more, in milliseconds.
    pub(crate) fn add_milliseconds(&mut self, took: Duration) {
        self.add(took.as_secs_f64() * 1000.0);
    }

    /// The same in a larger unit.
    pub(crate) fn divided_by(&self, unit: f64) -> Self {
        Self(self.0.iter().map(|value| value / unit).collect())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest value that at least `percent` of the samples do not exceed; NaN if there are none.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    /// The one in the middle.
    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// The smallest and the largest.
    pub(crate) fn spread(&self, decimals: usize) -> String {
        format!(
            "{:.decimals$} to {:.decimals$}",
            self.percentile(0),
            self.percentile(100)
        )
    }
}

impl Target {
    /// How a figure stands to it.
    pub(crate) fn verdict(self, figure: f64) -> &'static str {
        if figure < self.0 { "met" } else { "not met" }
    }
}

impl Table {
    /// An empty table.
    pub(crate) fn new(title: &str, head: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()],
        }
    }

    /// One more row.
    pub(crate) fn row(&mut self, cells: &[&str]) {
        self.rows
            .push(cells.iter().map(|cell| (*cell).to_owned()).collect());
    }

    /// Prints it, the first column to the left and numbers to the right.
    pub(crate) fn print(&self, directory: &Path, notes: &[&str]) {
        println!("\n{}\n{}, TCG, loopback\n", self.title, surroundings(directory));
        self.print_rows(notes);
    }

    /// The same where neither a VM nor the network takes part.
    pub(crate) fn print_local(&self, directory: &Path, notes: &[&str]) {
        println!("\n{}\n{}\n", self.title, surroundings(directory));
        self.print_rows(notes);
    }

    fn print_rows(&self, notes: &[&str]) {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate();
            let line: Vec<String> = cells
                .map(|(column, (cell, width))| match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            println!("  {}", line.join("   ").trim_end());
            if number == 0 {
                let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                println!("  {}", rule.join("   "));
            }
        }
        for note in notes {
            println!("  {note}");
        }
    }
}

/// On what machine, how busy, on what file system.
fn surroundings(directory: &Path) -> String {
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(2).collect();
    let file_system = Command::new("stat")
        .args(["--file-system", "--format=%T"])
        .arg(directory)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    format!(
        "{processors} processors, load {} (1, 5 min), {file_system}",
        load.join(" ")
    )
}
