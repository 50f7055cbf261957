//! The scratch nodes of the filters: they come with the first instant and stay, so that later ones need not open files.
//! They are as long as their disks, so that new ones take their place when a disk grew.

use farshore_provider::SourceError;
use farshore_qmp::Command;
use serde_json::json;

use super::{Attached, Site, copying::record_copied};
use crate::source::{
    acting::act,
    form::CaptureForm,
    listing::ListedDisk,
    naming::NodeRole,
    recovery::Action,
    scratch::{KeptScratch, ScratchFile},
};

impl Attached {
    /// Sees to it that every disk has its scratch node.
    pub(super) async fn need_scratch(&mut self, site: &Site) -> Result<(), SourceError> {
        let sizes = self.disks.iter().map(|disk| disk.size);
        if self.scratch.iter().map(KeptScratch::size).eq(sizes) {
            return Ok(());
        }
        if !self.scratch.is_empty() {
            let delete = |disk: &ListedDisk| Action::DeleteNode {
                node: NodeRole::Scratch.node(disk.index),
            };
            let removal: Vec<_> = self.disks.iter().map(delete).collect();
            self.scratch.clear();
            act(&self.hypervisor, &removal).await?;
        }
        let files = self
            .disks
            .iter()
            .map(|disk| site.scratch.create(disk.index, disk.size));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let add = |(disk, file): (&ListedDisk, &ScratchFile)| {
            let node = json!({
                "driver": "file",
                "node-name": NodeRole::Scratch.node(disk.index),
                "filename": file.path(),
                "discard": "unmap",
            });
            Command::new("blockdev-add", node)
        };
        let mut commands: Vec<_> = self.disks.iter().zip(&files).map(add).collect();
        if self.form == CaptureForm::Copy {
            commands.extend(self.disks.iter().map(|disk| record_copied(disk.index)));
        }
        self.hypervisor.run_all(&commands).await?;
        let kept = files.into_iter().map(|file| file.unlink());
        self.scratch = kept.collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }

    /// Gives back what the filters kept.
    pub(super) fn empty_scratch(&self) -> Result<(), SourceError> {
        self.scratch
            .iter()
            .try_for_each(KeptScratch::empty)
            .map_err(|error| {
                self.hypervisor
                    .unfit(format!("scratch space was not given back: {error}"))
            })
    }
}
