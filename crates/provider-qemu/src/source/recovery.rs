//! The recovery table: from what lies at the VM and what is true at the target to what must be done there, and to
//! what tracking is good for afterwards.
//!
//! Every disk is behind its wrapper only where captures are taken by the filter (`form.rs`); otherwise it is bare.
//!
//! The end of every capture is the same path as the repair of a crash: list, plan, act. What a plan leaves is always
//! the same: every disk behind its wrapper, nothing else of ours but at most one recording bitmap a disk.
//!
//! A capture's bitmaps overlap: the new one records before the old one stops. So of the bitmaps of one disk, the
//! oldest that still counts together with all younger ones knows every change, if any of them records. Which still
//! counts is decided by the target alone:
//!
//! | newest point at the target, scan there | counts | becomes |
//! |---|---|---|
//! | N, none open | `since.N`, with every younger `since` | `since.N` |
//! | N, open towards N+1 | every `scan.(N+1).r` that was not shipped, with `since.(N+1)` | the youngest `scan.(N+1).r` |
//! | N, open towards N+1, but no such scan here | as if none were open | `since.N` |
//! | anything else | nothing | tracking is lost, everything is removed |
//!
//! A disk that is not in the target's newest point needs no bitmap to count: one is begun afresh, and all of the disk is
//! what changed. A device that is not declared any more gets its data back, and what of ours was around it goes.
//!
//! Bitmaps of another vault or chain, unreadable names and inconsistent bitmaps never count. Tracking is of use only
//! if it holds for all disks.

mod tracking;

#[cfg(test)]
mod tests;

use farshore_blocks::{ByteCount, Sequence};
use farshore_provider::TrackingIdentity;

use super::{
    form::CaptureForm,
    listing::{Listing, Wrapping},
    naming::NodeRole,
};

/// What is known at the target of this chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Truth {
    /// Nothing that tracking at the source could be relative to: all of it is to be dropped.
    Nothing,
    /// A sealed point and perhaps a scan towards the next.
    Replica { newest: Sequence, scan: ScanTruth },
}

/// What the target holds of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScanTruth {
    /// None is open.
    None,
    /// One is; what the rounds before this one knew was shipped.
    Open { from_round: u64 },
}

/// What bitmaps at the source know now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Position {
    /// Every change since this point.
    Since(Sequence),
    /// Every change since this round of the scan towards this point began.
    Scan { next: Sequence, round: u64 },
    /// Nothing, and why.
    Lost { why: String },
}

/// One thing to do. Done in order, and each may be repeated after a fresh listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    CancelJob {
        id: String,
    },
    DeleteExport {
        id: String,
    },
    DeleteNode {
        node: String,
    },
    /// Makes all these wrappers point at these nodes, in one instant.
    Switch(Vec<Switching>),
    /// Puts a new wrapper on the data; the device is not on it yet.
    AddWrapper {
        wrapper: String,
        data: String,
    },
    /// Makes the device use this node.
    SetDrive {
        device: String,
        node: String,
    },
    /// All of them or none.
    Bitmaps(Vec<BitmapStep>),
}

/// A wrapper and what is to be below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Switching {
    pub(crate) wrapper: String,
    pub(crate) file: String,
    pub(crate) resizing: Resizing,
}

/// Whether an operator may resize the disk through its wrapper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resizing {
    /// As without a wrapper.
    Allowed,
    /// QEMU would abort, guest and all, if a disk with a snapshot were resized: the wrapper has this size and no other.
    Refused {
        /// The disk's.
        size: ByteCount,
    },
}

/// A step with a node's bitmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BitmapStep {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) change: BitmapChange,
}

/// What happens to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BitmapChange {
    /// It comes to be and records.
    Add(super::listing::BitmapsSurvive),
    Enable,
    Disable,
    /// It takes in what this other one of the same node knows.
    Merge {
        from: String,
    },
    Remove,
}

/// What to do, and what tracking is good for then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    pub(crate) position: Position,
}

/// Whether the disks are to stay behind their wrappers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrappers {
    /// Between captures by the filter.
    Stay,
    /// At the end of protection, and where captures put nothing above a disk.
    Go,
}

/// The plan that leaves the VM ready for the next capture.
pub(crate) fn plan(listing: &Listing, identity: TrackingIdentity, truth: Truth) -> Plan {
    let (steps, position) = tracking::judge(listing, identity, truth);
    let wrappers = match listing.form {
        CaptureForm::Filter => Wrappers::Stay,
        CaptureForm::Copy => Wrappers::Go,
    };
    let mut actions = around(listing, wrappers);
    push_bitmaps(&mut actions, steps);
    let unwrapped = listing.disks.iter().filter(|_| wrappers == Wrappers::Stay);
    for disk in unwrapped {
        if matches!(disk.wrapping, Wrapping::None | Wrapping::Misplaced) {
            let wrapper = disk.wrapper.clone();
            actions.push(Action::AddWrapper {
                wrapper: wrapper.clone(),
                data: disk.data.clone(),
            });
            actions.push(Action::SetDrive {
                device: disk.device.clone(),
                node: wrapper,
            });
        }
    }
    Plan { actions, position }
}

/// The actions that leave nothing of ours.
pub(crate) fn plan_removal(listing: &Listing) -> Vec<Action> {
    let mut actions = around(listing, Wrappers::Go);
    push_bitmaps(&mut actions, tracking::removal(listing));
    actions
}

fn push_bitmaps(actions: &mut Vec<Action>, steps: Vec<BitmapStep>) {
    if !steps.is_empty() {
        actions.push(Action::Bitmaps(steps));
    }
}

/// Takes away everything but bitmaps, from the outside in: who uses a thing goes before the thing.
fn around(listing: &Listing, wrappers: Wrappers) -> Vec<Action> {
    let mut actions = Vec::new();
    actions.extend(listing.jobs.iter().cloned().map(|id| Action::CancelJob { id }));
    actions.extend(
        listing
            .exports
            .iter()
            .cloned()
            .map(|id| Action::DeleteExport { id }),
    );
    actions.extend(delete_nodes(listing, &[NodeRole::Snapshot]));
    let back = |(wrapper, data): (&String, &String)| Switching {
        wrapper: wrapper.clone(),
        file: data.clone(),
        resizing: Resizing::Allowed,
    };
    let disks = listing
        .disks
        .iter()
        .map(|disk| (&disk.wrapping, (&disk.wrapper, &disk.data)));
    let abandoned = listing
        .abandoned
        .iter()
        .map(|left| (&left.wrapping, (&left.wrapper, &left.data)));
    let filtered = disks
        .chain(abandoned)
        .filter(|(wrapping, _)| **wrapping == Wrapping::Filtered);
    let switch_back: Vec<_> = filtered.map(|(_, nodes)| back(nodes)).collect();
    if !switch_back.is_empty() {
        actions.push(Action::Switch(switch_back));
    }
    for disk in &listing.disks {
        let unwrap = match (&disk.wrapping, wrappers) {
            (Wrapping::None, _) | (Wrapping::Direct | Wrapping::Filtered, Wrappers::Stay) => false,
            (Wrapping::Misplaced, _) | (Wrapping::Direct | Wrapping::Filtered, Wrappers::Go) => true,
        };
        if unwrap {
            actions.push(Action::SetDrive {
                device: disk.device.clone(),
                node: disk.data.clone(),
            });
        }
    }
    actions.extend(listing.abandoned.iter().map(|left| Action::SetDrive {
        device: left.device.clone(),
        node: left.data.clone(),
    }));
    actions.extend(delete_wrappers(listing, wrappers));
    actions.extend(delete_nodes(listing, &[NodeRole::Filter, NodeRole::Scratch]));
    actions
}

fn delete_nodes(listing: &Listing, roles: &[NodeRole]) -> Vec<Action> {
    let of_role = |role: NodeRole| {
        listing
            .nodes
            .iter()
            .filter(move |node| NodeRole::of(node) == Some(role))
            .map(|node| Action::DeleteNode { node: node.clone() })
    };
    roles.iter().copied().flat_map(of_role).collect()
}

/// Wrappers that no device uses, or will use after what comes before.
fn delete_wrappers(listing: &Listing, wrappers: Wrappers) -> Vec<Action> {
    let used: Vec<_> = listing
        .disks
        .iter()
        .filter(|disk| {
            wrappers == Wrappers::Stay && matches!(disk.wrapping, Wrapping::Direct | Wrapping::Filtered)
        })
        .map(|disk| &disk.wrapper)
        .collect();
    let mut actions = delete_nodes(listing, &[NodeRole::Wrapper]);
    actions.retain(|action| !matches!(action, Action::DeleteNode { node } if used.contains(&node)));
    actions
}
