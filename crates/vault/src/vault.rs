//! The vault as its one writing process has it: creating and opening it, its chains, and their epochs.
//!
//! Crash story: `head` is written last when a vault is created, so a directory without it is what a crash left of a
//! creation, and the creation can be repeated. A chain exists once the journal says so.

mod directory;
mod error;

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use farshore_blocks::{ByteCount, ChainId, Epoch, HolderNonce, Incarnation, Sequence};

pub(crate) use directory::read_head;
use directory::{bytes_below, parent_of, refuse_foreign_content, take_lock, write_head};
pub use error::VaultError;

use crate::{
    edit::{ChainEdit, Edit},
    fence::Fence,
    format::{Head, Identity, Position},
    journal::{Committer, Journal, SMALLEST_TO_ROTATE_BYTES},
    layout::{ChainLayout, VaultLayout},
    reader::VaultReader,
    records::{ChainDescription, MOST_VOLUMES, PointRecord},
    state::{ChainState, VaultState},
    storage::{Disk, LocalStorage, Storage, StorageError},
    writer::{ChainWriter, FlushLimits},
};

/// The most bytes of a segment: 256 MiB.
const SEGMENT_LIMIT_BYTES: u32 = 256 * 1024 * 1024;

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
    limits: Limits,
    committer: Arc<Committer>,
    opened: Opened,
    chains: Mutex<BTreeMap<ChainId, Arc<ChainHandle>>>,
    _lock: File,
}

/// What kind of life a vault began when it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// It is where it always was.
    AsItWas,
    /// It is a copy, or was restored from one: it has a new incarnation, and no source may take it for the one that
    /// it knew.
    AsACopy {
        /// The incarnation of the vault that it is a copy of.
        of: Incarnation,
    },
}

/// When files and memory are full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) segment_bytes: u32,
    pub(crate) journal_bytes: u64,
    pub(crate) flush: FlushLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_LIMIT_BYTES,
            journal_bytes: SMALLEST_TO_ROTATE_BYTES,
            flush: FlushLimits::default(),
        }
    }
}

/// What all handles to one chain share.
#[derive(Debug)]
pub(crate) struct ChainHandle {
    pub(crate) identity: Identity,
    pub(crate) layout: ChainLayout,
    /// As it was when the handle was made.
    description: ChainDescription,
    pub(crate) disk: Disk,
    pub(crate) committer: Arc<Committer>,
    pub(crate) segment_limit: u32,
    pub(crate) flush_limits: FlushLimits,
    pub(crate) fence: Fence,
    pub(crate) has_writer: AtomicBool,
    /// Held by whoever drops or pins points, so that what is committed fits what was looked at.
    pub(crate) retention: Mutex<()>,
    /// Held by whoever makes or removes files that the journal does not name. It has those that the journal names no
    /// longer and that had to stay because somebody read everything.
    pub(crate) maintenance: Mutex<Vec<PathBuf>>,
    /// Held by whoever writes recent entries down as runs. The chain's writer has those of sealed points in memory:
    /// up to this one, maintenance has written them down since.
    pub(crate) flushed: Mutex<Sequence>,
    next_run: AtomicU64,
}

impl ChainHandle {
    /// The chain as the journal tells it, now.
    pub(crate) fn state(&self) -> ChainState {
        let state = self.committer.state();
        let chain = state.chain(self.identity.chain).cloned();
        chain.unwrap_or_else(|| ChainState::new(self.description.clone()))
    }

    /// Its newest point.
    pub(crate) fn newest(&self) -> Option<Arc<PointRecord>> {
        let state = self.committer.state();
        state.chain(self.identity.chain)?.newest().cloned()
    }

    /// Where the frames of its sealed points end.
    pub(crate) fn tail(&self) -> Position {
        let state = self.committer.state();
        state
            .chain(self.identity.chain)
            .map_or(Position::START, |chain| chain.tail)
    }

    /// A number that no run of the chain has.
    pub(crate) fn fresh_run(&self) -> u64 {
        self.next_run.fetch_add(1, Ordering::Relaxed)
    }
}

impl Vault {
    /// Makes a new vault in `path`, which must be empty or not exist, and opens it.
    ///
    /// # Errors
    /// When there is something there already, or the file system fails.
    pub fn create(path: &Path) -> Result<Self, VaultError> {
        Self::create_on(path, Arc::new(LocalStorage), Limits::default())
    }

    /// Opens a vault for writing. A vault that was copied or restored takes a new incarnation first.
    ///
    /// # Errors
    /// When it is no vault, is damaged, or is open for writing already.
    pub fn open(path: &Path) -> Result<Self, VaultError> {
        Self::open_on(path, Arc::new(LocalStorage), Limits::default())
    }

    pub(crate) fn create_on(
        path: &Path,
        storage: Arc<dyn Storage>,
        limits: Limits,
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
        disk.create_directory(&layout.journals())?;
        let incarnation = Incarnation::random().map_err(VaultError::Randomness)?;
        let mut state = VaultState::default();
        state.incarnation = Some(incarnation);
        let journal = Journal::create(&disk, &layout, incarnation, &state)?;
        let head = write_head(&disk, &layout, incarnation, incarnation)?;
        let committer = Arc::new(Committer::new(journal.rotating_at(limits.journal_bytes), state));
        let opened = Opened::AsItWas;
        Ok(Self::assemble(Shared {
            layout,
            head,
            disk,
            limits,
            committer,
            opened,
            chains: Mutex::default(),
            _lock: lock,
        }))
    }

    pub(crate) fn open_on(
        path: &Path,
        storage: Arc<dyn Storage>,
        limits: Limits,
    ) -> Result<Self, VaultError> {
        let layout = VaultLayout::new(path);
        let disk = Disk::new(storage);
        read_head(&layout)?;
        let lock = take_lock(&layout)?;
        let mut head = read_head(&layout)?;
        let mut opened = Opened::AsItWas;
        if disk.identity_of(&layout.head())? != head.file {
            opened = Opened::AsACopy { of: head.incarnation };
            let incarnation = Incarnation::random().map_err(VaultError::Randomness)?;
            head = write_head(&disk, &layout, head.vault, incarnation)?;
        }
        let (journal, state) = Journal::open(&disk, &layout, head.vault)?;
        Ok(Self::assemble(Shared {
            layout,
            head,
            disk,
            limits,
            committer: Arc::new(Committer::new(journal.rotating_at(limits.journal_bytes), state)),
            opened,
            chains: Mutex::default(),
            _lock: lock,
        }))
    }

    fn assemble(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
        }
    }

    /// What kind of life the vault began when it was opened.
    #[must_use]
    pub fn opened(&self) -> Opened {
        self.shared.opened
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
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn reader(&self) -> Result<VaultReader, VaultError> {
        VaultReader::new(self.shared.layout.clone(), self.shared.head)
    }

    /// All chains and what they protect.
    #[must_use]
    pub fn chains(&self) -> Vec<(ChainId, ChainDescription)> {
        let state = self.shared.committer.state();
        let chains = state.chains();
        chains
            .map(|(chain, state)| (chain, (**state.descriptions.latest()).clone()))
            .collect()
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

    /// Creates a chain; one that exists for this VM and volumes of these names is left as it is. How large its volumes
    /// are is then for its writer to say.
    ///
    /// # Errors
    /// When it exists for another VM or other volumes, or the file system fails.
    pub fn create_chain(&self, chain: ChainId, description: &ChainDescription) -> Result<(), VaultError> {
        check_description(description)?;
        // Held throughout, so that two creations of one chain do not meet.
        let _chains = self.shared.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let existing = {
            let state = self.shared.committer.state();
            state
                .chain(chain)
                .map(|state| Arc::clone(state.descriptions.latest()))
        };
        match existing {
            Some(existing) if protects_the_same(&existing, description) => {
                Ok(self.shared.committer.confirm()?)
            }
            Some(existing) => Err(VaultError::ChainDiffers {
                chain,
                existing: Box::new((*existing).clone()),
            }),
            None => self.make_chain(chain, description),
        }
    }

    /// The directories come first: a chain of the journal has them.
    fn make_chain(&self, chain: ChainId, description: &ChainDescription) -> Result<(), VaultError> {
        let disk = &self.shared.disk;
        let layout = self.shared.layout.chain(chain);
        disk.create_directory(layout.root())?;
        disk.sync_directory(&self.shared.layout.chains())?;
        for directory in [layout.segments(), layout.runs(), layout.leases()] {
            disk.create_directory(&directory)?;
        }
        disk.sync_directory(layout.root())?;
        let created = ChainEdit::Created(description.clone());
        let edits = [created, ChainEdit::Ended(Vec::new())];
        let edits = edits.into_iter().map(|edit| Edit::from((chain, edit)));
        let committed = self.shared.committer.commit(edits.collect());
        Ok(committed.map_err(StorageError::from)?)
    }

    /// Grants the chain's next epoch to `holder`, durably. This is the fence: from its return on, no write under
    /// an older epoch lands. Who holds the newest epoch already is given the same again.
    ///
    /// # Errors
    /// When there is no such chain, or the file system fails; then nobody has been fenced.
    pub fn grant_epoch(&self, chain: ChainId, holder: HolderNonce) -> Result<Epoch, VaultError> {
        Ok(self.chain_handle(chain)?.fence.grant(holder)?)
    }

    /// The chain's newest epoch, if one was ever granted.
    ///
    /// # Errors
    /// When there is no such chain, or it is damaged.
    pub fn current_epoch(&self, chain: ChainId) -> Result<Option<Epoch>, VaultError> {
        Ok(self.chain_handle(chain)?.fence.current())
    }

    /// The chain's one writer; what a crash left is put in order first.
    ///
    /// # Errors
    /// When there is no such chain, it is damaged, or it has a writer.
    pub fn chain_writer(&self, chain: ChainId) -> Result<ChainWriter, VaultError> {
        let handle = self.chain_handle(chain)?;
        if handle.has_writer.swap(true, Ordering::AcqRel) {
            return Err(VaultError::WriterTaken(chain));
        }
        ChainWriter::open(WriterTenure {
            vault: self.clone(),
            chain: handle,
        })
        .map_err(VaultError::File)
    }

    pub(crate) fn chain_handle(&self, chain: ChainId) -> Result<Arc<ChainHandle>, VaultError> {
        let mut chains = self.shared.chains.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = chains.get(&chain) {
            return Ok(Arc::clone(handle));
        }
        let shared = &self.shared;
        let state = shared.committer.state();
        let known = state.chain(chain).ok_or(VaultError::UnknownChain(chain))?;
        let handle = Arc::new(ChainHandle {
            identity: Identity {
                vault: shared.head.vault,
                chain,
            },
            layout: shared.layout.chain(chain),
            description: known.descriptions.first().clone(),
            disk: shared.disk.clone(),
            committer: Arc::clone(&shared.committer),
            segment_limit: shared.limits.segment_bytes,
            flush_limits: shared.limits.flush,
            fence: Fence::new(chain, Arc::clone(&shared.committer), known.epoch),
            has_writer: AtomicBool::new(false),
            retention: Mutex::default(),
            maintenance: Mutex::default(),
            flushed: Mutex::default(),
            next_run: AtomicU64::new(known.next_run),
        });
        drop(state);
        chains.insert(chain, Arc::clone(&handle));
        Ok(handle)
    }
}

/// The right to be a chain's one writer, given back when dropped. It keeps the vault locked.
#[derive(Debug)]
pub(crate) struct WriterTenure {
    #[expect(dead_code, reason = "it is held for its lock")]
    vault: Vault,
    pub(crate) chain: Arc<ChainHandle>,
}

impl Drop for WriterTenure {
    fn drop(&mut self) {
        self.chain.has_writer.store(false, Ordering::Release);
    }
}

fn protects_the_same(existing: &ChainDescription, asked: &ChainDescription) -> bool {
    let there = existing.volumes.iter().filter(|volume| volume.is_there());
    existing.vm == asked.vm
        && there
            .map(|volume| &volume.name)
            .eq(asked.volumes.iter().map(|volume| &volume.name))
}

fn check_description(description: &ChainDescription) -> Result<(), VaultError> {
    let volumes = &description.volumes;
    let names: std::collections::BTreeSet<_> = volumes.iter().map(|volume| &volume.name).collect();
    let each = volumes
        .iter()
        .all(|volume| volume.size.0 > 0 && !volume.name.is_empty());
    if each && names.len() == volumes.len() && (1..=MOST_VOLUMES).contains(&volumes.len()) {
        Ok(())
    } else {
        Err(VaultError::DescriptionRefused)
    }
}
