//! The damaged vault, opened for writing: what a writer puts in order, and one more point behind it.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use farshore_blocks::{
    ByteOffset, ChangeDigest, ChangeHasher, Digest, Epoch, Frame, HolderNonce, Sequence, VolumeIndex,
    clock::WallTime,
};

use super::{CHAIN, Damage, Done, Good, Shown, assert_placed, compare, shown};
use crate::{ChainWriter, CycleBegin, CycleKind, PointKind, PointRecord, SealRequest, Vault, VaultReader};

/// What is written into the second volume of the point behind the others.
const WRITTEN: [u8; 300] = [0xcd; 300];
const WRITTEN_AT: usize = 700;

/// Opens the vault, gives up what is open, seals one more point, and looks at all points again.
pub(super) fn write(vault: &Path, good: &Good, damage: Damage) {
    let opened = match Vault::open(vault) {
        Ok(opened) => opened,
        Err(error) => {
            assert_placed(&error);
            assert!(
                !damage.loses_nothing(),
                "one copy of the journal is enough: {error}"
            );
            return;
        }
    };
    let _ = opened.chains();
    let sealed = match opened.chain_writer(CHAIN) {
        Ok(mut writer) => seal_one_more(&opened, &mut writer),
        Err(error) => {
            assert_placed(&error);
            None
        }
    };
    drop(opened);
    let after = shown(vault, good, 5000);
    damage.assert_honest(&after);
    assert!(sealed.is_some() || !damage.loses_nothing(), "replication goes on");
    let newest_may_be_lost = damage.journal.is_some() && !damage.loses_nothing();
    if let (Some(sealed), Done::Damaged, false) = (sealed, damage.done, newest_may_be_lost) {
        assert_shown(vault, good, &sealed);
    }
}

fn seal_one_more(vault: &Vault, writer: &mut ChainWriter) -> Option<PointRecord> {
    let epoch = vault.grant_epoch(CHAIN, HolderNonce::from_bytes([9; 16])).ok()?;
    let head = writer.head();
    if let Some(open) = &head.open {
        writer.abandon(epoch, open.cycle).ok()?;
    }
    let base = head.newest.as_ref().map(PointRecord::as_base);
    let begin = CycleBegin {
        epoch,
        cycle: 99,
        base,
        kind: if base.is_some() {
            CycleKind::Delta
        } else {
            CycleKind::Base
        },
    };
    let open = writer.begin(&begin).ok()?;
    let (volume, offset) = (VolumeIndex(1), ByteOffset(u64::try_from(WRITTEN_AT).unwrap_or(0)));
    let frame = Frame::from_raw(volume, offset, Bytes::from_static(&WRITTEN));
    let frame = frame.expect("the frame is small");
    let mut hasher = ChangeHasher::default();
    hasher.update(volume, offset, frame.raw_length(), &frame.raw_digest());
    writer.append(epoch, 1, &[frame], &[]).ok()?;
    let mut changes = vec![ChangeDigest::default(); open.changes.len()];
    changes
        .get_mut(1)
        .into_iter()
        .for_each(|change| *change = hasher.digest());
    let parent = base.map_or(Digest::default(), |base| base.digest);
    writer
        .seal(&request((epoch, open.sequence), parent, changes))
        .ok()
}

fn request((epoch, sequence): (Epoch, Sequence), parent: Digest, changes: Vec<ChangeDigest>) -> SealRequest {
    SealRequest {
        epoch,
        cycle: 99,
        sequence,
        captured_at: WallTime(1),
        clock_offset_nanoseconds: 0,
        clock_uncertainty: Duration::ZERO,
        kind: PointKind::CrashConsistent,
        machine: b"machine".to_vec(),
        parent,
        changes,
        messages: 1,
    }
}

/// The new point shows what was written over what the newest good one shows, or refuses.
fn assert_shown(vault: &Path, good: &Good, sealed: &PointRecord) {
    let (newest, disks) = good.points.last().expect("the fixture has points");
    assert!(sealed.parent == newest.digest, "it is built on the newest point");
    assert!(
        sealed.sequence == newest.sequence.next(),
        "it comes behind the newest point"
    );
    let mut disks = disks.clone();
    let place = disks.get_mut(1).and_then(|disk| disk.get_mut(WRITTEN_AT..));
    for (into, byte) in place.into_iter().flatten().zip(WRITTEN) {
        *into = byte;
    }
    let reader = VaultReader::open(vault).expect("it was open for writing");
    let shown = compare(&reader, sealed.sequence, &disks, 0);
    assert!(shown != Shown::Wrong, "a point behind damage shows wrong data");
}
