//! Every combination of nodes, exports and jobs that two disks can be left with, in either form, against a graph that
//! refuses what QEMU refuses: to delete a node that somebody uses, or to use one that is not there.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// How one disk is found.
#[derive(Debug, Clone, Copy)]
struct Left {
    wrapping: Wraps,
    /// How far a capture got: scratch, filter, snapshot.
    depth: usize,
    /// A wrapper that no device uses.
    unused_wrapper: bool,
    exported: bool,
    job: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wraps {
    Not,
    Direct,
    Filtered,
    Misplaced,
}

fn every_way_to_leave_a_disk() -> Vec<Left> {
    let mut ways = Vec::new();
    for wrapping in [Wraps::Not, Wraps::Direct, Wraps::Filtered, Wraps::Misplaced] {
        for depth in 0..=3 {
            for flags in 0..8 {
                let left = Left {
                    wrapping,
                    depth,
                    unused_wrapper: flags & 1 != 0,
                    exported: flags & 2 != 0,
                    job: flags & 4 != 0,
                };
                let is_possible = (wrapping != Wraps::Filtered || depth >= 2)
                    && (!left.unused_wrapper || matches!(wrapping, Wraps::Not | Wraps::Misplaced))
                    && (!left.job || depth >= 1);
                if is_possible {
                    ways.push(left);
                }
            }
        }
    }
    ways
}

/// Who uses which nodes; devices, exports and jobs are users that are no nodes.
#[derive(Debug, Default)]
struct Graph {
    uses: BTreeMap<String, BTreeSet<String>>,
    nodes: BTreeSet<String>,
}

impl Graph {
    fn node(&mut self, name: &str, uses: &[&str]) {
        assert!(self.nodes.insert(name.to_owned()), "{name} is there already");
        self.user(name, uses);
    }

    fn user(&mut self, name: &str, uses: &[&str]) {
        for used in uses {
            assert!(
                self.nodes.contains(*used),
                "{name} is to use {used}, which is not there"
            );
        }
        let uses = uses.iter().map(|used| (*used).to_owned()).collect();
        self.uses.insert(name.to_owned(), uses);
    }

    fn delete(&mut self, name: &str) {
        let users: Vec<_> = self.uses.iter().filter(|(_, uses)| uses.contains(name)).collect();
        assert!(users.is_empty(), "{name} is deleted, but used by {users:?}");
        assert!(self.nodes.remove(name), "{name} is not there");
        self.uses.remove(name);
    }

    fn leave(&mut self, index: u32, left: Left) -> ListedDisk {
        let mut listed = disk(index, &[]);
        let of = |role: NodeRole| role.node(VolumeIndex(index));
        let (wrapper, data) = (listed.wrapper.clone(), listed.data.clone());
        let (scratch, filter) = (of(NodeRole::Scratch), of(NodeRole::Filter));
        self.node(&data, &[]);
        for (depth, role, uses) in [
            (1, NodeRole::Scratch, vec![]),
            (2, NodeRole::Filter, vec![data.as_str(), &scratch]),
            (3, NodeRole::Snapshot, vec![&filter]),
        ] {
            if left.depth >= depth {
                self.node(&of(role), &uses);
            }
        }
        let elsewhere = format!("fs-w-{}", index + 7);
        listed.wrapping = match left.wrapping {
            Wraps::Not => Wrapping::None,
            Wraps::Direct => Wrapping::Direct,
            Wraps::Filtered => Wrapping::Filtered,
            Wraps::Misplaced => Wrapping::Misplaced,
        };
        let top = match left.wrapping {
            Wraps::Not => data.clone(),
            Wraps::Direct | Wraps::Filtered => wrapper.clone(),
            Wraps::Misplaced => elsewhere,
        };
        let below = if left.wrapping == Wraps::Filtered {
            &filter
        } else {
            &data
        };
        if top != data {
            self.node(&top, &[below]);
        }
        self.user(&listed.device, &[&top]);
        if left.unused_wrapper {
            self.node(&wrapper, &[&data]);
        }
        if left.exported {
            let shown = [data.as_str(), &scratch, &filter, &of(NodeRole::Snapshot)][left.depth].to_owned();
            self.user(&format!("fs-x-{index}"), &[&shown]);
        }
        if left.job {
            self.user(&format!("fs-j-{index}"), &[&scratch]);
        }
        listed
    }

    fn listing(&self, form: CaptureForm, disks: Vec<ListedDisk>) -> Listing {
        let users = |prefix: &str| {
            let ours = self.uses.keys().filter(|name| name.starts_with(prefix));
            ours.cloned().collect::<Vec<_>>()
        };
        let ours = self.nodes.iter().filter(|name| NodeRole::of(name).is_some());
        Listing {
            form,
            nodes: ours.cloned().collect(),
            jobs: users("fs-j-"),
            exports: users("fs-x-"),
            ..listing(disks)
        }
    }

    fn act(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::CancelJob { id } | Action::DeleteExport { id } => {
                    assert!(self.uses.remove(id).is_some(), "{id} is not there");
                }
                Action::DeleteNode { node } => self.delete(node),
                Action::Switch(switchings) => {
                    for switching in switchings {
                        assert!(self.nodes.contains(&switching.wrapper), "{switching:?}");
                        self.user(&switching.wrapper, &[&switching.file]);
                    }
                }
                Action::AddWrapper { wrapper, data } => self.node(wrapper, &[data]),
                Action::SetDrive { device, node } => self.user(device, &[node]),
                Action::Bitmaps(_) => {}
            }
        }
    }

    /// What is left, told as users and what they use.
    fn told(&self) -> Vec<String> {
        let used = |uses: &BTreeSet<String>| uses.iter().cloned().collect::<Vec<_>>().join("+");
        let lines = self.uses.iter().filter(|(_, uses)| !uses.is_empty());
        lines
            .map(|(name, uses)| format!("{name} on {}", used(uses)))
            .collect()
    }
}

fn ends_in(form: CaptureForm, pair: [Left; 2], removal: bool) -> Vec<String> {
    let mut graph = Graph::default();
    let disks: Vec<_> = (0..)
        .zip(pair)
        .map(|(index, left)| graph.leave(index, left))
        .collect();
    let listing = graph.listing(form, disks);
    let actions = if removal {
        plan_removal(&listing)
    } else {
        plan(&listing, IDENTITY, SEALED).actions
    };
    graph.act(&actions);
    let told = graph.told();
    let left = graph
        .nodes
        .iter()
        .filter(|node| NodeRole::of(node).is_some())
        .count();
    let wrappers = told.iter().filter(|line| line.starts_with("fs-w-")).count();
    assert_eq!(left, wrappers, "{told:?}");
    told
}

#[test]
fn whatever_is_left_is_taken_away_in_an_order_that_is_never_refused() {
    let ways = every_way_to_leave_a_disk();
    assert!(ways.len() > 60, "{}", ways.len());
    let bare = [
        "/machine/peripheral/vd0 on node0",
        "/machine/peripheral/vd1 on node1",
    ];
    let wrapped = [
        "/machine/peripheral/vd0 on fs-w-0",
        "/machine/peripheral/vd1 on fs-w-1",
        "fs-w-0 on node0",
        "fs-w-1 on node1",
    ];
    for one in &ways {
        for other in &ways {
            let pair = [*one, *other];
            assert_eq!(ends_in(CaptureForm::Filter, pair, false), wrapped, "{pair:?}");
            assert_eq!(ends_in(CaptureForm::Copy, pair, false), bare, "{pair:?}");
            for form in [CaptureForm::Filter, CaptureForm::Copy] {
                assert_eq!(ends_in(form, pair, true), bare, "{form:?} {pair:?}");
            }
        }
    }
}
