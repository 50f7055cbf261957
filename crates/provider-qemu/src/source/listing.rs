//! What is at the VM now, told apart: the disks that are protected, what of ours lies around them, and which disks
//! cannot be tracked and why.

use farshore_blocks::{ByteCount, VolumeIndex};
use farshore_provider::{DiskSpecification, MachineSpecification};
use farshore_qmp::Version;

use super::{
    abandoned::{self, AbandonedDevice},
    answers::{Answers, BlockNode},
    form::{CaptureForm, DiskThreads},
    misfit::Misfit,
    naming::{NodeRole, is_our_bitmap, is_our_identifier, wrapper_names},
};

/// How deep our own nodes can lie on one another: wrapper, filter; one more is already wrong.
const DEEPEST_STACK: usize = 8;

/// Everything at the VM that concerns capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    /// The form that all disks are captured in.
    pub(crate) form: CaptureForm,
    /// The protected disks, in the machine's order.
    pub(crate) disks: Vec<ListedDisk>,
    /// Those of which the target has nothing yet: all of each counts as changed, whatever bitmaps say.
    pub(crate) joining: Vec<VolumeIndex>,
    /// Devices of ours that are protected no longer.
    pub(crate) abandoned: Vec<AbandonedDevice>,
    /// Jobs of ours.
    pub(crate) jobs: Vec<String>,
    /// Exports of ours.
    pub(crate) exports: Vec<String>,
    /// Nodes of ours, wherever they are.
    pub(crate) nodes: Vec<String>,
    /// Bitmaps of ours on nodes that hold no protected disk.
    pub(crate) strays: Vec<StrayBitmap>,
    /// Such on nodes that are read-only, like below an overlay: they cannot be removed there, and do no harm.
    pub(crate) out_of_reach: Vec<StrayBitmap>,
}

/// A protected disk as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedDisk {
    pub(crate) index: VolumeIndex,
    pub(crate) name: String,
    /// The device's path, by which its node is changed.
    pub(crate) device: String,
    /// The node that holds the guest's data, below all of ours.
    pub(crate) data: String,
    pub(crate) size: ByteCount,
    pub(crate) bitmaps_survive: BitmapsSurvive,
    pub(crate) wrapping: Wrapping,
    /// The name of its wrapper, which may not be there yet.
    pub(crate) wrapper: String,
    /// Those of ours.
    pub(crate) bitmaps: Vec<ListedBitmap>,
    /// What QEMU calls its image, for people.
    pub(crate) filename: String,
}

/// Whether a disk's image can keep bitmaps while the VM is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BitmapsSurvive {
    Yes,
    No,
}

/// What is between the device and its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wrapping {
    /// Nothing.
    None,
    /// Its wrapper, right on the data.
    Direct,
    /// Its wrapper, and below it something that a capture left.
    Filtered,
    /// A node of ours that should not be there, like the wrapper of another index.
    Misplaced,
}

/// A bitmap of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedBitmap {
    pub(crate) name: String,
    pub(crate) recording: bool,
    pub(crate) inconsistent: bool,
    /// How many bytes it says have changed.
    pub(crate) dirty: ByteCount,
}

/// A bitmap of ours where no protected disk is any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StrayBitmap {
    pub(crate) node: String,
    pub(crate) name: String,
}

/// The listing of what can be captured, and the reasons why the rest cannot.
pub(crate) fn read(
    answers: &Answers,
    machine: &MachineSpecification,
    version: Version,
) -> (Listing, Vec<Misfit>) {
    let mut disks = Vec::new();
    let mut misfits = Vec::new();
    for (index, disk) in (0..).map(VolumeIndex).zip(&machine.disks) {
        match read_disk(answers, index, disk) {
            Ok(listed) => disks.push(listed),
            Err(misfit) => misfits.push(misfit),
        }
    }
    let threads = match answers.with_iothread.as_slice() {
        [] => DiskThreads::MainLoop,
        [_, ..] => DiskThreads::IoThread,
    };
    let listing = Listing {
        form: CaptureForm::of(version, threads),
        strays: strays(answers, &disks, Reach::Writable),
        out_of_reach: strays(answers, &disks, Reach::ReadOnly),
        disks,
        joining: Vec::new(),
        abandoned: abandoned::read(answers, machine),
        jobs: ours(answers.jobs.iter().map(|job| &job.id)),
        exports: ours(answers.exports.iter().map(|export| &export.id)),
        nodes: our_nodes(answers),
    };
    (listing, misfits)
}

fn our_nodes(answers: &Answers) -> Vec<String> {
    let names = answers.nodes.iter().map(|node| &node.node_name);
    names
        .filter(|name| NodeRole::of(name).is_some() && !is_buried(answers, name))
        .cloned()
        .collect()
}

/// Whether an overlay lies on this node: it cannot be taken out any more, and passes everything through.
fn is_buried(answers: &Answers, name: &str) -> bool {
    let users = answers.graph.users_of(name);
    users.into_iter().any(|(user, usage)| {
        let node = answers.nodes.iter().find(|node| node.node_name == user);
        usage == "backing" && node.is_some_and(|node| !node.is_job_filter())
    })
}

/// Whether bitmaps of a node can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Writable,
    ReadOnly,
}

fn ours<'a>(ids: impl Iterator<Item = &'a String>) -> Vec<String> {
    ids.filter(|id| is_our_identifier(id)).cloned().collect()
}

fn strays(answers: &Answers, disks: &[ListedDisk], reach: Reach) -> Vec<StrayBitmap> {
    let elsewhere = answers
        .nodes
        .iter()
        .filter(|node| node.read_only == (reach == Reach::ReadOnly))
        .filter(|node| disks.iter().all(|disk| disk.data != node.node_name));
    elsewhere
        .flat_map(|node| {
            let ours = node
                .dirty_bitmaps
                .iter()
                .filter(|bitmap| is_our_bitmap(&bitmap.name));
            ours.map(|bitmap| StrayBitmap {
                node: node.node_name.clone(),
                name: bitmap.name.clone(),
            })
        })
        .collect()
}

/// The path of the device with this identifier.
pub(crate) fn device_path(device: &str) -> String {
    format!("/machine/peripheral/{device}")
}

fn read_disk(answers: &Answers, index: VolumeIndex, disk: &DiskSpecification) -> Result<ListedDisk, Misfit> {
    let name = || disk.name.clone();
    let device = device_path(&disk.device);
    let top = top_node(answers, disk)?;
    let data = data_node(answers, top).ok_or_else(|| Misfit::Tangled { disk: name() })?;
    let node = answers
        .nodes
        .iter()
        .find(|node| node.node_name == data)
        .ok_or_else(|| Misfit::Tangled { disk: name() })?;
    refuse_unfit(answers, disk, node)?;
    let mut wrappers = wrapper_names(index);
    let wrapper = wrappers.find(|name| !is_buried(answers, name));
    let wrapper = wrapper.unwrap_or_else(|| NodeRole::Wrapper.node(index));
    Ok(ListedDisk {
        index,
        name: name(),
        device,
        data: data.to_owned(),
        size: ByteCount(node.image.virtual_size),
        bitmaps_survive: bitmaps_survive(node),
        wrapping: wrapping(answers, &wrapper, top, data),
        wrapper,
        bitmaps: our_bitmaps(node),
        filename: node.image.filename.clone(),
    })
}

/// Whether QEMU means the device of this disk.
pub(super) fn is_device_of(disk: &DiskSpecification, at: &str) -> bool {
    let path = device_path(&disk.device);
    at == disk.device
        || at
            .strip_prefix(&path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn top_node<'a>(answers: &'a Answers, disk: &DiskSpecification) -> Result<&'a str, Misfit> {
    let found = answers
        .devices
        .iter()
        .find(|device| device.qdev.as_deref().is_some_and(|at| is_device_of(disk, at)))
        .ok_or_else(|| Misfit::NoDevice {
            disk: disk.name.clone(),
            device: disk.device.clone(),
        })?;
    let medium = found.inserted.as_ref().ok_or_else(|| Misfit::NoMedium {
        disk: disk.name.clone(),
        device: disk.device.clone(),
    })?;
    Ok(&medium.node_name)
}

/// The first node from the top that is not ours.
pub(super) fn data_node<'a>(answers: &'a Answers, top: &'a str) -> Option<&'a str> {
    let mut node = top;
    for _ in 0..DEEPEST_STACK {
        if NodeRole::of(node).is_none() {
            return Some(node);
        }
        node = answers.graph.file_of(node)?;
    }
    None
}

pub(super) fn wrapping(answers: &Answers, wrapper: &str, top: &str, data: &str) -> Wrapping {
    if top == data {
        Wrapping::None
    } else if top != wrapper {
        Wrapping::Misplaced
    } else if answers.graph.file_of(top) == Some(data) {
        Wrapping::Direct
    } else {
        Wrapping::Filtered
    }
}

fn refuse_unfit(answers: &Answers, disk: &DiskSpecification, node: &BlockNode) -> Result<(), Misfit> {
    let name = || disk.name.clone();
    if node.is_job_filter() {
        return Err(Misfit::Job { disk: name() });
    }
    if node.read_only {
        return Err(Misfit::ReadOnly { disk: name() });
    }
    if !node.image.virtual_size.is_multiple_of(512) {
        let size = ByteCount(node.image.virtual_size);
        return Err(Misfit::OddSize { disk: name(), size });
    }
    match node.driver.as_str() {
        "file" | "host_device" => Ok(()),
        "qcow2" | "raw" => {
            let protocol = answers
                .graph
                .file_of(&node.node_name)
                .and_then(|file| answers.nodes.iter().find(|node| node.node_name == file))
                .map_or("an unknown protocol", |file| file.driver.as_str());
            match protocol {
                "file" | "host_device" => Ok(()),
                other => Err(Misfit::Protocol {
                    disk: name(),
                    protocol: other.to_owned(),
                }),
            }
        }
        other => Err(Misfit::Format {
            disk: name(),
            driver: other.to_owned(),
        }),
    }
}

fn bitmaps_survive(node: &BlockNode) -> BitmapsSurvive {
    let compat = node
        .image
        .format_specific
        .as_ref()
        .and_then(|format| format.data.compat.as_deref());
    match (node.driver.as_str(), compat) {
        ("qcow2", Some(revision)) if revision != "0.10" => BitmapsSurvive::Yes,
        _ => BitmapsSurvive::No,
    }
}

fn our_bitmaps(node: &BlockNode) -> Vec<ListedBitmap> {
    let ours = node
        .dirty_bitmaps
        .iter()
        .filter(|bitmap| is_our_bitmap(&bitmap.name));
    ours.map(|bitmap| ListedBitmap {
        name: bitmap.name.clone(),
        recording: bitmap.recording,
        inconsistent: bitmap.inconsistent,
        dirty: ByteCount(bitmap.count),
    })
    .collect()
}
