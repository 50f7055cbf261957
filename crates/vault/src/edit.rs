//! What can happen to a vault: each kind of edit is one kind of record in the journal, and the vault's state is
//! what the edits of its journal add up to.

pub(crate) mod codec;

use bytes::Bytes;
use farshore_blocks::{ChainId, Digest, Epoch, Incarnation, Sequence, clock::WallTime};

use crate::{
    format::Position,
    records::{ChainDescription, Gap, OpenCycle, Pin, PointRecord, VolumeDescription},
    retention::RetentionPolicy,
    tree::RunSummary,
};

/// One thing that happened to a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edit {
    /// A journal begins; its first batch adds up to the state that the journal before it ended with.
    Generation { incarnation: Incarnation },
    /// A machine's specification, which points name by its digest.
    Machine { digest: Digest, specification: Bytes },
    /// Something happened to a chain.
    Chain { chain: ChainId, edit: ChainEdit },
}

/// One thing that happened to a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChainEdit {
    Created(ChainDescription),
    Removed,
    EpochGranted(Epoch),
    /// A cycle was sealed; its frames end before `tail`.
    Sealed {
        point: Box<SealedPoint>,
        tail: Position,
    },
    /// The open cycle was given up, if there was one: the next one begins at `tail`.
    Abandoned {
        tail: Position,
    },
    /// Runs were added to the index, or replaced by the merged ones.
    Indexed(IndexChange),
    /// The frames of these segments and packs were carried over into a pack, or were all dead.
    Packed(PackChange),
    /// Points were dropped: all of those between two that stay.
    Dropped {
        first: Sequence,
        last: Sequence,
    },
    /// Points were dropped in an earlier journal.
    Gap(Gap),
    PinChanged {
        sequence: Sequence,
        pin: Option<Pin>,
    },
    RetentionSet(RetentionPolicy),
    /// The newest point was still what the source held then, by the vault's clock.
    StillValid {
        sequence: Sequence,
        at: WallTime,
    },
    /// The chain's numbers and places, where a journal begins.
    Layout(ChainLayoutWords),
    /// From this point on, which is not sealed yet, the chain has these volumes.
    VolumesSet {
        from: Sequence,
        volumes: Vec<VolumeDescription>,
    },
    /// Where the groups of points end in segments that will hold no more of them. A chain of which this is known from
    /// its beginning keeps in its files all that its index says.
    Ended(Vec<Position>),
}

/// A point as its record has it: the machine's specification by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealedPoint {
    /// Its machine's specification is empty here.
    pub(crate) record: PointRecord,
    pub(crate) machine: Digest,
}

/// A change of the chain's runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct IndexChange {
    /// They take the place of the removed ones, or come behind all others.
    pub(crate) added: Vec<RunSummary>,
    pub(crate) removed: Vec<u64>,
    /// All groups before it are in the runs, where that changed.
    pub(crate) indexed_through: Option<Position>,
    /// The cycle that was open there.
    pub(crate) open: Option<OpenCycle>,
    /// The points up to this one were thinned by the merge, where that changed.
    pub(crate) settled_through: Option<Sequence>,
}

/// A change of the chain's files of frames.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PackChange {
    /// The segments whose frames moved or died.
    pub(crate) segments: Vec<u32>,
    /// The packs whose frames moved or died.
    pub(crate) packs: Vec<u32>,
    /// Where the live frames are now; none if there were none.
    pub(crate) into: Option<u32>,
    /// The segments, by their own numbers or by those that the packs held, that `into` holds frames of.
    pub(crate) holds: Vec<u32>,
}

/// What a journal's beginning has to say of a chain beside its points, gaps, runs and pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChainLayoutWords {
    pub(crate) tail: Position,
    pub(crate) indexed_through: Position,
    pub(crate) open: Option<OpenCycle>,
    pub(crate) settled_through: Sequence,
    pub(crate) segments: Vec<u32>,
    /// Each pack with the segments that it holds frames of.
    pub(crate) packs: Vec<(u32, Vec<u32>)>,
    pub(crate) next_run: u64,
    pub(crate) next_pack: u32,
}

impl From<(ChainId, ChainEdit)> for Edit {
    fn from((chain, edit): (ChainId, ChainEdit)) -> Self {
        Self::Chain { chain, edit }
    }
}
