//! What a disk holds after a power cut: what was synced for certain, and of the rest whatever the loss says.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::recording::Operation;
use crate::storage::Content;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// What the files of a directory hold; `None` is a directory.
pub(super) type Image = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// What becomes of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// All of it is gone: names and bytes.
    Everything,
    /// Nothing is gone: the process was killed, not the power.
    Nothing,
    /// Names and removals are there, bytes are not.
    Bytes,
    /// Names and lengths are there, but the bytes are zeroes.
    Zeroes,
    /// Some names and some writes are there, in any order, the last of them torn.
    Some(u64),
}

/// A disk behind a cache.
#[derive(Debug, Default)]
pub(super) struct Disk {
    visible: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    files: Vec<CachedFile>,
    replaces: Replaces,
}

/// Whether replacing a file syncs, as it should.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replaces {
    #[default]
    Synced,
    NotSynced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    File(usize),
}

#[derive(Debug, Default)]
struct CachedFile {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    SetLength(u64),
}

impl Disk {
    /// A disk that durably holds `image`.
    pub(super) fn holding(image: &Image, replaces: Replaces) -> Self {
        let mut disk = Self {
            replaces,
            ..Self::default()
        };
        for (path, content) in image {
            let node = match content {
                None => Node::Directory,
                Some(bytes) => disk.new_file(bytes.clone()),
            };
            disk.visible.insert(path.clone(), node);
        }
        disk.durable = disk.visible.clone();
        disk
    }

    fn new_file(&mut self, durable: Vec<u8>) -> Node {
        self.files.push(CachedFile {
            durable,
            pending: Vec::new(),
        });
        Node::File(self.files.len() - 1)
    }

    fn file(&mut self, path: &Path) -> &mut CachedFile {
        match self.visible.get(path) {
            Some(Node::File(number)) => &mut self.files[*number],
            other => panic!("{} is {other:?}", path.display()),
        }
    }

    pub(super) fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::CreateDirectory(path) => {
                self.visible.insert(path.clone(), Node::Directory);
            }
            Operation::OpenFile(path, content) => {
                if !self.visible.contains_key(path) {
                    let node = self.new_file(Vec::new());
                    self.visible.insert(path.clone(), node);
                } else if *content == Content::Dropped {
                    self.file(path).pending.push(Change::SetLength(0));
                }
            }
            Operation::Write(path, position, bytes) => {
                self.file(path)
                    .pending
                    .push(Change::Write(*position, bytes.clone()));
            }
            Operation::SetLength(path, length) => self.file(path).pending.push(Change::SetLength(*length)),
            Operation::Sync(path) => {
                let file = self.file(path);
                for change in std::mem::take(&mut file.pending) {
                    change.apply(&mut file.durable);
                }
            }
            Operation::SyncFailed(path) => self.file(path).pending.clear(),
            Operation::Replace(path, content) => self.replace(path, content),
            Operation::Remove(path) => {
                self.visible.remove(path);
            }
            Operation::SyncDirectory(path) => self.sync_directory(path),
        }
    }

    fn replace(&mut self, path: &Path, content: &[u8]) {
        let node = self.new_file(content.to_vec());
        self.visible.insert(path.to_owned(), node);
        if self.replaces == Replaces::Synced {
            self.sync_directory(path.parent().unwrap());
        }
    }

    fn sync_directory(&mut self, directory: &Path) {
        let inside = |path: &PathBuf| path.parent() == Some(directory);
        self.durable.retain(|path, _| !inside(path));
        let entries = self.visible.iter().filter(|(path, _)| inside(path));
        self.durable
            .extend(entries.map(|(path, node)| (path.clone(), *node)));
    }

    /// What is found after the power cut.
    pub(super) fn after(&self, loss: Loss) -> Image {
        let mut dice = Dice(match loss {
            Loss::Some(seed) => seed,
            Loss::Everything | Loss::Nothing | Loss::Bytes | Loss::Zeroes => 0,
        });
        let mut image = Image::new();
        for (path, node) in self.surviving_names(loss, &mut dice) {
            let parent = path.parent().unwrap();
            // What lies in a directory that is gone is gone. Parents come before what they hold.
            if parent != Path::new("") && !image.contains_key(parent) {
                continue;
            }
            let content = match node {
                Node::Directory => None,
                Node::File(number) => Some(self.files[number].after(loss, &mut dice)),
            };
            image.insert(path, content);
        }
        image
    }

    fn surviving_names(&self, loss: Loss, dice: &mut Dice) -> BTreeMap<PathBuf, Node> {
        match loss {
            Loss::Everything => self.durable.clone(),
            Loss::Nothing | Loss::Bytes | Loss::Zeroes => self.visible.clone(),
            Loss::Some(_) => {
                let mut names = BTreeMap::new();
                for path in self.durable.keys().chain(self.visible.keys()) {
                    let (old, new) = (self.durable.get(path), self.visible.get(path));
                    let survivor = if dice.heads() { new } else { old };
                    names.extend(survivor.map(|node| (path.clone(), *node)));
                }
                names
            }
        }
    }
}

impl CachedFile {
    fn after(&self, loss: Loss, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in &self.pending {
            let mut change = change.clone();
            match (loss, &mut change) {
                (Loss::Everything | Loss::Bytes, _) => continue,
                (Loss::Nothing, _) | (Loss::Zeroes, Change::SetLength(_)) => {}
                (Loss::Zeroes, Change::Write(_, written)) => written.fill(0),
                (Loss::Some(_), change) => {
                    if dice.heads() {
                        continue;
                    }
                    if let Change::Write(position, written) = change
                        && dice.heads()
                    {
                        tear(&mut bytes, *position, written, dice);
                        continue;
                    }
                }
            }
            change.apply(&mut bytes);
        }
        bytes
    }
}

/// Lets some sectors of a write reach the disk, and others not.
fn tear(bytes: &mut Vec<u8>, position: u64, written: &[u8], dice: &mut Dice) {
    for (number, sector) in written.chunks(SECTOR_BYTES).enumerate() {
        if dice.heads() {
            let position = position + (number * SECTOR_BYTES) as u64;
            Change::Write(position, sector.to_vec()).apply(bytes);
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(position, written) => {
                let start = usize::try_from(*position).unwrap();
                let end = start + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(written);
            }
            Self::SetLength(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
        }
    }
}

/// Puts an image into an empty directory.
pub(super) fn materialize(image: &Image, root: &Path) {
    for (path, content) in image {
        if path.as_os_str().is_empty() {
            continue;
        }
        let path = root.join(path);
        match content {
            None => fs::create_dir(&path).unwrap(),
            Some(bytes) => fs::write(&path, bytes).unwrap(),
        }
    }
}

/// Chance that can be repeated (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn heads(&mut self) -> bool {
        self.next() & 1 == 1
    }
}
