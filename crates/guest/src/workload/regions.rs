//! Writes the numbered records: record k to region A, and only when that is complete, to region B.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use farshore_blocks::clock::WallTime;
use rustix::fs::OFlags;

use super::{Invocation, Pace, progress::Progress};
use crate::{
    record::{RECORD_LENGTH, Record, Stream},
    status::BootVerdict,
};

/// How long to wait after an error before the same write is tried again.
const AFTER_AN_ERROR: Duration = Duration::from_secs(1);

/// Makes the records of this boot.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordMaker {
    pub(super) run: u64,
    pub(super) guest: u64,
}

impl RecordMaker {
    pub(super) fn make(self, number: u64, stream: Stream) -> Record {
        let Self { run, guest } = self;
        Record {
            number,
            run,
            guest,
            stream,
            written_at: WallTime::now(),
        }
    }
}

/// The one writer of both regions.
pub(super) struct RegionWriter {
    region_a: Region,
    region_b: Region,
    maker: RecordMaker,
    last_a: u64,
    last_b: u64,
}

struct Region {
    path: PathBuf,
    stream: Stream,
    /// Opened at the first write, and again after an error.
    open: Option<OpenRegion>,
}

struct OpenRegion {
    file: File,
    slots: u64,
}

impl RegionWriter {
    pub(super) fn new(invocation: &Invocation, maker: RecordMaker, found: &BootVerdict) -> Self {
        Self {
            region_a: Region::new(&invocation.region_a, Stream::RegionA),
            region_b: Region::new(&invocation.region_b, Stream::RegionB),
            maker,
            last_a: found.region_a_last,
            last_b: found.region_b_last,
        }
    }

    pub(super) fn write_for_ever(mut self, mut pace: Pace, progress: &Progress) {
        loop {
            if self.write_next(progress).is_err() {
                thread::sleep(AFTER_AN_ERROR);
            }
            pace.wait();
        }
    }

    /// Does whatever comes next in the order; after an error that is the same write again.
    fn write_next(&mut self, progress: &Progress) -> io::Result<()> {
        if self.last_b == self.last_a {
            self.region_a.write(self.maker, self.last_a + 1, progress)?;
            self.last_a += 1;
        }
        self.region_b.write(self.maker, self.last_a, progress)?;
        self.last_b = self.last_a;
        Ok(())
    }
}

impl Region {
    fn new(path: &Path, stream: Stream) -> Self {
        Self {
            path: path.to_owned(),
            stream,
            open: None,
        }
    }

    fn write(&mut self, maker: RecordMaker, number: u64, progress: &Progress) -> io::Result<()> {
        let page = maker.make(number, self.stream).encode();
        progress.record(self.stream, number, || {
            let region = match self.open.take() {
                Some(region) => region,
                None => OpenRegion::open(&self.path)?,
            };
            let slot = number % region.slots;
            region.file.write_all_at(page.bytes(), slot * RECORD_LENGTH)?;
            self.open = Some(region);
            Ok(())
        })
    }
}

impl OpenRegion {
    fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECT.union(OFlags::DSYNC).bits().cast_signed();
        let mut file = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
        let slots = file.seek(SeekFrom::End(0))? / RECORD_LENGTH;
        if slots == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the region has no slots",
            ));
        }
        Ok(Self { file, slots })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        disk_layout::DiskRange,
        judge::{Order, judge},
        region::RegionScan,
        witness::Acknowledged,
    };

    const SLOTS: u64 = 4;
    const MAKER: RecordMaker = RecordMaker { run: 1, guest: 2 };

    fn writer(directory: &Path, last_a: u64, last_b: u64) -> RegionWriter {
        for name in ["a", "b"] {
            let path = directory.join(name);
            if !path.exists() {
                File::create(path)
                    .unwrap()
                    .set_len(SLOTS * RECORD_LENGTH)
                    .unwrap();
            }
        }
        RegionWriter {
            region_a: Region::new(&directory.join("a"), Stream::RegionA),
            region_b: Region::new(&directory.join("b"), Stream::RegionB),
            maker: MAKER,
            last_a,
            last_b,
        }
    }

    fn scans(directory: &Path) -> (RegionScan, RegionScan) {
        let range = DiskRange {
            offset: 0,
            length: SLOTS * RECORD_LENGTH,
        };
        let read =
            |name, stream| RegionScan::read(&fs::read(directory.join(name)).unwrap(), range, stream).unwrap();
        (read("a", Stream::RegionA), read("b", Stream::RegionB))
    }

    #[test]
    fn what_is_written_is_what_the_judge_expects() {
        let directory = tempfile::tempdir_in(".").unwrap();
        let progress = Progress::default();
        let mut writer = writer(directory.path(), 0, 0);
        for count in 1..=11 {
            writer.write_next(&progress).unwrap();
            let (a, b) = scans(directory.path());
            let judgement = judge(&a, &b, progress.snapshot().acknowledged);
            assert!(judgement.lost_nothing(), "{}", judgement.describe());
            assert_eq!((judgement.region_a.last, judgement.region_b.last), (count, count));
        }
    }

    #[test]
    fn a_boot_that_finds_a_record_in_a_alone_writes_it_to_b_first() {
        let directory = tempfile::tempdir_in(".").unwrap();
        let progress = Progress::default();
        let mut first_boot = writer(directory.path(), 0, 0);
        first_boot.write_next(&progress).unwrap();
        first_boot.region_a.write(MAKER, 2, &progress).unwrap();
        drop(first_boot);

        writer(directory.path(), 2, 1).write_next(&progress).unwrap();
        let (a, b) = scans(directory.path());
        let judgement = judge(&a, &b, Acknowledged::default());
        assert!(judgement.is_exact_instant());
        assert_eq!((judgement.region_a.last, judgement.region_b.last), (2, 2));
        assert_eq!(judgement.order, Order::Kept);
    }

    #[test]
    fn a_failed_write_is_tried_again_and_never_passed_over() {
        let directory = tempfile::tempdir_in(".").unwrap();
        let progress = Progress::default();
        let mut writer = writer(directory.path(), 0, 0);
        writer.write_next(&progress).unwrap();
        writer.region_b.path = directory.path().join("absent");
        writer.region_b.open = None;
        for _ in 0..3 {
            writer.write_next(&progress).unwrap_err();
        }
        assert_eq!((writer.last_a, writer.last_b), (2, 1));
        assert_eq!(progress.snapshot().io_errors, 3);
        writer.region_b.path = directory.path().join("b");
        writer.write_next(&progress).unwrap();
        let (a, b) = scans(directory.path());
        assert!(
            judge(
                &a,
                &b,
                Acknowledged {
                    region_a: 2,
                    region_b: 2,
                    journal: 0
                }
            )
            .lost_nothing()
        );
    }
}
