//! The boot verdict: what is on the disks, read before anything is written.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::{
    Configuration, Invocation,
    journal::{self, Journal},
};
use crate::{
    disk_layout::DiskRange,
    judge::judge,
    record::Stream,
    region::{RegionScan, ScanError},
    status::BootVerdict,
    witness::Acknowledged,
};

/// What the workload may do after the verdict.
pub(super) struct Verified {
    pub(super) verdict: BootVerdict,
    /// False leaves both regions as they are.
    pub(super) regions_are_exact: bool,
    /// None leaves the journal as it is.
    pub(super) journal: Option<Journal>,
}

/// Why a region could not be looked at.
#[derive(Debug, thiserror::Error)]
enum RegionError {
    #[error("cannot open {stream:?}: {source}")]
    Open { stream: Stream, source: io::Error },
    #[error("{0}: {cause}", cause = std::error::Error::source(.0).map_or_else(String::new, ToString::to_string))]
    Scan(#[from] ScanError),
}

/// Looks at everything and changes nothing.
pub(super) fn verify(invocation: &Invocation, configuration: &Configuration) -> Verified {
    let (mut verdict, regions_are_exact) = verify_regions(invocation, configuration);
    let journal = verify_journal(invocation, configuration, &mut verdict);
    Verified {
        verdict,
        regions_are_exact,
        journal,
    }
}

fn verify_regions(invocation: &Invocation, configuration: &Configuration) -> (BootVerdict, bool) {
    let scans = scan(&invocation.region_a, Stream::RegionA)
        .and_then(|scan_a| Ok((scan_a, scan(&invocation.region_b, Stream::RegionB)?)));
    let (scan_a, scan_b) = match scans {
        Ok(scans) => scans,
        Err(error) => return (unreadable(error.to_string()), false),
    };
    // What was acknowledged is known outside only.
    let judgement = judge(&scan_a, &scan_b, Acknowledged::default());
    let mut verdict = BootVerdict::of_regions(&judgement);
    let foreign = judgement
        .region_a
        .guest
        .is_some_and(|guest| guest != configuration.guest);
    if foreign {
        verdict
            .faults
            .push("the records of region A are of another guest".to_owned());
    }
    (verdict, judgement.is_exact_instant() && !foreign)
}

fn scan(path: &Path, stream: Stream) -> Result<RegionScan, RegionError> {
    let open = || {
        let file = File::open(path)?;
        let length = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
        Ok((file, length))
    };
    let (file, length) = open().map_err(|source| RegionError::Open { stream, source })?;
    Ok(RegionScan::read(&file, DiskRange { offset: 0, length }, stream)?)
}

fn unreadable(fault: String) -> BootVerdict {
    BootVerdict {
        region_a_last: 0,
        region_b_last: 0,
        ext4_last: 0,
        torn: 0,
        gaps: 0,
        order_ok: false,
        ext4_clean: false,
        faults: vec![fault],
    }
}

fn verify_journal(
    invocation: &Invocation,
    configuration: &Configuration,
    verdict: &mut BootVerdict,
) -> Option<Journal> {
    if !is_mounted(&invocation.journal) {
        let fault = format!("no file system is mounted on {}", invocation.journal.display());
        verdict.faults.push(fault);
        return None;
    }
    let found = match journal::verify(&invocation.journal, configuration.guest) {
        Ok(found) => found,
        Err(error) => {
            verdict
                .faults
                .push(format!("the journal cannot be read: {error}"));
            return None;
        }
    };
    verdict.ext4_last = found.last;
    verdict.torn += found.torn;
    verdict.gaps += found.gaps;
    verdict.ext4_clean = invocation.file_system_check == "0";
    if !verdict.ext4_clean {
        let code = &invocation.file_system_check;
        verdict
            .faults
            .push(format!("e2fsck ended with {code}: the file system is damaged"));
    }
    verdict.faults.extend(found.first_fault.clone());
    Journal::after(&found, &invocation.journal)
}

/// Without this, records would go to the root disk when the data disk is absent.
fn is_mounted(directory: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut points = mounts.lines().filter_map(|line| line.split_whitespace().nth(1));
    points.any(|point| Path::new(point) == directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::{RECORD_LENGTH, Record},
        workload::regions::RecordMaker,
    };

    const GUEST: u64 = 7;

    fn configuration() -> Configuration {
        Configuration {
            hostname: "web-1".into(),
            address: None,
            gateway: None,
            guest: GUEST,
            records_per_second: 1,
            journal_records_per_second: 1,
        }
    }

    fn invocation(directory: &Path) -> Invocation {
        Invocation {
            configuration: directory.join("configuration"),
            region_a: directory.join("a"),
            region_b: directory.join("b"),
            journal: directory.to_owned(),
            file_system_check: "0".into(),
        }
    }

    /// Regions of four slots, of which `written` got record 1.
    fn regions(directory: &Path, written: &[Record]) {
        for (name, stream) in [("a", Stream::RegionA), ("b", Stream::RegionB)] {
            let record = written.iter().find(|record| record.stream == stream);
            let mut bytes = vec![0; usize::try_from(4 * RECORD_LENGTH).unwrap()];
            if let Some(record) = record {
                let page = record.encode();
                bytes[page.bytes().len()..2 * page.bytes().len()].copy_from_slice(page.bytes());
            }
            fs::write(directory.join(name), bytes).unwrap();
        }
    }

    #[test]
    fn an_absent_disk_is_a_fault_and_nothing_may_be_written() {
        let directory = tempfile::tempdir().unwrap();
        let found = verify(&invocation(directory.path()), &configuration());
        assert!(!found.verdict.is_clean() && !found.regions_are_exact && found.journal.is_none());
        let faults = found.verdict.faults.join("\n");
        assert!(
            faults.contains("RegionA") && faults.contains("mounted"),
            "{faults}"
        );
    }

    #[test]
    fn records_of_another_guest_are_left_alone() {
        for (guest, is_ours) in [(GUEST, true), (GUEST + 1, false)] {
            let directory = tempfile::tempdir().unwrap();
            let maker = RecordMaker { run: 1, guest };
            let records = [maker.make(1, Stream::RegionA), maker.make(1, Stream::RegionB)];
            regions(directory.path(), &records);
            let found = verify(&invocation(directory.path()), &configuration());
            assert_eq!(found.regions_are_exact, is_ours, "{:?}", found.verdict);
        }
    }
}
