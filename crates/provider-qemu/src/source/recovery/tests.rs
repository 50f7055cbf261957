//! The table, case by case, and every combination of bitmaps against what must hold of any plan.

mod leftovers;

use std::collections::BTreeMap;

use farshore_blocks::{ByteCount, ChainId, Incarnation, VolumeIndex};

use super::*;
use crate::source::{
    listing::{BitmapsSurvive, ListedBitmap, ListedDisk, StrayBitmap},
    naming::{BitmapBase, BitmapName, IdentityTag},
};

const IDENTITY: TrackingIdentity = TrackingIdentity {
    vault: Incarnation::from_bytes([1; 16]),
    chain: ChainId::from_bytes([2; 16]),
};
const OTHER_CHAIN: TrackingIdentity = TrackingIdentity {
    vault: Incarnation::from_bytes([1; 16]),
    chain: ChainId::from_bytes([3; 16]),
};

const NEWEST: Sequence = Sequence(5);
const NEXT: Sequence = Sequence(6);

const SEALED: Truth = Truth::Replica {
    newest: NEWEST,
    scan: ScanTruth::None,
};
const SCANNING: Truth = Truth::Replica {
    newest: NEWEST,
    scan: ScanTruth::Open { from_round: 0 },
};
const FIRST_ROUND_SHIPPED: Truth = Truth::Replica {
    newest: NEWEST,
    scan: ScanTruth::Open { from_round: 1 },
};

fn since(point: u64) -> BitmapBase {
    BitmapBase::Since(Sequence(point))
}

fn scan(round: u64) -> BitmapBase {
    BitmapBase::Scan { next: NEXT, round }
}

fn name(base: BitmapBase) -> String {
    let identity = IdentityTag::of(IDENTITY);
    BitmapName { identity, base }.to_string()
}

/// How a bitmap is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Absent,
    Stopped,
    Recording,
    Inconsistent,
}

use Found::{Absent, Inconsistent, Recording, Stopped};

fn bitmap(name: String, found: Found) -> ListedBitmap {
    ListedBitmap {
        name,
        recording: found == Recording,
        inconsistent: found == Inconsistent,
        dirty: ByteCount(0),
    }
}

fn disk(index: u32, bitmaps: &[(BitmapBase, Found)]) -> ListedDisk {
    let there = bitmaps.iter().filter(|(_, found)| *found != Absent);
    ListedDisk {
        index: VolumeIndex(index),
        name: format!("disk{index}"),
        device: format!("/machine/peripheral/vd{index}"),
        data: format!("node{index}"),
        size: ByteCount(4096),
        bitmaps_survive: BitmapsSurvive::No,
        wrapping: Wrapping::Direct,
        wrapper: NodeRole::Wrapper.node(VolumeIndex(index)),
        bitmaps: there.map(|(base, found)| bitmap(name(*base), *found)).collect(),
        filename: String::new(),
    }
}

fn listing(disks: Vec<ListedDisk>) -> Listing {
    let wrappers = disks.iter().filter(|disk| disk.wrapping != Wrapping::None);
    Listing {
        form: CaptureForm::Filter,
        nodes: wrappers.map(|disk| NodeRole::Wrapper.node(disk.index)).collect(),
        disks,
        joining: Vec::new(),
        abandoned: Vec::new(),
        jobs: Vec::new(),
        exports: Vec::new(),
        strays: Vec::new(),
        out_of_reach: Vec::new(),
    }
}

/// What each bitmap of a node knows, by the names of those whose knowledge it holds, after a plan.
fn after(disk: &ListedDisk, plan: &Plan) -> BTreeMap<String, (bool, Vec<String>)> {
    let mut state: BTreeMap<_, _> = disk
        .bitmaps
        .iter()
        .map(|bitmap| (bitmap.name.clone(), (bitmap.recording, vec![bitmap.name.clone()])))
        .collect();
    for action in &plan.actions {
        let Action::Bitmaps(steps) = action else { continue };
        for step in steps.iter().filter(|step| step.node == disk.data) {
            match &step.change {
                BitmapChange::Enable => state.get_mut(&step.name).unwrap().0 = true,
                BitmapChange::Disable => state.get_mut(&step.name).unwrap().0 = false,
                BitmapChange::Merge { from } => {
                    let known = state[from].1.clone();
                    state.get_mut(&step.name).unwrap().1.extend(known);
                }
                BitmapChange::Remove => drop(state.remove(&step.name).unwrap()),
                BitmapChange::Add(_) => {
                    let there = state.insert(step.name.clone(), (true, Vec::new()));
                    assert!(there.is_none(), "{} is there already", step.name);
                }
            }
        }
    }
    state
}

/// One row: what the target has, what is found, and what follows; with it, whose knowledge the kept bitmap holds.
struct Row {
    truth: Truth,
    found: &'static [(BitmapBase, Found)],
    kept: Option<(BitmapBase, &'static [BitmapBase])>,
}

const SINCE_4: BitmapBase = BitmapBase::Since(Sequence(4));
const SINCE_5: BitmapBase = BitmapBase::Since(NEWEST);
const SINCE_6: BitmapBase = BitmapBase::Since(NEXT);
const SCAN_0: BitmapBase = BitmapBase::Scan { next: NEXT, round: 0 };
const SCAN_1: BitmapBase = BitmapBase::Scan { next: NEXT, round: 1 };
const SCAN_OF_5: BitmapBase = BitmapBase::Scan {
    next: NEWEST,
    round: 0,
};

#[rustfmt::skip]
const TABLE: &[Row] = &[
    // Between captures, and in every stage of one that was not sealed.
    Row { truth: SEALED, found: &[(SINCE_5, Recording)], kept: Some((SINCE_5, &[SINCE_5])) },
    Row { truth: SEALED, found: &[(SINCE_5, Recording), (SINCE_6, Recording)], kept: Some((SINCE_5, &[SINCE_5, SINCE_6])) },
    Row { truth: SEALED, found: &[(SINCE_5, Stopped), (SINCE_6, Recording)], kept: Some((SINCE_5, &[SINCE_5, SINCE_6])) },
    // One that was sealed, and not yet finished.
    Row { truth: SEALED, found: &[(SINCE_4, Stopped), (SINCE_5, Recording)], kept: Some((SINCE_5, &[SINCE_5])) },
    Row { truth: SEALED, found: &[(SCAN_OF_5, Stopped), (SINCE_5, Recording)], kept: Some((SINCE_5, &[SINCE_5])) },
    // A scan, in every stage.
    Row { truth: SCANNING, found: &[(SCAN_0, Recording)], kept: Some((SCAN_0, &[SCAN_0])) },
    Row { truth: SCANNING, found: &[(SCAN_0, Stopped), (SCAN_1, Recording)], kept: Some((SCAN_1, &[SCAN_0, SCAN_1])) },
    Row { truth: SCANNING, found: &[(SCAN_1, Recording)], kept: Some((SCAN_1, &[SCAN_1])) },
    Row { truth: SCANNING, found: &[(SCAN_1, Recording), (SINCE_6, Recording)], kept: Some((SCAN_1, &[SCAN_1, SINCE_6])) },
    Row { truth: SCANNING, found: &[(SCAN_1, Stopped), (SINCE_6, Recording)], kept: Some((SCAN_1, &[SCAN_1, SINCE_6])) },
    Row { truth: FIRST_ROUND_SHIPPED, found: &[(SCAN_0, Stopped), (SCAN_1, Recording)], kept: Some((SCAN_1, &[SCAN_1])) },
    // The target opened a scan, and tracking was not begun afresh yet: what was known still holds.
    Row { truth: SCANNING, found: &[(SINCE_5, Recording)], kept: Some((SINCE_5, &[SINCE_5])) },
    // Lost: nothing there, nothing that records, a gap, a broken one, one that is relative to something else.
    Row { truth: SEALED, found: &[], kept: None },
    Row { truth: SEALED, found: &[(SINCE_5, Stopped)], kept: None },
    Row { truth: SEALED, found: &[(SINCE_5, Stopped), (SINCE_6, Stopped)], kept: None },
    Row { truth: SEALED, found: &[(SINCE_5, Stopped), (SINCE_6, Inconsistent)], kept: None },
    Row { truth: SEALED, found: &[(SINCE_5, Inconsistent)], kept: None },
    Row { truth: SEALED, found: &[(SINCE_4, Recording)], kept: None },
    Row { truth: SEALED, found: &[(SINCE_6, Recording)], kept: None },
    Row { truth: SEALED, found: &[(SCAN_0, Recording)], kept: None },
    Row { truth: SCANNING, found: &[(SCAN_OF_5, Recording)], kept: None },
    Row { truth: SCANNING, found: &[(SINCE_6, Recording)], kept: None },
    Row { truth: SCANNING, found: &[(SCAN_0, Stopped), (SCAN_1, Inconsistent)], kept: None },
    Row { truth: FIRST_ROUND_SHIPPED, found: &[(SCAN_0, Recording)], kept: None },
    Row { truth: Truth::Nothing, found: &[(SINCE_5, Recording)], kept: None },
    Row { truth: Truth::Nothing, found: &[(SCAN_0, Recording)], kept: None },
];

#[test]
fn every_row_of_the_table_holds() {
    for (number, row) in TABLE.iter().enumerate() {
        let listed = disk(0, row.found);
        let plan = plan(&listing(vec![listed.clone()]), IDENTITY, row.truth);
        let after = after(&listed, &plan);
        let Some((base, knowledge)) = row.kept else {
            assert!(
                matches!(plan.position, Position::Lost { .. }),
                "row {number}: {plan:?}"
            );
            assert!(after.is_empty(), "row {number}: {after:?}");
            continue;
        };
        let expected = match base {
            BitmapBase::Since(point) => Position::Since(point),
            BitmapBase::Scan { next, round } => Position::Scan { next, round },
        };
        assert_eq!(plan.position, expected, "row {number}");
        let mut found = after.clone();
        let (recording, mut holds) = found.remove(&name(base)).unwrap();
        holds.sort();
        let mut must: Vec<_> = knowledge.iter().map(|base| name(*base)).collect();
        must.sort();
        assert!(recording && found.is_empty(), "row {number}: {after:?}");
        assert_eq!(holds, must, "row {number}");
    }
}

/// Every combination of two disks' bitmaps: what is kept is one recording bitmap each, of the same base, and what is
/// kept knows all that any usable bitmap from its base on knew; or nothing is left.
#[test]
fn no_combination_of_bitmaps_leaves_half_of_tracking() {
    let bases = [since(4), since(5), since(6), scan(0), scan(1)];
    let states = [Absent, Stopped, Recording, Inconsistent];
    let combinations: Vec<Vec<_>> = (0..4_usize.pow(5))
        .map(|code| {
            let found = (0..5).map(|place| states[code / 4_usize.pow(place) % 4]);
            bases.into_iter().zip(found).collect()
        })
        .collect();
    let mut kept = 0;
    for truth in [SEALED, SCANNING, FIRST_ROUND_SHIPPED, Truth::Nothing] {
        for (number, first) in combinations.iter().enumerate() {
            // The second disk is like the first, or like one of a few others.
            for second in [first, &combinations[(number * 7 + 3) % combinations.len()]] {
                let disks = vec![disk(0, first), disk(1, second)];
                let plan = plan(&listing(disks.clone()), IDENTITY, truth);
                let base = match plan.position {
                    Position::Since(point) => Some(BitmapBase::Since(point)),
                    Position::Scan { next, round } => Some(BitmapBase::Scan { next, round }),
                    Position::Lost { .. } => None,
                };
                for disk in &disks {
                    let after = after(disk, &plan);
                    let names: Vec<_> = after.keys().cloned().collect();
                    assert_eq!(names, base.map(name).into_iter().collect::<Vec<_>>(), "{disk:?}");
                    for (recording, holds) in after.values() {
                        kept += 1;
                        assert!(recording, "{disk:?}");
                        let broken = disk.bitmaps.iter().filter(|bitmap| bitmap.inconsistent);
                        assert!(broken.into_iter().all(|bitmap| !holds.contains(&bitmap.name)));
                    }
                }
            }
        }
    }
    assert!(kept > 500, "{kept}");
}

#[test]
fn bitmaps_with_long_names_hand_over_to_such_with_short_ones() {
    let long = |rest: &str| format!("farshore.{}.{}.{rest}", IDENTITY.vault, IDENTITY.chain);
    let mut listed = disk(0, &[]);
    listed.bitmaps = vec![
        bitmap(long("since.5"), Stopped),
        bitmap(long("since.6"), Recording),
    ];
    let plan = plan(&listing(vec![listed.clone()]), IDENTITY, SEALED);
    assert_eq!(plan.position, Position::Since(NEWEST));
    let knows = (true, vec![long("since.5"), long("since.6")]);
    assert_eq!(after(&listed, &plan), BTreeMap::from([(name(since(5)), knows)]));
}

#[test]
fn tracking_that_one_disk_lost_is_lost_for_all() {
    let disks = vec![disk(0, &[(since(5), Recording)]), disk(1, &[])];
    let plan = plan(&listing(disks.clone()), IDENTITY, SEALED);
    assert!(
        matches!(&plan.position, Position::Lost { why } if why.contains("disk1")),
        "{plan:?}"
    );
    assert!(after(&disks[0], &plan).is_empty());
}

#[test]
fn bitmaps_of_another_chain_or_without_a_place_are_worth_nothing() {
    let mut listed = disk(0, &[]);
    let foreign = BitmapName {
        identity: IdentityTag::of(OTHER_CHAIN),
        base: since(5),
    };
    listed.bitmaps.push(bitmap(foreign.to_string(), Recording));
    listed
        .bitmaps
        .push(bitmap("farshore.of.another.kind".into(), Recording));
    let mut listing = listing(vec![listed.clone()]);
    listing.strays.push(StrayBitmap {
        node: "elsewhere".into(),
        name: name(since(5)),
    });
    let plan = plan(&listing, IDENTITY, SEALED);
    assert!(matches!(plan.position, Position::Lost { .. }));
    assert!(after(&listed, &plan).is_empty());
    let removes_stray = |action: &Action| {
        matches!(action, Action::Bitmaps(steps)
            if steps.iter().any(|step| step.node == "elsewhere" && step.change == BitmapChange::Remove))
    };
    assert!(plan.actions.iter().any(removes_stray), "{plan:?}");
}

/// The names of nodes, exports, jobs and devices in the order in which they are dealt with.
fn order(actions: &[Action]) -> Vec<String> {
    actions
        .iter()
        .map(|action| match action {
            Action::CancelJob { id } | Action::DeleteExport { id } => id.clone(),
            Action::DeleteNode { node } => node.clone(),
            Action::Switch(switchings) => format!("switch {}", switchings.len()),
            Action::AddWrapper { wrapper, data } => format!("{wrapper} on {data}"),
            Action::SetDrive { device, node } => format!("{} to {node}", device.rsplit('/').next().unwrap()),
            Action::Bitmaps(_) => "bitmaps".into(),
        })
        .collect()
}

/// Two disks in the middle of a capture.
fn in_mid_capture() -> Listing {
    let bitmaps = [(since(5), Stopped), (since(6), Recording)];
    let mut disks = vec![disk(0, &bitmaps), disk(1, &bitmaps)];
    for disk in &mut disks {
        disk.wrapping = Wrapping::Filtered;
    }
    let mut listing = listing(disks);
    for role in [NodeRole::Filter, NodeRole::Scratch, NodeRole::Snapshot] {
        listing
            .nodes
            .extend((0..2).map(|index| role.node(VolumeIndex(index))));
    }
    listing.exports = vec!["fs-x-0".into(), "fs-x-1".into()];
    listing.jobs = vec!["fs-j-0".into()];
    listing
}

#[test]
fn who_uses_a_thing_goes_before_the_thing() {
    let plan = plan(&in_mid_capture(), IDENTITY, SEALED);
    let expected = [
        "fs-j-0", "fs-x-0", "fs-x-1", "fs-a-0", "fs-a-1", "switch 2", "fs-c-0", "fs-c-1", "fs-s-0", "fs-s-1",
        "bitmaps",
    ];
    assert_eq!(order(&plan.actions), expected);
}

#[test]
fn removal_gives_the_devices_their_own_nodes_back() {
    let expected = [
        "fs-j-0",
        "fs-x-0",
        "fs-x-1",
        "fs-a-0",
        "fs-a-1",
        "switch 2",
        "vd0 to node0",
        "vd1 to node1",
        "fs-w-0",
        "fs-w-1",
        "fs-c-0",
        "fs-c-1",
        "fs-s-0",
        "fs-s-1",
        "bitmaps",
    ];
    assert_eq!(order(&plan_removal(&in_mid_capture())), expected);
}

#[test]
fn a_settled_vm_needs_nothing() {
    let disks = vec![
        disk(0, &[(since(5), Recording)]),
        disk(1, &[(since(5), Recording)]),
    ];
    assert_eq!(plan(&listing(disks), IDENTITY, SEALED).actions, []);
}

#[test]
fn bare_and_wrongly_wrapped_disks_get_their_own_wrapper() {
    let mut disks = vec![disk(0, &[]), disk(1, &[])];
    disks[0].wrapping = Wrapping::None;
    disks[1].wrapping = Wrapping::Misplaced;
    let mut listing = listing(disks);
    // A wrapper that was added and never used, and the one that is on the wrong disk.
    listing.nodes = vec!["fs-w-0".into(), "fs-w-7".into()];
    let expected = [
        "vd1 to node1",
        "fs-w-0",
        "fs-w-7",
        "fs-w-0 on node0",
        "vd0 to fs-w-0",
        "fs-w-1 on node1",
        "vd1 to fs-w-1",
    ];
    assert_eq!(order(&plan(&listing, IDENTITY, SEALED).actions), expected);
}
