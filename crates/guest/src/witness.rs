//! The witness: what the guest said outside itself that it had acknowledged, read from the file behind its port.
//!
//! The guest's side writes one line an item; the highest number counts:
//!
//! ```text
//! BOOT {"region_a_last":41,…}   what it found on its disks, before it wrote anything
//! A 42                          record 42 is complete in region A (and so is every one below)
//! B 42                          record 42 is complete in region B
//! E 7                           record 7 is complete in the journal on the file system
//! T 18231 300:120,412:1         how long the regions' writes took that were not told of yet (see `latency`)
//! ERROR region A, record 43: …  an input or output error
//! ```
//!
//! Crash story: a virtual machine that is killed may leave a line without its end; the next boot starts with a line
//! feed, and a number that was cut is a smaller one, so that the witness never claims more than was acknowledged.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{latency::Latencies, status::BootVerdict};

/// The name of the port (`virtserialport,name=…`), by which the guest finds it.
pub const PORT_NAME: &str = "farshore.witness";

/// The highest records that were acknowledged; 0 if none was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Acknowledged {
    /// In region A.
    pub region_a: u64,
    /// In region B.
    pub region_b: u64,
    /// In the journal on the file system.
    pub journal: u64,
}

/// Everything that the witness heard so far, over all boots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Testimony {
    /// The highest numbers.
    pub acknowledged: Acknowledged,
    /// What each boot found, in their order.
    pub boots: Vec<BootVerdict>,
    /// How long the regions' writes took.
    pub latencies: Latencies,
    /// Every error that the guest reported.
    pub errors: Vec<String>,
    /// Complete lines that say nothing known: the file is not a witness's, or it is damaged.
    pub unreadable_lines: u64,
}

/// The witness's file could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the witness's file {}", path.display())]
pub struct WitnessError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Testimony {
    /// Reads the file; one that does not exist yet says nothing.
    ///
    /// # Errors
    /// When it exists and cannot be read.
    pub fn read(path: &Path) -> Result<Self, WitnessError> {
        match fs::read(path) {
            Ok(bytes) => Ok(Self::parse(&String::from_utf8_lossy(&bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(WitnessError {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Understands the text of the file; what follows the last line feed is not said yet.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut testimony = Self::default();
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        for line in complete.lines().filter(|line| !line.is_empty()) {
            if testimony.hear(line).is_none() {
                testimony.unreadable_lines += 1;
            }
        }
        testimony
    }

    fn hear(&mut self, line: &str) -> Option<()> {
        let (word, rest) = line.split_once(' ')?;
        let highest = match word {
            "A" => &mut self.acknowledged.region_a,
            "B" => &mut self.acknowledged.region_b,
            "E" => &mut self.acknowledged.journal,
            "BOOT" => {
                self.boots.push(serde_json::from_str(rest).ok()?);
                return Some(());
            }
            "T" => {
                self.latencies.merge(&rest.parse().ok()?);
                return Some(());
            }
            "ERROR" => {
                self.errors.push(rest.to_owned());
                return Some(());
            }
            _ => return None,
        };
        *highest = (*highest).max(rest.parse().ok()?);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_numbers_count_and_an_unfinished_line_does_not() {
        let text = "\nA 9\nB 8\nT 9 8:2\nA 10\nE 3\nT 12 8:1,9:1\nA 3\nERROR region A: broken\nB 99";
        let testimony = Testimony::parse(text);
        assert_eq!(
            testimony.acknowledged,
            Acknowledged {
                region_a: 10,
                region_b: 8,
                journal: 3
            }
        );
        assert_eq!(testimony.errors, ["region A: broken"]);
        assert_eq!(testimony.latencies.to_string(), "12 8:3,9:1");
        assert_eq!(testimony.unreadable_lines, 0);
    }

    #[test]
    fn a_line_that_a_kill_cut_never_claims_more() {
        let testimony = Testimony::parse("A 1234\nA 12\nB 12\nBOOT {\"region_a\n");
        assert_eq!(testimony.acknowledged.region_a, 1234);
        assert_eq!(testimony.unreadable_lines, 1);
    }

    #[test]
    fn a_file_that_does_not_exist_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let testimony = Testimony::read(&directory.path().join("witness")).unwrap();
        assert_eq!(testimony, Testimony::default());
    }
}
