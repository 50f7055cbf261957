//! The fence: a durable grant of the chain to a new holder, by this process or by whoever has the vault open.

use std::{path::Path, time::Duration};

use farshore_blocks::{ChainId, Epoch, HolderNonce, clock::WallTime};
use farshore_replicator::fence_request::{FenceRequest, Withdrawn};
use farshore_vault::{Opened, Vault, VaultError, VaultReader};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::lock_holder::LockHolder;
use crate::{exit::CliError, output::talk, vault::failed};

/// For whoever has the vault open: it looks for requests several times a second.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// For whoever has taken the request and not granted it yet: a sync on a busy disk takes its time.
const GRANT_LIMIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often it is tried whether the vault has become free.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// The chain was granted: whoever wrote it before is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::vault) struct Fenced {
    pub(in crate::vault) epoch: Epoch,
    pub(in crate::vault) by: FencedBy,
}

/// Who wrote the fence down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::vault) enum FencedBy {
    /// This command, which opened the vault for that.
    ThisCommand,
    /// The process that has the vault open.
    Holder,
    /// An earlier run of this command.
    EarlierRun,
}

/// Grants `chain` to `holder`; from the return on, its old source is refused.
pub(in crate::vault) async fn fence(
    vault: &Path,
    chain: ChainId,
    holder: HolderNonce,
) -> Result<Fenced, CliError> {
    if let Some(fenced) = grant(vault, chain, holder)? {
        return Ok(fenced);
    }
    let shown = LockHolder::of(vault).map_or_else(|| "another process".to_owned(), |held| held.to_string());
    talk(&format!("{shown} has the vault open: it is asked to fence"));
    ask(&Question {
        vault,
        chain,
        holder,
        reader: VaultReader::open(vault).map_err(failed)?,
        request: FenceRequest::new(vault, chain, holder),
    })
    .await
}

/// Opens the vault for as long as a grant takes; `None` if another process has it open.
fn grant(vault: &Path, chain: ChainId, holder: HolderNonce) -> Result<Option<Fenced>, CliError> {
    let opened = match Vault::open(vault) {
        Err(VaultError::Locked { .. }) => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    if let Opened::AsACopy { of } = opened.opened() {
        talk(&format!(
            "this vault is a copy of {of} and has a new incarnation now: a source that comes back compares its disks anew"
        ));
    }
    let epoch = opened.grant_epoch(chain, holder).map_err(failed)?;
    Ok(Some(Fenced {
        epoch,
        by: FencedBy::ThisCommand,
    }))
}

struct Question<'a> {
    vault: &'a Path,
    chain: ChainId,
    holder: HolderNonce,
    reader: VaultReader,
    request: FenceRequest,
}

async fn ask(question: &Question<'_>) -> Result<Fenced, CliError> {
    let limit = u64::try_from(ANSWER_LIMIT.as_nanos()).unwrap_or(u64::MAX);
    let not_after = WallTime(WallTime::now().0.saturating_add(limit));
    let asked = Instant::now();
    question
        .request
        .place(not_after)
        .map_err(|source| cannot("ask in", question.vault, source))?;
    let mut tried = asked;
    loop {
        sleep(LOOK_EVERY).await;
        if let Some(fenced) = question.granted()? {
            return Ok(fenced);
        }
        if let Some(why) = question.request.refusal() {
            return Err(refused(&why));
        }
        if tried.elapsed() >= TRY_EVERY {
            tried = Instant::now();
            if let Some(fenced) = grant(question.vault, question.chain, question.holder)? {
                // Were it taken now, it would be granted the same epoch.
                let _ = question.request.withdraw();
                return Ok(fenced);
            }
        }
        if asked.elapsed() >= ANSWER_LIMIT {
            let withdrawn = question.request.withdraw();
            match withdrawn.map_err(|source| cannot("withdraw the request in", question.vault, source))? {
                Withdrawn::InTime => return Err(no_answer(question.vault)),
                Withdrawn::TooLate if asked.elapsed() >= ANSWER_LIMIT + GRANT_LIMIT => {
                    return Err(unknown(question.vault));
                }
                Withdrawn::TooLate => {}
            }
        }
    }
}

impl Question<'_> {
    fn granted(&self) -> Result<Option<Fenced>, CliError> {
        let current = self.reader.current_epoch(self.chain).map_err(failed)?;
        let ours = current.filter(|epoch| epoch.holder == self.holder);
        Ok(ours.map(|epoch| Fenced {
            epoch,
            by: FencedBy::Holder,
        }))
    }
}

fn refused(why: &str) -> CliError {
    CliError::Failed {
        message: format!("whoever has the vault open could not fence: {why}; nobody was fenced"),
        reason: "fence-failed".to_owned(),
    }
}

fn no_answer(vault: &Path) -> CliError {
    let (holder, remedy) = match LockHolder::of(vault) {
        Some(holder) => {
            let stop = format!("Stop it (`kill {}`) and run this again", holder.pid);
            (holder.to_string(), stop)
        }
        None => (
            "another process, which the kernel does not name,".to_owned(),
            "Stop whoever uses the vault and run this again".to_owned(),
        ),
    };
    CliError::NoAnswer {
        message: format!(
            "{holder} has the vault open and did not answer within {} s; nobody was fenced. {remedy}, or order the \
             failover at its orchestrator",
            ANSWER_LIMIT.as_secs()
        ),
        reason: "holder-no-answer".to_owned(),
    }
}

fn unknown(vault: &Path) -> CliError {
    let shown = LockHolder::of(vault).map_or_else(|| "whoever".to_owned(), |holder| holder.to_string());
    CliError::NoAnswer {
        message: format!(
            "{shown} has the vault open and took the request, but the fence does not show: it may still come. Look \
             with `farshore vault list {}`, then run this again",
            vault.display()
        ),
        reason: "holder-no-answer".to_owned(),
    }
}

fn cannot(action: &'static str, path: &Path, source: std::io::Error) -> CliError {
    CliError::File {
        action,
        path: path.to_owned(),
        source,
    }
}
