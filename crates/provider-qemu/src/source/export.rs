//! Readers: QEMU's own NBD server shows a capture's nodes on a socket of ours, and clients read them.
//!
//! One server serves a QEMU, and it stays between captures. A server that someone else started cannot be used: its
//! address is not known. An export's name is random, so that nobody else on the machine reads one by chance.

use farshore_blocks::{ByteCount, ByteOffset, Extent, VolumeIndex};
use farshore_nbd::{Client, StatusDescriptor};
use farshore_provider::{CaptureKind, CapturedVolume, DiskFile, SourceError, StateOfBytes, StatedExtent};
use farshore_qmp::Command;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use uuid::Uuid;

use super::{
    hypervisor::Hypervisor,
    naming::export_id,
    reader::{LiveReader, Reader, SnapshotReader},
    scratch::ScratchDirectory,
};

pub(crate) const ALLOCATION_CONTEXT: &str = "base:allocation";
pub(crate) const BITMAP_CONTEXT_PREFIX: &str = "qemu:dirty-bitmap:";

/// Enough to be guessed by nobody as long as a capture lasts.
pub(crate) const SECRET_DIGITS: usize = 16;

/// In a bitmap's context.
pub(crate) const DIRTY: u32 = 1;
/// In the allocation context.
const READS_AS_ZERO: u32 = 2;

/// What is to be read, and what tells which of it.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) index: VolumeIndex,
    pub(crate) size: ByteCount,
    /// What is read.
    pub(crate) node: String,
    /// What the bitmap lies on.
    pub(crate) data: String,
    /// Which changes; everything, if there is none.
    pub(crate) bitmap: Option<String>,
}

/// Whose the NBD server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NbdServer {
    /// It listens on our socket.
    Ours,
    /// It runs, and not on our socket.
    Foreign,
}

/// Starts the NBD server unless ours runs.
pub(crate) async fn start_server(
    hypervisor: &Hypervisor,
    scratch: &ScratchDirectory,
) -> Result<NbdServer, SourceError> {
    match start(hypervisor, scratch).await? {
        Start::Started => Ok(NbdServer::Ours),
        Start::RanAlready => Ok(whose(scratch).await),
    }
}

/// Looks whether the NBD server is ours or could be: QEMU has no question for it, so that one is started and stopped.
pub(crate) async fn probe_server(
    hypervisor: &Hypervisor,
    scratch: &ScratchDirectory,
) -> Result<NbdServer, SourceError> {
    match start(hypervisor, scratch).await? {
        Start::Started => {
            hypervisor.run("nbd-server-stop", Value::Null).await?;
            Ok(NbdServer::Ours)
        }
        Start::RanAlready => Ok(whose(scratch).await),
    }
}

enum Start {
    Started,
    RanAlready,
}

async fn start(hypervisor: &Hypervisor, scratch: &ScratchDirectory) -> Result<Start, SourceError> {
    let address = json!({"type": "unix", "data": {"path": scratch.nbd_socket()}});
    match hypervisor.run("nbd-server-start", json!({"addr": address})).await {
        Ok(()) => Ok(Start::Started),
        Err(SourceError::Refused { source, .. }) if source.to_string().contains("already running") => {
            Ok(Start::RanAlready)
        }
        Err(other) => Err(other),
    }
}

/// A server that runs is ours if our socket is answered: a dead QEMU's socket is not.
async fn whose(scratch: &ScratchDirectory) -> NbdServer {
    match UnixStream::connect(scratch.nbd_socket()).await {
        Ok(_) => NbdServer::Ours,
        Err(_) => NbdServer::Foreign,
    }
}

/// Stops the NBD server if it is ours.
pub(crate) async fn stop_server(
    hypervisor: &Hypervisor,
    scratch: &ScratchDirectory,
) -> Result<(), SourceError> {
    match whose(scratch).await {
        NbdServer::Ours => hypervisor.run("nbd-server-stop", Value::Null).await,
        NbdServer::Foreign => Ok(()),
    }
}

/// An export that is to be added, or was.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) reading: Reading,
    /// Its name, random.
    secret: String,
    /// Where a disk in use can be read without QEMU.
    plain: Option<DiskFile>,
}

impl Shown {
    pub(crate) fn new(reading: Reading) -> Self {
        let mut secret = Uuid::new_v4().simple().to_string();
        secret.truncate(SECRET_DIGITS);
        Self {
            reading,
            secret,
            plain: None,
        }
    }

    /// The same, but read without QEMU if there is a file for that.
    pub(crate) fn or_plain(self, plain: Option<DiskFile>) -> Self {
        Self { plain, ..self }
    }

    /// Adds it.
    pub(crate) fn command(&self) -> Command {
        let reading = &self.reading;
        let mut arguments = json!({
            "type": "nbd",
            "id": export_id(reading.index),
            "node-name": reading.node,
            "name": self.secret,
        });
        if let (Some(name), Some(fields)) = (&reading.bitmap, arguments.as_object_mut()) {
            let bitmaps = json!([{"node": reading.data, "name": name}]);
            fields.insert("bitmaps".to_owned(), bitmaps);
        }
        Command::new("block-export-add", arguments)
    }

    /// Connects to it and asks which extents there are.
    pub(crate) async fn open(
        &self,
        hypervisor: &Hypervisor,
        scratch: &ScratchDirectory,
        kind: CaptureKind,
    ) -> Result<(CapturedVolume, Reader), SourceError> {
        let reading = &self.reading;
        let context = match &reading.bitmap {
            Some(name) => format!("{BITMAP_CONTEXT_PREFIX}{name}"),
            None => ALLOCATION_CONTEXT.to_owned(),
        };
        let failed = |source| read_error(hypervisor, reading, source);
        let client = Client::connect_unix(&scratch.nbd_socket(), &self.secret, &[&context])
            .await
            .map_err(failed)?;
        if client.size() != reading.size.0 {
            let shown = ByteCount(client.size());
            return Err(hypervisor.unfit(format!(
                "volume {} is {} long, but its export {shown}",
                reading.index, reading.size
            )));
        }
        let status = client
            .block_status(&context, 0, reading.size.0)
            .await
            .map_err(failed)?;
        let captured = CapturedVolume {
            index: reading.index,
            size: reading.size,
            extents: extents(kind, &status),
        };
        let reader = match kind {
            CaptureKind::Scan | CaptureKind::Round => Reader::Live(LiveReader {
                client,
                plain: self.plain.clone(),
            }),
            CaptureKind::Instant | CaptureKind::WholeInstant => Reader::Snapshot(SnapshotReader::new(client)),
        };
        Ok((captured, reader))
    }
}

fn read_error(hypervisor: &Hypervisor, reading: &Reading, source: farshore_nbd::ClientError) -> SourceError {
    match Extent::new(ByteOffset(0), reading.size) {
        Some(extent) => SourceError::Read {
            vm: hypervisor.vm().to_owned(),
            volume: reading.index,
            extent,
            source: Box::new(source),
        },
        None => hypervisor.unfit(format!("volume {} is empty", reading.index)),
    }
}

/// What the runs mean: for a scan everything is given, and zeroes are known; otherwise only what changed.
pub(crate) fn extents(kind: CaptureKind, status: &[StatusDescriptor]) -> Vec<StatedExtent> {
    let mut extents: Vec<StatedExtent> = Vec::new();
    let mut at = ByteOffset(0);
    for run in status {
        let state = match kind {
            CaptureKind::Scan if run.flags & READS_AS_ZERO != 0 => Some(StateOfBytes::Zero),
            CaptureKind::Scan => Some(StateOfBytes::Data),
            CaptureKind::Round | CaptureKind::Instant | CaptureKind::WholeInstant => {
                (run.flags & DIRTY != 0).then_some(StateOfBytes::Data)
            }
        };
        if let (Some(state), Some(extent)) = (state, Extent::new(at, ByteCount(run.length))) {
            push(&mut extents, StatedExtent { extent, state });
        }
        at = ByteOffset(at.0.saturating_add(run.length));
    }
    extents
}

/// Appends an extent, or lengthens the last one by it if they touch and are alike.
fn push(extents: &mut Vec<StatedExtent>, next: StatedExtent) {
    if let Some(last) = extents.last_mut()
        && last.state == next.state
        && last.extent.end() == next.extent.start()
        && let Some(joined) = Extent::new(
            last.extent.start(),
            ByteCount(last.extent.length().0.saturating_add(next.extent.length().0)),
        )
    {
        last.extent = joined;
        return;
    }
    extents.push(next);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(runs: &[(u64, u32)]) -> Vec<StatusDescriptor> {
        runs.iter()
            .map(|&(length, flags)| StatusDescriptor { length, flags })
            .collect()
    }

    fn shown(extents: &[StatedExtent]) -> Vec<(u64, u64, StateOfBytes)> {
        extents
            .iter()
            .map(|stated| (stated.extent.start().0, stated.extent.length().0, stated.state))
            .collect()
    }

    #[test]
    fn a_scan_covers_the_volume_and_knows_zeroes() {
        let found = extents(
            CaptureKind::Scan,
            &runs(&[(10, 0), (5, 1), (20, 3), (7, 2), (0, 0), (1, 0)]),
        );
        let expected = [
            (0, 15, StateOfBytes::Data),
            (15, 27, StateOfBytes::Zero),
            (42, 1, StateOfBytes::Data),
        ];
        assert_eq!(shown(&found), expected);
    }

    #[test]
    fn other_captures_give_only_what_changed() {
        for kind in [
            CaptureKind::Round,
            CaptureKind::Instant,
            CaptureKind::WholeInstant,
        ] {
            let found = extents(kind, &runs(&[(10, 0), (5, 1), (5, 1), (20, 0), (7, 1)]));
            let expected = [(10, 10, StateOfBytes::Data), (40, 7, StateOfBytes::Data)];
            assert_eq!(shown(&found), expected);
        }
    }
}
