//! A fence that is ordered through the vault's directory, for whoever can write there and reaches nobody else: the
//! process that has the vault open grants the chain to a new holder.
//!
//! | file in `requests/` | who writes it | who removes it |
//! |---|---|---|
//! | `fence-<chain>-<holder>` | whoever wants the fence | whoever comes first: the holder of the vault, which then grants the epoch, or the one who wanted it, who then knows that it will not be granted |
//! | `refused-<chain>-<holder>` | the holder of the vault, if it cannot grant | whoever wanted the fence |
//!
//! That it was granted shows in the chain's epoch and nowhere else. A request says until when it is meant: one that a
//! dead process left fences nobody later.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use farshore_blocks::{ChainId, HolderNonce, clock::WallTime, files::replace_file};
use serde::{Deserialize, Serialize};

const DIRECTORY: &str = "requests";
const WANTED: &str = "fence";
const REFUSED: &str = "refused";

/// The wish that a chain be granted to a new holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceRequest {
    vault: PathBuf,
    chain: ChainId,
    holder: HolderNonce,
}

/// What became of a request that was to be withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawn {
    /// Nobody had taken it, and nobody will.
    InTime,
    /// Whoever holds the vault had taken it already: the epoch is granted, or will be, or that process fails at it.
    TooLate,
}

/// What was found when a request was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is to be granted now.
    Due,
    /// It was meant until an earlier time.
    Expired,
    /// It was withdrawn meanwhile.
    Withdrawn,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    not_after: WallTime,
}

impl FenceRequest {
    /// The request that `chain` of the vault in `vault` be granted to `holder`; nobody knows of it yet.
    #[must_use]
    pub fn new(vault: &Path, chain: ChainId, holder: HolderNonce) -> Self {
        Self {
            vault: vault.to_owned(),
            chain,
            holder,
        }
    }

    /// Lays it before whoever holds the vault; after `not_after` it is void.
    ///
    /// # Errors
    /// When the vault's directory cannot be written.
    pub fn place(&self, not_after: WallTime) -> io::Result<()> {
        fs::create_dir_all(self.vault.join(DIRECTORY))?;
        let content = serde_json::to_vec(&Content { not_after })?;
        replace_file(&self.path(WANTED), &content)
    }

    /// Takes it back.
    ///
    /// # Errors
    /// When the file cannot be removed; then it may still be granted.
    pub fn withdraw(&self) -> io::Result<Withdrawn> {
        Ok(if removed(&self.path(WANTED))? {
            Withdrawn::InTime
        } else {
            Withdrawn::TooLate
        })
    }

    /// Why whoever holds the vault did not grant it, if it has said so; it is said once.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let path = self.path(REFUSED);
        let why = fs::read_to_string(&path).ok()?;
        // One that stays harms nobody.
        let _ = removed(&path);
        Some(why)
    }

    pub(crate) fn chain(&self) -> ChainId {
        self.chain
    }

    pub(crate) fn holder(&self) -> HolderNonce {
        self.holder
    }

    /// All that wait in a vault.
    pub(crate) fn waiting(vault: &Path) -> io::Result<Vec<Self>> {
        let entries = match fs::read_dir(vault.join(DIRECTORY)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut requests = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let parsed = name.to_str().and_then(parse);
            requests.extend(parsed.map(|(chain, holder)| Self::new(vault, chain, holder)));
        }
        Ok(requests)
    }

    /// Takes it, so that it can no longer be withdrawn.
    pub(crate) fn take(&self, now: WallTime) -> io::Result<Taken> {
        let path = self.path(WANTED);
        let content = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Taken::Withdrawn),
            content => content?,
        };
        let content: Option<Content> = serde_json::from_slice(&content).ok();
        if !removed(&path)? {
            return Ok(Taken::Withdrawn);
        }
        let due = content.is_some_and(|content| now <= content.not_after);
        Ok(if due { Taken::Due } else { Taken::Expired })
    }

    /// Says why it is not granted.
    pub(crate) fn refuse(&self, why: &str) -> io::Result<()> {
        replace_file(&self.path(REFUSED), why.as_bytes())
    }

    fn path(&self, kind: &str) -> PathBuf {
        let name = format!("{kind}-{}-{}", self.chain, self.holder);
        self.vault.join(DIRECTORY).join(name)
    }
}

fn parse(name: &str) -> Option<(ChainId, HolderNonce)> {
    let (chain, holder) = name.strip_prefix(WANTED)?.strip_prefix('-')?.split_once('-')?;
    Some((chain.parse().ok()?, holder.parse().ok()?))
}

/// Removes a file; says whether it was there.
fn removed(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: ChainId = ChainId::from_bytes([3; 16]);
    const HOLDER: HolderNonce = HolderNonce::from_bytes([9; 16]);
    const NOW: WallTime = WallTime(1000);

    #[test]
    fn of_taking_and_withdrawing_one_succeeds() {
        let vault = tempfile::tempdir().unwrap();
        let request = FenceRequest::new(vault.path(), CHAIN, HOLDER);
        assert_eq!(FenceRequest::waiting(vault.path()).unwrap(), []);
        request.place(NOW).unwrap();
        assert_eq!(
            FenceRequest::waiting(vault.path()).unwrap(),
            std::slice::from_ref(&request)
        );
        assert_eq!(request.take(NOW).unwrap(), Taken::Due);
        assert_eq!(request.withdraw().unwrap(), Withdrawn::TooLate);
        request.place(NOW).unwrap();
        assert_eq!(request.withdraw().unwrap(), Withdrawn::InTime);
        assert_eq!(request.take(NOW).unwrap(), Taken::Withdrawn);
        assert_eq!(FenceRequest::waiting(vault.path()).unwrap(), []);
    }

    #[test]
    fn a_request_is_void_after_its_time_and_when_it_is_not_understood() {
        let vault = tempfile::tempdir().unwrap();
        let request = FenceRequest::new(vault.path(), CHAIN, HOLDER);
        request.place(NOW).unwrap();
        assert_eq!(request.take(WallTime(1001)).unwrap(), Taken::Expired);
        fs::write(request.path(WANTED), "{").unwrap();
        assert_eq!(request.take(NOW).unwrap(), Taken::Expired);
        assert_eq!(FenceRequest::waiting(vault.path()).unwrap(), []);
    }

    #[test]
    fn only_whole_names_are_requests() {
        let vault = tempfile::tempdir().unwrap();
        fs::create_dir(vault.path().join(DIRECTORY)).unwrap();
        for name in [
            format!("fence-{CHAIN}-{HOLDER}.new"),
            format!("fence-{CHAIN}"),
            format!("refused-{CHAIN}-{HOLDER}"),
            "fence-".to_owned(),
            "fence-x-y".to_owned(),
            "notes".to_owned(),
        ] {
            fs::write(vault.path().join(DIRECTORY).join(name), "").unwrap();
        }
        assert_eq!(FenceRequest::waiting(vault.path()).unwrap(), []);
    }

    #[test]
    fn a_refusal_is_heard_once() {
        let vault = tempfile::tempdir().unwrap();
        let request = FenceRequest::new(vault.path(), CHAIN, HOLDER);
        assert_eq!(request.refusal(), None);
        request.place(NOW).unwrap();
        request.refuse("no room").unwrap();
        assert_eq!(request.refusal().as_deref(), Some("no room"));
        assert_eq!(request.refusal(), None);
    }
}
