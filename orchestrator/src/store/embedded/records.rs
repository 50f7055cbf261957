//! Decides how records lie in sled: one tree, the key as it is, the value as 8 bytes of version (big-endian)
//! followed by the document. Two keys that begin with a zero byte hold the format and the revision.
//!
//! A file beside sled's directory says that the store was made once: sled takes some damages for an empty
//! database, and what was lost must not look like a fresh start.

use std::{
    collections::BTreeMap,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use farshore_blocks::files::{replace_file, sync_directory_of};

use super::super::{Content, Key, Revision, StoreError, Stored, content::Delta};

const FORMAT_KEY: &[u8] = b"\0format";
const FORMAT: &[u8] = b"farshore-state-1";
/// sled's own directory.
const ENGINE_DIRECTORY: &str = "records";
/// There is one once the store was made; it holds the format, for people.
const MARKER_FILE: &str = "format";
const REVISION_KEY: &[u8] = b"\0revision";
/// How many bytes of sled's pages stay in memory: the records are there already, in order.
const CACHE_BYTES: u64 = 16 << 20;

pub(super) struct Records {
    database: sled::Db,
    directory: PathBuf,
}

impl Records {
    /// sled panics on some damages instead of telling them; both end as the same error.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        let refused = |message: String| StoreError::Open {
            path: directory.to_owned(),
            message,
        };
        fs::create_dir_all(directory).map_err(|error| refused(error.to_string()))?;
        let configuration = sled::Config::new()
            .path(directory.join(ENGINE_DIRECTORY))
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(500));
        let opened = catch_unwind(AssertUnwindSafe(|| configuration.open()));
        let database = match opened {
            Ok(Ok(database)) => database,
            Ok(Err(error)) => return Err(refused(error.to_string())),
            Err(_) => return Err(refused("it is damaged, the engine gave up on it".to_owned())),
        };
        let directory = directory.to_owned();
        Ok(Self { database, directory })
    }

    /// sled's file, which has to be synced by us.
    pub(super) fn file(&self) -> PathBuf {
        self.directory.join(ENGINE_DIRECTORY).join("db")
    }

    pub(super) fn load(&self) -> Result<Content, String> {
        let told = |error: sled::Error| error.to_string();
        let marker = self.directory.join(MARKER_FILE);
        let was_made = marker.try_exists().map_err(|error| error.to_string())?;
        match self.database.get(FORMAT_KEY).map_err(told)? {
            Some(format) if format.as_ref() == FORMAT => {}
            Some(format) => {
                return Err(format!(
                    "it is of the format `{}`, this version knows `{}`",
                    String::from_utf8_lossy(&format),
                    String::from_utf8_lossy(FORMAT)
                ));
            }
            None if was_made => return Err("it is damaged, its records are gone".to_owned()),
            None if self.database.is_empty() => {
                self.database.insert(FORMAT_KEY, FORMAT).map_err(told)?;
                self.database.flush().map_err(told)?;
            }
            None => return Err("it is not a state store of farshore".to_owned()),
        }
        self.sync_all().map_err(|error| error.to_string())?;
        if !was_made {
            replace_file(&marker, FORMAT).map_err(|error| error.to_string())?;
        }
        self.read_all()
    }

    /// Makes sled's file and the directory entries that lead to it durable.
    fn sync_all(&self) -> io::Result<()> {
        let file = self.file();
        fs::File::open(&file)?.sync_all()?;
        sync_directory_of(&file)?;
        sync_directory_of(&self.directory.join(ENGINE_DIRECTORY))?;
        sync_directory_of(&self.directory)
    }

    fn read_all(&self) -> Result<Content, String> {
        let told = |error: sled::Error| error.to_string();
        let mut records = BTreeMap::new();
        let mut revision = Revision::default();
        for entry in self.database.iter() {
            let (key, value) = entry.map_err(told)?;
            if key.as_ref() == REVISION_KEY {
                revision = split(&value).ok_or("its revision is damaged")?.0;
            } else if key.as_ref() != FORMAT_KEY {
                let key = String::from_utf8(key.to_vec()).map_err(|error| error.to_string())?;
                let (version, document) = split(&value).ok_or_else(|| format!("`{key}` is damaged"))?;
                let document = document.to_vec();
                records.insert(Key::from_stored(key), Stored { version, document });
            }
        }
        Ok(Content::of(records, revision))
    }

    pub(super) fn add(batch: &mut sled::Batch, delta: &Delta) {
        for (key, change) in &delta.changes {
            match change {
                Some(stored) => batch.insert(key.as_str().as_bytes(), joined(stored)),
                None => batch.remove(key.as_str().as_bytes()),
            }
        }
        batch.insert(REVISION_KEY, delta.revision.0.to_be_bytes().to_vec());
    }

    /// Hands the batch to the file, not yet to the disk.
    pub(super) fn write(&self, batch: sled::Batch) -> Result<(), String> {
        let written = catch_unwind(AssertUnwindSafe(|| {
            self.database.apply_batch(batch)?;
            self.database.flush()
        }));
        match written {
            Ok(Ok(_bytes)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the engine gave up while writing".to_owned()),
        }
    }
}

fn joined(stored: &Stored) -> Vec<u8> {
    let mut value = stored.version.0.to_be_bytes().to_vec();
    value.extend_from_slice(&stored.document);
    value
}

fn split(value: &[u8]) -> Option<(Revision, &[u8])> {
    let (version, document) = value.split_first_chunk::<8>()?;
    Some((Revision(u64::from_be_bytes(*version)), document))
}
