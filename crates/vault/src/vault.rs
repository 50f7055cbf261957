//! The vault as its one writing process has it: creating and opening it, its chains, and their epochs.
//!
//! Crash story: `head` is written last when a vault is created and `description` last when a chain is, so a
//! directory without them is what a crash left of a creation, and the creation can be repeated.

mod directory;
mod error;

use std::{
    collections::BTreeMap,
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use farshore_blocks::{ByteCount, ChainId, Epoch, HolderNonce, Incarnation, clock::WallTime};

pub(crate) use directory::read_head;
use directory::{bytes_below, parent_of, refuse_foreign_content, take_lock};
pub use error::VaultError;

use crate::{
    damage::{FileError, read_record},
    fence::Fence,
    format::{Head, Identity, RecordKind, encode_record},
    layout::{ChainLayout, VaultLayout},
    reader::{VaultReader, list_chains},
    records::ChainDescription,
    storage::{Content, Disk, LocalStorage, Storage, StorageError},
    writer::ChainWriter,
};

/// The most bytes of a segment: 256 MiB.
pub(crate) const SEGMENT_LIMIT_BYTES: u32 = 256 * 1024 * 1024;

/// A vault, open for writing. Cloning gives another handle to the same open vault; the last one to go gives
/// the lock back.
#[derive(Debug, Clone)]
pub struct Vault {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    layout: VaultLayout,
    head: Head,
    disk: Disk,
    segment_limit: u32,
    chains: Mutex<BTreeMap<ChainId, Arc<ChainState>>>,
    _lock: File,
}

/// What all handles to one chain share.
#[derive(Debug)]
pub(crate) struct ChainState {
    pub(crate) identity: Identity,
    pub(crate) layout: ChainLayout,
    pub(crate) description: ChainDescription,
    pub(crate) disk: Disk,
    pub(crate) segment_limit: u32,
    pub(crate) fence: Fence,
    pub(crate) has_writer: AtomicBool,
}

impl Vault {
    /// Makes a new vault in `path`, which must be empty or not exist, and opens it.
    ///
    /// # Errors
    /// When there is something there already, or the file system fails.
    pub fn create(path: &Path) -> Result<Self, VaultError> {
        Self::create_on(path, Arc::new(LocalStorage), SEGMENT_LIMIT_BYTES)
    }

    /// Opens a vault for writing.
    ///
    /// # Errors
    /// When it is no vault, is damaged, or is open for writing already.
    pub fn open(path: &Path) -> Result<Self, VaultError> {
        Self::open_on(path, Arc::new(LocalStorage), SEGMENT_LIMIT_BYTES)
    }

    pub(crate) fn create_on(
        path: &Path,
        storage: Arc<dyn Storage>,
        segment_limit: u32,
    ) -> Result<Self, VaultError> {
        let layout = VaultLayout::new(path);
        let disk = Disk::new(storage);
        disk.create_directory(path)?;
        disk.sync_directory(parent_of(path))?;
        refuse_foreign_content(path)?;
        // The lock comes before the head: of two that create at once, one finds the other's vault.
        let lock = take_lock(&layout)?;
        refuse_foreign_content(path)?;
        disk.create_directory(&layout.chains())?;
        let head = Head {
            incarnation: Incarnation::random().map_err(VaultError::Randomness)?,
            created_at: WallTime::now(),
        };
        disk.replace_file(&layout.head(), &head.encode())?;
        Ok(Self::assemble(layout, head, disk, segment_limit, lock))
    }

    pub(crate) fn open_on(
        path: &Path,
        storage: Arc<dyn Storage>,
        segment_limit: u32,
    ) -> Result<Self, VaultError> {
        let layout = VaultLayout::new(path);
        let head = read_head(&layout)?;
        let lock = take_lock(&layout)?;
        Ok(Self::assemble(
            layout,
            head,
            Disk::new(storage),
            segment_limit,
            lock,
        ))
    }

    fn assemble(layout: VaultLayout, head: Head, disk: Disk, segment_limit: u32, lock: File) -> Self {
        Self {
            shared: Arc::new(Shared {
                layout,
                head,
                disk,
                segment_limit,
                chains: Mutex::new(BTreeMap::new()),
                _lock: lock,
            }),
        }
    }

    /// The random identity of this vault's life.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.shared.head.incarnation
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.shared.layout.root()
    }

    /// A reader of the same vault.
    #[must_use]
    pub fn reader(&self) -> VaultReader {
        VaultReader::new(self.shared.layout.clone(), self.shared.head)
    }

    /// All chains and what they protect.
    ///
    /// # Errors
    /// When a description is damaged or the directory cannot be read.
    pub fn chains(&self) -> Result<Vec<(ChainId, ChainDescription)>, VaultError> {
        list_chains(&self.shared.layout, self.incarnation())
    }

    /// How many bytes its files hold.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn used_bytes(&self) -> Result<ByteCount, VaultError> {
        Ok(bytes_below(self.path())?)
    }

    /// How many bytes its file system still takes from this user.
    ///
    /// # Errors
    /// When the file system does not answer.
    pub fn free_bytes(&self) -> Result<ByteCount, VaultError> {
        let path = self.path();
        let answer = rustix::fs::statvfs(path)
            .map_err(|error| StorageError::new("ask the free space of", path, error.into()))?;
        Ok(ByteCount(answer.f_bavail.saturating_mul(answer.f_frsize)))
    }

    /// Creates a chain; one that exists with the same description is left as it is.
    ///
    /// # Errors
    /// When it exists with another description, or the file system fails.
    pub fn create_chain(&self, chain: ChainId, description: &ChainDescription) -> Result<(), VaultError> {
        check_description(description)?;
        // Held throughout, so that two creations of one chain do not meet.
        let _chains = self.shared.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let layout = self.shared.layout.chain(chain);
        let identity = self.identity(chain);
        let existing: Option<ChainDescription> =
            read_record(&layout.description(), RecordKind::Description, identity)?;
        match existing {
            // It may be there since a creation that failed while making it durable.
            Some(existing) if existing == *description => {
                Ok(self.shared.disk.sync_directory(layout.root())?)
            }
            Some(existing) => Err(VaultError::ChainDiffers {
                chain,
                existing: Box::new(existing),
            }),
            None => self.write_chain(&layout, identity, description),
        }
    }

    fn write_chain(
        &self,
        layout: &ChainLayout,
        identity: Identity,
        description: &ChainDescription,
    ) -> Result<(), VaultError> {
        let disk = &self.shared.disk;
        let record = encode_record(RecordKind::Description, identity, 0, description)
            .map_err(|error| FileError::damaged(&layout.description(), 0, error))?;
        disk.create_directory(layout.root())?;
        disk.sync_directory(&self.shared.layout.chains())?;
        disk.create_directory(&layout.segments())?;
        disk.create_directory(&layout.runs())?;
        disk.open_file(&layout.points(), Content::Dropped)?.sync()?;
        disk.sync_directory(layout.root())?;
        disk.replace_file(&layout.description(), &record)?;
        Ok(())
    }

    /// Grants the chain's next epoch to `holder`, durably. This is the fence: from its return on, no write under
    /// an older epoch lands. Who holds the newest epoch already is given the same again.
    ///
    /// # Errors
    /// When there is no such chain, or the file system fails; then nobody has been fenced.
    pub fn grant_epoch(&self, chain: ChainId, holder: HolderNonce) -> Result<Epoch, VaultError> {
        Ok(self.chain_state(chain)?.fence.grant(holder)?)
    }

    /// The chain's newest epoch, if one was ever granted.
    ///
    /// # Errors
    /// When there is no such chain, or it is damaged.
    pub fn current_epoch(&self, chain: ChainId) -> Result<Option<Epoch>, VaultError> {
        Ok(self.chain_state(chain)?.fence.current())
    }

    /// The chain's one writer; what a crash left is put in order first.
    ///
    /// # Errors
    /// When there is no such chain, it is damaged, or it has a writer.
    pub fn chain_writer(&self, chain: ChainId) -> Result<ChainWriter, VaultError> {
        let state = self.chain_state(chain)?;
        if state.has_writer.swap(true, Ordering::AcqRel) {
            return Err(VaultError::WriterTaken(chain));
        }
        ChainWriter::open(WriterTenure {
            vault: self.clone(),
            state,
        })
        .map_err(VaultError::File)
    }

    fn identity(&self, chain: ChainId) -> Identity {
        Identity {
            incarnation: self.incarnation(),
            chain,
        }
    }

    fn chain_state(&self, chain: ChainId) -> Result<Arc<ChainState>, VaultError> {
        let mut chains = self.shared.chains.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = chains.get(&chain) {
            return Ok(Arc::clone(state));
        }
        let layout = self.shared.layout.chain(chain);
        let identity = self.identity(chain);
        let description = read_record(&layout.description(), RecordKind::Description, identity)?
            .ok_or(VaultError::UnknownChain(chain))?;
        let disk = self.shared.disk.clone();
        let state = Arc::new(ChainState {
            identity,
            description,
            fence: Fence::load(layout.root(), layout.epoch(), identity, disk.clone())?,
            layout,
            disk,
            segment_limit: self.shared.segment_limit,
            has_writer: AtomicBool::new(false),
        });
        chains.insert(chain, Arc::clone(&state));
        Ok(state)
    }
}

/// The right to be a chain's one writer, given back when dropped. It keeps the vault locked.
#[derive(Debug)]
pub(crate) struct WriterTenure {
    #[expect(dead_code, reason = "it is held for its lock")]
    vault: Vault,
    pub(crate) state: Arc<ChainState>,
}

impl Drop for WriterTenure {
    fn drop(&mut self) {
        self.state.has_writer.store(false, Ordering::Release);
    }
}

fn check_description(description: &ChainDescription) -> Result<(), VaultError> {
    let volumes = &description.volumes;
    let names: std::collections::BTreeSet<_> = volumes.iter().map(|volume| &volume.name).collect();
    let each = volumes
        .iter()
        .all(|volume| volume.size.0 > 0 && !volume.name.is_empty());
    if each && names.len() == volumes.len() && (1..=1024).contains(&volumes.len()) {
        Ok(())
    } else {
        Err(VaultError::DescriptionRefused)
    }
}
