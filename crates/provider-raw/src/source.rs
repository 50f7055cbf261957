//! The source: whole disks, compared by whoever ships them, and only what nobody wrote meanwhile.
//!
//! | known | disks look | attach says | backlog |
//! |---|---|---|---|
//! | the scan that the target holds open | as then | since the scan | none |
//! | the scan that the target holds open | otherwise | lost | |
//! | the target's newest point | as then | since the point | none |
//! | anything else, and there is a point | | since the point | all |
//! | anything else, and there is none | | lost | |

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use farshore_blocks::{ByteCount, Extent, Sequence, VolumeIndex, clock::WallTime};
use farshore_provider::{
    Capture, CaptureKind, CapturedVolume, Check, Consistency, Outcome, ReplicaState, ScanState, Source,
    SourceError, Tracking, TrackingIdentity,
};

use crate::{
    disk::{DiskError, RawDisk, Stamp},
    note::{Known, Note},
};

/// Which disks, and of whom.
#[derive(Debug, Clone)]
pub struct RawSourceConfig {
    /// The protected VM's name.
    pub vm: String,
    /// Files or block devices, in the order of the volumes.
    pub disks: Vec<PathBuf>,
    /// A directory for this VM alone, where it is noted how the disks looked.
    pub directory: PathBuf,
}

/// Disks without a hypervisor.
#[derive(Debug)]
pub struct RawSource {
    config: RawSourceConfig,
    note: Note,
    disks: Vec<RawDisk>,
    known: Option<Known>,
}

impl RawSource {
    /// The source of these disks. Nothing is opened before it is checked or attached.
    #[must_use]
    pub fn new(config: RawSourceConfig) -> Self {
        Self {
            note: Note::in_directory(&config.directory),
            config,
            disks: Vec::new(),
            known: None,
        }
    }

    fn open(&self) -> Result<Vec<RawDisk>, SourceError> {
        let disks = self.config.disks.iter().map(|path| RawDisk::open(path));
        disks
            .collect::<Result<_, _>>()
            .map_err(|error| self.unfit(&error))
    }

    fn stamps(&self) -> Result<Vec<Stamp>, SourceError> {
        let stamps = self.disks.iter().map(RawDisk::stamp);
        stamps
            .collect::<Result<_, _>>()
            .map_err(|error| self.unfit(&error))
    }

    /// Whether the disks look as they did when a capture could go on from there.
    fn is_unchanged(&self) -> Result<bool, SourceError> {
        let now = self.stamps()?;
        Ok(match &self.known {
            Some(Known::Scan(_, then) | Known::Since(_, then)) => *then == now,
            None => false,
        })
    }

    /// Disks that were written a moment ago may be written on without looking otherwise.
    fn refuse_unless_quiet(&self) -> Result<(), SourceError> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_nanos(WallTime::now().0);
        for disk in &self.disks {
            if !disk.is_quiet(now).map_err(|error| self.unfit(&error))? {
                return Err(SourceError::Unfit {
                    vm: self.config.vm.clone(),
                    why: format!(
                        "{} was written a moment ago; it is read once nobody has written to it for two seconds",
                        disk.path().display()
                    ),
                });
            }
        }
        Ok(())
    }

    fn total(&self) -> ByteCount {
        ByteCount(self.disks.iter().map(|disk| disk.size().0).sum())
    }

    /// Only a hint: what is not noted is compared once more.
    fn remember(&mut self, known: Known) -> Result<(), SourceError> {
        self.note.write(&known).map_err(|source| SourceError::Scratch {
            path: self.config.directory.clone(),
            source,
        })?;
        self.known = Some(known);
        Ok(())
    }

    fn unfit(&self, error: &DiskError) -> SourceError {
        let mut why = error.to_string();
        if let Some(cause) = std::error::Error::source(error) {
            why = format!("{why}: {cause}");
        }
        SourceError::Unfit {
            vm: self.config.vm.clone(),
            why,
        }
    }

    fn written(&self) -> SourceError {
        written(&self.config.vm)
    }
}

fn written(vm: &str) -> SourceError {
    SourceError::TrackingLost {
        vm: vm.to_owned(),
        why: "a disk was written while it was read, so that what was read is of no one instant; it is read again"
            .to_owned(),
    }
}

impl Source for RawSource {
    type Capture = RawCapture;

    async fn checks(&mut self) -> Vec<Check> {
        let check = |path: &PathBuf| {
            let opened = RawDisk::open(path).and_then(|disk| disk.stamp());
            match opened {
                Ok(_) => Check::passed("disk-readable", format!("{} can be read", path.display())),
                Err(error) => {
                    let SourceError::Unfit { why, .. } = self.unfit(&error) else {
                        return Check::failed("disk-readable", error.to_string(), "");
                    };
                    let remedy = "name a raw image file or a block device that this replicator may read";
                    Check::failed("disk-readable", why, remedy)
                }
            }
        };
        self.config.disks.iter().map(check).collect()
    }

    async fn sizes(&mut self) -> Result<Vec<ByteCount>, SourceError> {
        Ok(self.open()?.iter().map(RawDisk::size).collect())
    }

    async fn attach(
        &mut self,
        _identity: TrackingIdentity,
        replica: ReplicaState,
    ) -> Result<Tracking, SourceError> {
        self.disks = self.open()?;
        self.known = self.note.read().filter(|known| match known {
            Known::Scan(next, _) => replica.scan == ScanState::Open && *next == replica.newest.next(),
            Known::Since(point, _) => *point == replica.newest,
        });
        let lost = |why: &str| Tracking::Lost { why: why.to_owned() };
        Ok(match &self.known {
            Some(Known::Scan(..)) if self.is_unchanged()? => Tracking::SinceScan,
            Some(Known::Scan(..)) => lost("a disk was written since its scan began"),
            Some(Known::Since(..)) => Tracking::SincePoint,
            None if replica.newest > Sequence(0) => Tracking::SincePoint,
            None => lost("the disks were never read"),
        })
    }

    async fn begin_scan(&mut self, next: Sequence) -> Result<(), SourceError> {
        self.refuse_unless_quiet()?;
        let stamps = self.stamps()?;
        self.remember(Known::Scan(next, stamps))
    }

    async fn begin(&mut self, kind: CaptureKind, next: Sequence) -> Result<RawCapture, SourceError> {
        self.refuse_unless_quiet()?;
        let captured_at = WallTime::now();
        let stamps = self.stamps()?;
        let in_scan = matches!(self.known, Some(Known::Scan(..)));
        if in_scan && !self.is_unchanged()? {
            return Err(self.written());
        }
        // Behind a scan nothing is left to read: nobody wrote since it began.
        let whole = !(in_scan && kind != CaptureKind::Scan);
        let mut volumes = Vec::new();
        for (index, disk) in (0..).map(VolumeIndex).zip(&self.disks) {
            let extents = if whole {
                disk.extents().map_err(|error| self.unfit(&error))?
            } else {
                Vec::new()
            };
            volumes.push(CapturedVolume {
                index,
                size: disk.size(),
                extents,
            });
        }
        Ok(RawCapture {
            vm: self.config.vm.clone(),
            kind,
            next,
            captured_at,
            whole,
            wish: None,
            stamps,
            volumes,
            disks: self.disks.clone(),
        })
    }

    async fn begin_application_consistent(&mut self, next: Sequence) -> Result<RawCapture, SourceError> {
        let mut capture = self.begin(CaptureKind::Instant, next).await?;
        capture.wish = Some("no guest runs on these disks that could be asked".to_owned());
        Ok(capture)
    }

    async fn finish(&mut self, capture: RawCapture, outcome: Outcome) -> Result<(), SourceError> {
        match (capture.kind.is_instant(), outcome) {
            (true, Outcome::Done) => self.remember(Known::Since(capture.next, capture.stamps)),
            (true | false, Outcome::Done | Outcome::Failed) => Ok(()),
        }
    }

    async fn backlog(&mut self) -> Result<ByteCount, SourceError> {
        if self.is_unchanged()? {
            return Ok(ByteCount(0));
        }
        match self.known {
            Some(Known::Scan(..)) => Err(self.written()),
            Some(Known::Since(..)) | None => Ok(self.total()),
        }
    }

    async fn detach(&mut self) -> Result<(), SourceError> {
        self.disks.clear();
        self.known = None;
        self.note.remove().map_err(|source| SourceError::Scratch {
            path: self.config.directory.clone(),
            source,
        })
    }
}

/// Whole disks, as long as nobody writes to them.
pub struct RawCapture {
    vm: String,
    kind: CaptureKind,
    next: Sequence,
    captured_at: WallTime,
    whole: bool,
    /// Why it is not application-consistent, if that was wished.
    wish: Option<String>,
    stamps: Vec<Stamp>,
    volumes: Vec<CapturedVolume>,
    disks: Vec<RawDisk>,
}

impl Capture for RawCapture {
    fn volumes(&self) -> &[CapturedVolume] {
        &self.volumes
    }

    fn captured_at(&self) -> WallTime {
        self.captured_at
    }

    fn consistency(&self) -> Consistency {
        Consistency::Crash {
            why: self.wish.clone(),
        }
    }

    fn held(&self) -> Duration {
        Duration::ZERO
    }

    fn knows_changes(&self) -> bool {
        !self.whole
    }

    async fn confirm(&self) -> Result<(), SourceError> {
        let now = self
            .disks
            .iter()
            .map(RawDisk::stamp)
            .collect::<Result<Vec<_>, _>>();
        match now {
            Ok(now) if now == self.stamps => Ok(()),
            Ok(_) | Err(_) => Err(written(&self.vm)),
        }
    }

    async fn read(&self, volume: VolumeIndex, extent: Extent) -> Result<Bytes, SourceError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| SourceError::Read {
            vm: self.vm.clone(),
            volume,
            extent,
            source,
        };
        let disk = self.disks.get(volume.as_usize()).cloned();
        let disk = disk.ok_or_else(|| failed("there is no such volume".into()))?;
        disk.read(extent).await.map_err(|error| failed(Box::new(error)))
    }
}

#[cfg(test)]
mod tests;
