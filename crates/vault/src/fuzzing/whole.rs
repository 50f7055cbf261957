//! A whole vault with one damaged file: read, verified, opened for writing and written to.
//!
//! What damage alone does (bits, torn and misplaced bytes) must never give wrong data, and a verification must tell of
//! it. Where checksums were put right afterwards, the bytes are forged: then verification must tell, if the forgery is
//! in frames or in the index. A journal that is forged cannot be told from the truth.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use farshore_blocks::{ByteCount, ByteOffset, ChainId, Extent, Sequence, VolumeIndex};

use super::{damage::damaged, repair::repair, scratch::Scratch};
use crate::{BasePoint, ReadError, VaultError, VaultReader, verify};

mod writing;

const CHAIN: ChainId = ChainId::from_bytes([7; 16]);
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/v1");

/// The bytes of a point's volumes.
type Disks = Vec<Vec<u8>>;

/// The vault as it was made.
#[derive(Debug)]
struct Good {
    /// Paths in the vault, and contents.
    files: Vec<(PathBuf, Vec<u8>)>,
    points: Vec<(BasePoint, Disks)>,
    journal: Journal,
}

/// What the two copies of the journal hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Journal {
    /// The same, so that either may be lost.
    Mirrored,
    /// The mirror is behind, so that what the journal alone holds may be lost with it.
    Ahead,
}

/// What may be expected of a vault with that file damaged.
#[derive(Debug, Clone, Copy)]
struct Damage {
    done: Done,
    /// Whether it is a copy of the journal, and what the other one holds.
    journal: Option<Journal>,
}

/// What became of the damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Damaged,
    /// Damaged, and its checksums put right.
    Forged,
}

/// How a point reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Right,
    /// Some bytes, or all, are refused.
    Refused,
    Missing,
    Wrong,
}

/// Two bytes that say which file of which fixture is damaged, with bytes of which other and whether its checksums are
/// put right; and a script of damage (see [`damaged`]).
pub fn whole_vault(bytes: &[u8]) {
    let [Some(which), Some(how)] = [bytes.first(), bytes.get(1)] else {
        return;
    };
    let [open_cycle, power_cut] = good();
    let good = if *which < 128 { open_cycle } else { power_cut };
    let count = good.files.len();
    let file = |number: usize| {
        let file = number
            .checked_rem(count)
            .and_then(|number| good.files.get(number));
        file.expect("the fixture has files")
    };
    let (path, whole) = file(usize::from(*which % 128));
    let (_, donor) = file(usize::from(how >> 1));
    let mut changed = damaged(whole, donor, bytes.get(2..).unwrap_or_default());
    let mut done = Done::Damaged;
    if how % 2 == 1 {
        repair(&mut changed);
        done = Done::Forged;
    }
    if changed == *whole {
        done = Done::Damaged;
    }
    let scratch = Scratch::new();
    for (other, bytes) in &good.files {
        scratch.put(other, if other == path { &changed } else { bytes });
    }
    for directory in ["segments", "runs", "leases"] {
        let directory = scratch.path().join(format!("chains/{CHAIN}/{directory}"));
        fs::create_dir_all(directory).expect("there is room for scratch files");
    }
    let journal = path.starts_with("journal").then_some(good.journal);
    judge(scratch.path(), good, Damage { done, journal });
}

fn judge(vault: &Path, good: &Good, damage: Damage) {
    let shown = shown(vault, good, 0);
    damage.assert_honest(&shown);
    let all_right = shown.iter().all(|shown| *shown == Shown::Right);
    let found = match verify(vault, |_| ()) {
        Ok(report) => !report.is_clean(),
        Err(error) => {
            assert_placed(&error);
            true
        }
    };
    if damage.can_be_told() {
        assert!(
            found || all_right,
            "verification found nothing, but points read {shown:?}"
        );
    }
    writing::write(vault, good, damage);
}

impl Damage {
    /// Whether everything must be there all the same.
    fn loses_nothing(self) -> bool {
        self.done == Done::Damaged && self.journal == Some(Journal::Mirrored)
    }

    /// Whether a vault that lost something can know it: of a journal that was forged, or of records that were
    /// perhaps never acknowledged, nothing else tells.
    fn can_be_told(self) -> bool {
        self.journal.is_none() || self.loses_nothing()
    }

    fn assert_honest(self, shown: &[Shown]) {
        if self.done == Done::Damaged {
            let wrong = shown.contains(&Shown::Wrong);
            assert!(!wrong, "damage gave wrong data: {shown:?}");
        }
        let all_right = shown.iter().all(|shown| *shown == Shown::Right);
        assert!(
            all_right || !self.loses_nothing(),
            "one copy of the journal is enough, but points read {shown:?}"
        );
    }
}

/// How each of the good points reads. Other points, and other volumes, must not harm either.
fn shown(vault: &Path, good: &Good, pieces_bytes: u64) -> Vec<Shown> {
    let refused = vec![Shown::Refused; good.points.len()];
    let reader = match VaultReader::open(vault) {
        Ok(reader) => reader,
        Err(error) => {
            assert_placed(&error);
            return refused;
        }
    };
    let Ok(points) = reader.points(CHAIN) else {
        return refused;
    };
    for point in points.iter().take(64) {
        let _ = reader.gaps(CHAIN).and_then(|_| reader.pins(CHAIN));
        touch(&reader, point.sequence);
    }
    // A point that was lost may have given its place to another.
    let listed = |good| points.iter().any(|point| point.as_base() == good);
    let each = good.points.iter().map(|(point, disks)| {
        if listed(*point) {
            compare(&reader, point.sequence, disks, pieces_bytes)
        } else {
            Shown::Missing
        }
    });
    each.collect()
}

/// Reads the beginning and the end of every volume that the point says it has.
fn touch(reader: &VaultReader, point: Sequence) {
    let Ok(point) = reader.open_point(CHAIN, point) else {
        return;
    };
    for (number, volume) in (0..).zip(point.volumes()).take(8) {
        let last = ByteOffset(volume.size.0.saturating_sub(512));
        for offset in [ByteOffset(0), last] {
            let _ = point.read_at(VolumeIndex(number), offset, &mut [0; 512]);
            let extent = Extent::new(offset, ByteCount(512));
            let _ = extent.map(|extent| point.extents(VolumeIndex(number), extent));
        }
    }
}

fn compare(reader: &VaultReader, point: Sequence, disks: &Disks, pieces_bytes: u64) -> Shown {
    let opened = match reader.open_point(CHAIN, point) {
        Ok(opened) => opened,
        Err(error) => return refusal(&error),
    };
    let mut shown = Shown::Right;
    for (number, disk) in (0..).zip(disks) {
        for (piece, expected) in pieces(disk, pieces_bytes) {
            let mut bytes = vec![0xee; expected.len()];
            match opened.read_at(VolumeIndex(number), piece, &mut bytes) {
                Ok(()) if bytes == expected => {}
                Ok(()) => return Shown::Wrong,
                Err(error) => shown = refusal(&error),
            }
        }
    }
    shown
}

/// A disk in pieces of so many bytes; as one for 0.
fn pieces(disk: &[u8], bytes: u64) -> impl Iterator<Item = (ByteOffset, &[u8])> {
    let length = usize::try_from(bytes).ok().filter(|length| *length > 0);
    let mut at = 0;
    disk.chunks(length.unwrap_or(disk.len()).max(1))
        .map(move |piece| {
            let offset = ByteOffset(at);
            at = at.saturating_add(u64::try_from(piece.len()).unwrap_or(0));
            (offset, piece)
        })
}

/// An error must say which file is wrong, and where.
fn refusal(error: &ReadError) -> Shown {
    match error {
        ReadError::Vault(error) => assert_placed(error),
        ReadError::UnknownPoint { .. }
        | ReadError::UnknownVolume { .. }
        | ReadError::OutOfBounds { .. }
        | ReadError::Index { .. }
        | ReadError::Unreadable { .. } => {}
    }
    Shown::Refused
}

fn assert_placed(error: &VaultError) {
    let placed = matches!(error, VaultError::File(_) | VaultError::UnknownChain(_));
    assert!(placed, "an error names file and place: {error}");
}

fn good() -> &'static [Good; 2] {
    static GOOD: OnceLock<[Good; 2]> = OnceLock::new();
    GOOD.get_or_init(|| {
        [
            read_fixture("open-cycle", Journal::Mirrored),
            read_fixture("power-cut", Journal::Ahead),
        ]
    })
}

fn read_fixture(name: &str, journal: Journal) -> Good {
    let root = Path::new(FIXTURES).join(name);
    let mut files = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("the fixture is there") {
            let path = entry.expect("the fixture is there").path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let bytes = fs::read(&path).expect("the fixture is there");
                let inside = path.strip_prefix(&root).expect("it was found there");
                files.push((inside.to_owned(), bytes));
            }
        }
    }
    files.sort();
    let reader = VaultReader::open(&root).expect("the fixture is sound");
    let points = reader.points(CHAIN).expect("the fixture is sound");
    let points = points.iter().map(|point| {
        let disks = disks_of(&reader, point.sequence);
        (point.as_base(), disks.expect("the fixture is sound"))
    });
    let points = points.collect();
    Good {
        files,
        points,
        journal,
    }
}

fn disks_of(reader: &VaultReader, point: Sequence) -> Result<Disks, ReadError> {
    let opened = reader.open_point(CHAIN, point)?;
    let mut disks = Vec::new();
    for (number, volume) in (0..).zip(opened.volumes()) {
        let mut disk = vec![0; usize::try_from(volume.size.0).unwrap_or(0)];
        opened.read_at(VolumeIndex(number), ByteOffset(0), &mut disk)?;
        disks.push(disk);
    }
    Ok(disks)
}
