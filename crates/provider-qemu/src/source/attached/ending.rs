//! How a capture ends.
//!
//! What it put there is known, so that it goes without listing: readers and exports first, then everything else in one
//! write. What lies below the filters is looked at before: an overlay that somebody put there must not be cut out. Each command of that write is refused by QEMU as long as the one before it is undone, so that a failure in the
//! middle leaves something that the recovery table settles: the long way, which is taken then.

use farshore_blocks::Sequence;
use farshore_provider::{CaptureKind, Outcome, SourceError};
use farshore_qmp::Command;

use super::{Attached, Open, Site};
use crate::source::{
    acting::{command, delete_exports},
    capture::QemuCapture,
    form::CaptureForm,
    naming::{BitmapBase, NodeRole, export_id},
    recovery::{Action, BitmapChange, Position, Resizing, ScanTruth, Switching, Truth},
};

impl Attached {
    /// Ends a capture.
    pub(crate) async fn finish(
        &mut self,
        site: &Site,
        capture: QemuCapture,
        outcome: Outcome,
    ) -> Result<(), SourceError> {
        let number = capture.number;
        let taken = capture.volumes.iter().zip(&capture.readers);
        let taken: Vec<_> = taken
            .map(|(volume, reader)| (volume.size, reader.is_some()))
            .collect();
        let mut exports = Vec::new();
        for (volume, reader) in capture.volumes.iter().zip(capture.readers) {
            if let Some(reader) = reader {
                if self.form == CaptureForm::Filter {
                    exports.push(export_id(volume.index));
                }
                reader.disconnect().await;
            }
        }
        let open = self.open.filter(|open| open.number == number).ok_or_else(|| {
            self.hypervisor
                .tracking_lost("a capture of an earlier attachment was finished")
        })?;
        let ended = self.end(open, outcome, &exports).await;
        if outcome == Outcome::Done {
            // A scan takes along what it read; all others everything that there is.
            for (known, (size, was_read)) in self.known_sizes.iter_mut().zip(taken) {
                if open.rotation.is_some() || was_read {
                    *known = size;
                }
            }
        }
        match ended {
            Ok(position) => {
                self.position = position;
                self.open = None;
                return Ok(());
            }
            Err(error @ SourceError::Monitor { .. }) => return Err(error),
            Err(error) => {
                tracing::info!(vm = self.hypervisor.vm(), %error, "a capture's end is settled from a listing");
            }
        }
        self.settle(site, self.truth_after(open, outcome)).await?;
        match &self.position {
            Position::Since(_) | Position::Scan { .. } => Ok(()),
            Position::Lost { why } => Err(self.hypervisor.tracking_lost(why.clone())),
        }
    }

    /// Takes away what the capture put there, and says what is known afterwards.
    async fn end(&self, open: Open, outcome: Outcome, exports: &[String]) -> Result<Position, SourceError> {
        if !exports.is_empty() {
            delete_exports(&self.hypervisor, exports).await?;
        }
        let is_filtered = open.kind.is_instant() && self.form == CaptureForm::Filter;
        if is_filtered && open.kind == CaptureKind::Instant {
            self.refuse_moved_data().await?;
        }
        let (steps, position) = self.ended(open, outcome);
        let mut commands = Vec::new();
        if is_filtered {
            commands.extend(self.removal_of_snapshots(exports));
        }
        if !steps.is_empty() {
            commands.push(command(&Action::Bitmaps(steps)));
        }
        if !commands.is_empty() {
            self.hypervisor.run_all(&commands).await?;
        }
        if open.kind.is_instant() {
            self.empty_scratch()?;
        }
        Ok(position)
    }

    fn removal_of_snapshots(&self, exports: &[String]) -> Vec<Command> {
        let delete = |node| command(&Action::DeleteNode { node });
        let mut commands = Vec::new();
        for disk in &self.disks {
            if exports.contains(&export_id(disk.index)) {
                commands.push(delete(NodeRole::Snapshot.node(disk.index)));
            }
        }
        let back = self.disks.iter().map(|disk| Switching {
            wrapper: disk.wrapper.clone(),
            file: disk.data.clone(),
            resizing: Resizing::Allowed,
        });
        commands.push(command(&Action::Switch(back.collect())));
        for disk in &self.disks {
            commands.push(delete(NodeRole::Filter.node(disk.index)));
        }
        commands
    }

    /// What becomes of the bitmaps, and what they know then.
    fn ended(&self, open: Open, outcome: Outcome) -> (Vec<super::BitmapStep>, Position) {
        let Some(rotation) = open.rotation else {
            return (Vec::new(), self.position.clone());
        };
        let (old, fresh) = (rotation.old, rotation.fresh);
        match outcome {
            Outcome::Done => {
                let position = match fresh {
                    BitmapBase::Since(point) => Position::Since(point),
                    BitmapBase::Scan { next, round } => Position::Scan { next, round },
                };
                (self.on_all(old, |_| BitmapChange::Remove), position)
            }
            Outcome::Failed => {
                let mut steps = self.on_all(old, |_| BitmapChange::Enable);
                let from = self.bitmap(fresh);
                steps.extend(self.on_all(old, |_| BitmapChange::Merge { from: from.clone() }));
                steps.extend(self.on_all(fresh, |_| BitmapChange::Remove));
                (steps, self.position.clone())
            }
        }
    }

    /// What the target has when the capture ended so.
    fn truth_after(&self, open: Open, outcome: Outcome) -> Truth {
        match (open.kind, outcome) {
            (CaptureKind::Instant | CaptureKind::WholeInstant, Outcome::Done) => Truth::Replica {
                newest: open.next,
                scan: ScanTruth::None,
            },
            (CaptureKind::Round, Outcome::Done) => self.truth_after_round(),
            (
                CaptureKind::Scan | CaptureKind::Round | CaptureKind::Instant | CaptureKind::WholeInstant,
                _,
            ) => self.truth(),
        }
    }

    /// What the target must have, as long as the open capture is not done there.
    pub(super) fn truth(&self) -> Truth {
        self.truth_from(0)
    }

    fn truth_after_round(&self) -> Truth {
        match self.position {
            Position::Scan { round, .. } => self.truth_from(round.saturating_add(1)),
            Position::Since(_) | Position::Lost { .. } => self.truth(),
        }
    }

    fn truth_from(&self, from_round: u64) -> Truth {
        match self.position {
            Position::Since(newest) => Truth::Replica {
                newest,
                scan: ScanTruth::None,
            },
            Position::Scan { next, .. } => Truth::Replica {
                newest: Sequence(next.0.saturating_sub(1)),
                scan: ScanTruth::Open { from_round },
            },
            Position::Lost { .. } => Truth::Nothing,
        }
    }
}
