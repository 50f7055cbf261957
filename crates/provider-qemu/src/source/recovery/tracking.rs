//! Which bitmaps count, what they become, and which go.

use farshore_blocks::Sequence;
use farshore_provider::TrackingIdentity;

use super::{BitmapChange, BitmapStep, Position, ScanTruth, Truth};
use crate::source::{
    listing::{ListedBitmap, ListedDisk, Listing},
    naming::{BitmapBase, BitmapName, IdentityTag},
};

/// A bitmap of the right identity that can be used.
struct Usable<'a> {
    base: BitmapBase,
    bitmap: &'a ListedBitmap,
}

/// Judges the bitmaps of all disks: the steps, and what is known after them.
pub(super) fn judge(
    listing: &Listing,
    identity: TrackingIdentity,
    truth: Truth,
) -> (Vec<BitmapStep>, Position) {
    let identity = IdentityTag::of(identity);
    let mut why = "tracking begins afresh".to_owned();
    for candidate in candidates(listing, identity, truth) {
        let kept: Result<Vec<_>, _> = listing
            .disks
            .iter()
            .map(|disk| match keep(disk, identity, candidate) {
                Err(_) if listing.joining.contains(&disk.index) => Ok(afresh(disk, identity, candidate)),
                kept => kept,
            })
            .collect();
        match kept {
            Ok(steps) => {
                let mut steps: Vec<_> = steps.into_iter().flatten().collect();
                steps.extend(removal_of_strays(listing));
                return (steps, candidate.position());
            }
            Err(reason) => why = reason + &moved(listing, identity),
        }
    }
    (removal(listing), Position::Lost { why })
}

/// Removes every bitmap of ours.
pub(super) fn removal(listing: &Listing) -> Vec<BitmapStep> {
    let mut steps: Vec<_> = listing
        .disks
        .iter()
        .flat_map(|disk| {
            disk.bitmaps
                .iter()
                .map(|bitmap| step(disk, &bitmap.name, BitmapChange::Remove))
        })
        .collect();
    steps.extend(removal_of_strays(listing));
    steps
}

fn removal_of_strays(listing: &Listing) -> impl Iterator<Item = BitmapStep> {
    listing.strays.iter().map(|stray| BitmapStep {
        node: stray.node.clone(),
        name: stray.name.clone(),
        change: BitmapChange::Remove,
    })
}

/// What tracking might be good for.
#[derive(Clone, Copy)]
enum Candidate {
    Since(Sequence),
    Scan {
        next: Sequence,
        /// Rounds before it were shipped.
        from_round: u64,
        /// The youngest round, the same on all disks: what the others become part of.
        into_round: u64,
    },
}

impl Candidate {
    /// The bitmap that takes the others in.
    fn target(self) -> BitmapBase {
        match self {
            Self::Since(point) => BitmapBase::Since(point),
            Self::Scan { next, into_round, .. } => BitmapBase::Scan {
                next,
                round: into_round,
            },
        }
    }

    fn position(self) -> Position {
        match self {
            Self::Since(point) => Position::Since(point),
            Self::Scan { next, into_round, .. } => Position::Scan {
                next,
                round: into_round,
            },
        }
    }

    /// Whether a bitmap with this base knows changes that count.
    fn counts(self, base: BitmapBase) -> bool {
        match (self, base) {
            (Self::Since(newest), BitmapBase::Since(point)) => point >= newest,
            (Self::Since(_), BitmapBase::Scan { .. }) => false,
            (Self::Scan { next, .. }, BitmapBase::Since(point)) => point == next,
            (Self::Scan { next, from_round, .. }, BitmapBase::Scan { next: towards, round }) => {
                towards == next && round >= from_round
            }
        }
    }
}

/// The best first.
fn candidates(listing: &Listing, identity: IdentityTag, truth: Truth) -> Vec<Candidate> {
    let Truth::Replica { newest, scan } = truth else {
        return Vec::new();
    };
    let mut candidates = Vec::new();
    if let ScanTruth::Open { from_round } = scan {
        let next = newest.next();
        candidates.extend(
            youngest_round(listing, identity, next).map(|into_round| Candidate::Scan {
                next,
                from_round,
                into_round,
            }),
        );
    }
    if newest > Sequence(0) {
        candidates.push(Candidate::Since(newest));
    }
    candidates
}

/// Of the first disk; whether the others have it too is seen when they are judged.
fn youngest_round(listing: &Listing, identity: IdentityTag, next: Sequence) -> Option<u64> {
    let rounds = usable(listing.disks.first()?, identity).filter_map(|usable| match usable.base {
        BitmapBase::Scan { next: towards, round } if towards == next => Some(round),
        BitmapBase::Scan { .. } | BitmapBase::Since(_) => None,
    });
    rounds.max()
}

/// The bitmaps of the right identity that can be used.
fn usable<'a>(disk: &'a ListedDisk, identity: IdentityTag) -> impl Iterator<Item = Usable<'a>> {
    disk.bitmaps
        .iter()
        .filter(|bitmap| !bitmap.inconsistent)
        .filter_map(move |bitmap| {
            let name = BitmapName::parse(&bitmap.name)?;
            (name.identity == identity).then_some(Usable {
                base: name.base,
                bitmap,
            })
        })
}

/// The steps that leave this disk with one recording bitmap, or why it cannot have one.
fn keep(disk: &ListedDisk, identity: IdentityTag, candidate: Candidate) -> Result<Vec<BitmapStep>, String> {
    let base = candidate.target();
    let name = BitmapName { identity, base }.to_string();
    let counting: Vec<_> = usable(disk, identity)
        .filter(|usable| candidate.counts(usable.base))
        .collect();
    refuse_inconsistent(disk, identity, candidate)?;
    if !counting.iter().any(|usable| usable.base == base) {
        return Err(missing(disk, candidate));
    }
    if !counting.iter().any(|usable| usable.bitmap.recording) {
        return Err(format!(
            "no bitmap of disk `{}` records changes any more",
            disk.name
        ));
    }
    let mut steps = Vec::new();
    match disk.bitmaps.iter().find(|bitmap| bitmap.name == name) {
        Some(own) if own.recording => {}
        Some(_) => steps.push(step(disk, &name, BitmapChange::Enable)),
        // It has a name of an earlier version, and there is no renaming.
        None => steps.push(step(disk, &name, BitmapChange::Add(disk.bitmaps_survive))),
    }
    for other in counting.iter().filter(|usable| usable.bitmap.name != name) {
        let from = other.bitmap.name.clone();
        steps.push(step(disk, &name, BitmapChange::Merge { from }));
    }
    for other in disk.bitmaps.iter().filter(|bitmap| bitmap.name != name) {
        steps.push(step(disk, &other.name, BitmapChange::Remove));
    }
    Ok(steps)
}

/// The steps that leave this disk with one bitmap that knows nothing yet.
fn afresh(disk: &ListedDisk, identity: IdentityTag, candidate: Candidate) -> Vec<BitmapStep> {
    let base = candidate.target();
    let name = BitmapName { identity, base }.to_string();
    let mut steps: Vec<_> = disk
        .bitmaps
        .iter()
        .map(|bitmap| step(disk, &bitmap.name, BitmapChange::Remove))
        .collect();
    steps.push(step(disk, &name, BitmapChange::Add(disk.bitmaps_survive)));
    steps
}

/// A bitmap that would count, had the VM not been killed while it was open, may be the only one that knew something.
fn refuse_inconsistent(disk: &ListedDisk, identity: IdentityTag, candidate: Candidate) -> Result<(), String> {
    let broken = disk.bitmaps.iter().any(|bitmap| {
        bitmap.inconsistent
            && BitmapName::parse(&bitmap.name)
                .is_some_and(|name| name.identity == identity && candidate.counts(name.base))
    });
    if broken {
        return Err(format!(
            "a bitmap of disk `{}` is inconsistent: the VM was killed while it ran",
            disk.name
        ));
    }
    Ok(())
}

/// What a bitmap of this chain on a node of no disk tells.
fn moved(listing: &Listing, identity: IdentityTag) -> String {
    let strays = listing.strays.iter().chain(&listing.out_of_reach);
    let ours = |name: &str| BitmapName::parse(name).is_some_and(|name| name.identity == identity);
    let mut nodes = strays.filter(|stray| ours(&stray.name)).map(|stray| &stray.node);
    nodes.next().map_or_else(String::new, |node| {
        format!(
            " (one lies on node `{node}`, which is no disk's own any more: a snapshot was taken, or the disk was replaced)"
        )
    })
}

fn missing(disk: &ListedDisk, candidate: Candidate) -> String {
    let since = match candidate {
        Candidate::Since(point) => format!("point {point}"),
        Candidate::Scan { next, into_round, .. } => {
            format!("round {into_round} of the scan towards point {next}")
        }
    };
    format!(
        "disk `{}` has no bitmap since {since}: the VM was restarted without keeping it, or it never had one",
        disk.name
    )
}

fn step(disk: &ListedDisk, name: &str, change: BitmapChange) -> BitmapStep {
    BitmapStep {
        node: disk.data.clone(),
        name: name.to_owned(),
        change,
    }
}
