//! Captures in the form of copies: where an I/O thread serves a disk and QEMU would abort at anything that is put above
//! one, or at a client of one that vanishes.
//!
//! *At an instant*, one transaction starts a backup job of every disk; QEMU drains all of them before it starts any. Each
//! job copies what the old bitmap knows to the disk's scratch node, what the guest is about to overwrite first. What a job
//! copied is recorded by a bitmap of the scratch node; what is read are the extents that both bitmaps have. The old one
//! records on while the job runs, so that some of them may have changed since: but what was copied is of the instant.
//!
//! A job that finds no room would make QEMU pause the VM. So the room of all that is to be copied is taken before, and some
//! more for what changes between that and the instant, which is given back right before the jobs begin. Should it not be
//! enough nonetheless, the jobs are ended and the VM is let go on (`jobs.rs`).
//!
//! *Live*, the disks' images are read beside QEMU (`image.rs`), after it wrote its metadata down.

use std::time::{Duration, Instant};

use farshore_blocks::{ByteCount, Extent, VolumeIndex, clock::WallTime};
use farshore_provider::{
    CaptureKind, CapturedVolume, Consistency, DiskFile, SourceError, StateOfBytes, StatedExtent,
};
use farshore_qmp::Command;
use serde_json::json;

use super::{
    Attached, Rotation, Site,
    beginning::{Ordered, add_grown, freeze, thaw},
};
use crate::source::{
    acting::command,
    bitmap_map::{self, BitmapOf, Mapping, both, whole_units},
    capture::QemuCapture,
    export::{ALLOCATION_CONTEXT, extents},
    hypervisor::Hypervisor,
    image::{Image, ImageServer},
    jobs,
    listing::ListedDisk,
    naming::{COPIED_BITMAP, NodeRole, job_id},
    reader::Reader,
    recovery::{Action, BitmapChange},
    scratch::Spare,
    survey::nodes_in_graph,
};

/// What backup jobs copy at once, whatever a bitmap's granularity.
const COPY_UNIT_BYTES: u64 = 64 << 10;

/// Scratch space for what changes while room is taken and the jobs begin: a fast disk's writes of some tenths of a second.
const SPARE_BYTES: ByteCount = ByteCount(64 << 20);

/// What a capture in this form took.
struct Copied {
    captured_at: WallTime,
    consistency: Consistency,
    held: Duration,
    volumes: Vec<CapturedVolume>,
    readers: Vec<Option<Reader>>,
}

impl Attached {
    /// Begins a capture; its bitmaps and order are decided already.
    pub(super) async fn begin_copy(
        &mut self,
        site: &Site,
        ordered: Ordered,
        (number, rotation): (u64, Option<Rotation>),
    ) -> Result<QemuCapture, SourceError> {
        self.need_scratch(site).await?;
        let copied = match rotation {
            Some(rotation) if ordered.kind.is_instant() => self.copy_instant(site, rotation, ordered).await?,
            rotation => self.open_images(site, rotation).await?,
        };
        let mut capture = QemuCapture {
            vm: self.hypervisor.vm().to_owned(),
            number,
            // Only what changed is copied.
            holds_all: false,
            captured_at: copied.captured_at,
            consistency: copied.consistency,
            held: copied.held,
            accord: None,
            volumes: copied.volumes,
            readers: copied.readers,
        };
        if ordered.kind != CaptureKind::Scan {
            for volume in &mut capture.volumes {
                add_grown(volume, self.known_size(volume.index));
            }
        }
        Ok(capture)
    }

    async fn copy_instant(
        &self,
        site: &Site,
        rotation: Rotation,
        ordered: Ordered,
    ) -> Result<Copied, SourceError> {
        let old = self.bitmap(rotation.old);
        let fresh = self.on_all(rotation.fresh, |disk| BitmapChange::Add(disk.bitmaps_survive));
        let mut commands = vec![command(&Action::Bitmaps(fresh))];
        commands.extend(self.disks.iter().map(|disk| forget_copied(disk.index)));
        self.hypervisor.run_all(&commands).await?;
        let spare = self.take_room(site, &old).await?;
        let events = self.hypervisor.events();
        let copy = self.copy_of_all(&old);
        // Dropped on the way, it is thawed.
        let frozen = freeze(site, ordered.wish).await;
        let captured_at = WallTime::now();
        // From here on it is there for what the guest changed meanwhile.
        drop(spare);
        let starting = Instant::now();
        let started = self.hypervisor.run_all(&[copy]).await;
        let held = starting.elapsed();
        let consistency = thaw(site, frozen).await;
        started?;
        let ids: Vec<_> = self.disks.iter().map(|disk| job_id(disk.index)).collect();
        jobs::await_ends(&self.hypervisor, events, &ids).await?;
        let stop = self.on_all(rotation.old, |_| BitmapChange::Disable);
        self.hypervisor
            .run_all(&[command(&Action::Bitmaps(stop))])
            .await?;
        let (volumes, readers) = self.open_copies(site, &old).await?;
        Ok(Copied {
            captured_at,
            consistency,
            held,
            volumes,
            readers,
        })
    }

    /// Takes the room of all that the jobs are about to copy, and some more for what changes until they do.
    async fn take_room(&self, site: &Site, old: &str) -> Result<Spare, SourceError> {
        let maps = self.map(site, |disk| vec![of_disk(disk, old)]).await?;
        for ((disk, scratch), map) in self.disks.iter().zip(&self.scratch).zip(maps) {
            let changed = map.into_iter().next().unwrap_or_default();
            for unit in whole_units(&changed, COPY_UNIT_BYTES, disk.size) {
                scratch
                    .take_room(unit)
                    .map_err(|error| site.scratch.failed(error))?;
            }
        }
        site.scratch.spare(SPARE_BYTES)
    }

    async fn map(
        &self,
        site: &Site,
        bitmaps: impl Fn(&ListedDisk) -> Vec<BitmapOf>,
    ) -> Result<Vec<Vec<Vec<Extent>>>, SourceError> {
        let mapping = |disk: &ListedDisk| Mapping {
            index: disk.index,
            size: disk.size,
            bitmaps: bitmaps(disk),
        };
        let mappings: Vec<_> = self.disks.iter().map(mapping).collect();
        bitmap_map::read(&self.hypervisor, &site.scratch, &mappings).await
    }

    /// One job of each disk, all or none; if one fails, all do. The bitmap stays as it is, together with what changes
    /// meanwhile: what becomes of it is decided at the capture's end.
    fn copy_of_all(&self, old: &str) -> Command {
        let job = |disk: &ListedDisk| {
            let data = json!({
                "job-id": job_id(disk.index),
                "device": disk.data,
                "target": NodeRole::Scratch.node(disk.index),
                "sync": "bitmap",
                "bitmap": old,
                "bitmap-mode": "never",
                "filter-node-name": NodeRole::Filter.node(disk.index),
            });
            json!({"type": "blockdev-backup", "data": data})
        };
        let actions: Vec<_> = self.disks.iter().map(job).collect();
        let arguments = json!({"actions": actions, "properties": {"completion-mode": "grouped"}});
        Command::new("transaction", arguments)
    }

    async fn open_copies(
        &self,
        site: &Site,
        old: &str,
    ) -> Result<(Vec<CapturedVolume>, Vec<Option<Reader>>), SourceError> {
        let maps = self
            .map(site, |disk| vec![of_disk(disk, old), of_scratch(disk.index)])
            .await?;
        let (mut volumes, mut readers) = (Vec::new(), Vec::new());
        for ((disk, scratch), map) in self.disks.iter().zip(&self.scratch).zip(maps) {
            let changed = match map.as_slice() {
                [changed, copied] => both(changed, copied),
                _ => Vec::new(),
            };
            let reader = (!changed.is_empty()).then(|| scratch.reader());
            let reader = reader.transpose().map_err(|error| site.scratch.failed(error))?;
            readers.push(reader.map(|file| Reader::Copy(DiskFile::cached(file))));
            volumes.push(volume_of(disk, changed));
        }
        Ok((volumes, readers))
    }

    /// Live: if there is a rotation, changes go into the fresh bitmaps only from one moment on.
    async fn open_images(&self, site: &Site, rotation: Option<Rotation>) -> Result<Copied, SourceError> {
        let captured_at = WallTime::now();
        let mut changed = None;
        if let Some(rotation) = rotation {
            let mut steps = self.on_all(rotation.fresh, |disk| BitmapChange::Add(disk.bitmaps_survive));
            steps.extend(self.on_all(rotation.old, |_| BitmapChange::Disable));
            self.hypervisor
                .run_all(&[command(&Action::Bitmaps(steps))])
                .await?;
            let old = self.bitmap(rotation.old);
            changed = Some(self.map(site, |disk| vec![of_disk(disk, &old)]).await?);
        }
        let images = self.written_down().await?;
        let (mut volumes, mut readers) = (Vec::new(), Vec::new());
        for (at, (disk, image)) in self.disks.iter().zip(&images).enumerate() {
            let known = changed
                .as_ref()
                .map(|maps| maps.get(at).and_then(|map| map.first()));
            let known = known.map(|extents| extents.cloned().unwrap_or_default());
            // A scan beside disks that are known is one of those that join.
            let known = known.or_else(|| (!self.is_scanned(disk)).then(Vec::new));
            let (volume, reader) = self.open_image(site, (disk, image), known).await?;
            volumes.push(volume);
            readers.push(reader);
        }
        Ok(Copied {
            captured_at,
            consistency: Consistency::Crash { why: None },
            held: Duration::ZERO,
            volumes,
            readers,
        })
    }

    /// Opens an image for what is known to have changed, or for all of it.
    async fn open_image(
        &self,
        site: &Site,
        (disk, image): (&ListedDisk, &Image),
        changed: Option<Vec<Extent>>,
    ) -> Result<(CapturedVolume, Option<Reader>), SourceError> {
        let grown = disk.size > self.known_size(disk.index);
        let (contexts, changed) = match changed {
            Some(changed) if changed.is_empty() && !grown => return Ok((volume_of(disk, changed), None)),
            Some(changed) => (&[][..], Some(changed)),
            None => (&[ALLOCATION_CONTEXT][..], None),
        };
        let server =
            ImageServer::start(&self.hypervisor, &site.scratch, (disk.index, image), contexts).await?;
        let length = ByteCount(server.client().size());
        if length != disk.size {
            return Err(self.hypervisor.unfit(format!(
                "disk `{}` is {} long, but its image, read beside QEMU, {length}",
                disk.name, disk.size
            )));
        }
        let volume = match changed {
            Some(changed) => volume_of(disk, changed),
            None => CapturedVolume {
                index: disk.index,
                size: disk.size,
                extents: allocation(&self.hypervisor, &server, disk).await?,
            },
        };
        Ok((volume, Some(Reader::Image(server))))
    }

    /// The disks' images, after QEMU wrote down where their bytes lie.
    async fn written_down(&self) -> Result<Vec<Image>, SourceError> {
        let (graph, nodes) = nodes_in_graph(&self.hypervisor).await?;
        let mut images = Vec::with_capacity(self.disks.len());
        for disk in &self.disks {
            let image = Image::of(&disk.data, &graph, &nodes);
            images.push(
                image.map_err(|fault| self.hypervisor.unfit(format!("disk `{}`: {fault}", disk.name)))?,
            );
            let line = format!("qemu-io {} \"flush\"", disk.data);
            let order = json!({"command-line": line});
            let said: String = self.hypervisor.query("human-monitor-command", order).await?;
            if !said.trim().is_empty() {
                return Err(self.hypervisor.unfit(format!(
                    "disk `{}` could not be flushed: {}",
                    disk.name,
                    said.trim()
                )));
            }
        }
        Ok(images)
    }
}

async fn allocation(
    hypervisor: &Hypervisor,
    server: &ImageServer,
    disk: &ListedDisk,
) -> Result<Vec<StatedExtent>, SourceError> {
    let status = server
        .client()
        .block_status(ALLOCATION_CONTEXT, 0, disk.size.0)
        .await;
    let status = status.map_err(|error| {
        hypervisor.unfit(format!(
            "the allocation of disk `{}` cannot be read: {error}",
            disk.name
        ))
    })?;
    Ok(extents(CaptureKind::Scan, &status))
}

fn volume_of(disk: &ListedDisk, changed: Vec<Extent>) -> CapturedVolume {
    let stated = changed.into_iter().map(|extent| StatedExtent {
        extent,
        state: StateOfBytes::Data,
    });
    CapturedVolume {
        index: disk.index,
        size: disk.size,
        extents: stated.collect(),
    }
}

fn of_disk(disk: &ListedDisk, name: &str) -> BitmapOf {
    BitmapOf {
        node: disk.data.clone(),
        name: name.to_owned(),
    }
}

fn of_scratch(index: VolumeIndex) -> BitmapOf {
    BitmapOf {
        node: NodeRole::Scratch.node(index),
        name: COPIED_BITMAP.to_owned(),
    }
}

/// Records what is copied to a scratch node from now on.
pub(super) fn record_copied(index: VolumeIndex) -> Command {
    let BitmapOf { node, name } = of_scratch(index);
    let bitmap = json!({"node": node, "name": name, "granularity": COPY_UNIT_BYTES});
    Command::new("block-dirty-bitmap-add", bitmap)
}

fn forget_copied(index: VolumeIndex) -> Command {
    let BitmapOf { node, name } = of_scratch(index);
    Command::new("block-dirty-bitmap-clear", json!({"node": node, "name": name}))
}
