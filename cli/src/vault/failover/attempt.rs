//! One run of a failover from a vault: what is known, what is checked, the fence, the VM.

use std::path::{Path, PathBuf};

use anyhow::Context;
use farshore_blocks::{ChainId, Epoch, HolderNonce, Sequence};
use farshore_provider::{Check, CheckOutcome, NetworkAttachment, RecoveryId};
use farshore_replicator::recovery::{Recovery, RecoveryError, RecoveryOrder, RecoveryPlan};
use farshore_vault::VaultReader;

use super::{
    FailoverArguments,
    fence::{FencedBy, fence},
    record::{FailoverRecord, RecordFile, Tenure},
    view::{FailoverView, Running},
};
use crate::{
    exit::CliError,
    output::talk,
    vault::{failed, selection::PointChoice},
};

/// A run.
pub(super) struct Attempt<'a> {
    arguments: &'a FailoverArguments,
    reader: VaultReader,
    id: RecoveryId,
    recovery: Recovery,
    file: RecordFile,
    record: FailoverRecord,
}

impl<'a> Attempt<'a> {
    /// Finds out what is meant and what was done already; nothing is changed that anyone could notice.
    pub(super) fn begin(arguments: &'a FailoverArguments) -> Result<Self, CliError> {
        let reader = arguments.of.open()?;
        let chain = arguments.of.find(&reader)?;
        let vm = reader.description(chain).map_err(failed)?.vm;
        let vault = absolute(&arguments.of.directory)?;
        let id = recovery_id(&vm, chain)?;
        if lies_in(&arguments.into, &vault)? {
            return Err(CliError::Usage(format!(
                "--into {} lies in the vault: choose a directory outside of it",
                arguments.into.display()
            )));
        }
        let recovery = open_recovery(arguments)?;
        let file = RecordFile::take(&arguments.into, &id)?;
        let record = match file.load()? {
            Some(record) if record.vault != vault => {
                return Err(CliError::Refused {
                    message: format!(
                        "`{id}` in {} was started from the vault {}: choose another --into",
                        arguments.into.display(),
                        record.vault.display()
                    ),
                    reason: "in-use".to_owned(),
                });
            }
            Some(record) => record,
            None => FailoverRecord {
                vault,
                chain,
                vm,
                holder: HolderNonce::random().context("the system has no randomness")?,
                tenure: None,
            },
        };
        Ok(Self {
            arguments,
            reader,
            id,
            recovery,
            file,
            record,
        })
    }

    /// Sees to it that the chain is fenced and the VM runs.
    pub(super) async fn run(mut self) -> Result<FailoverView, CliError> {
        let (tenure, fenced_by) = match self.record.tenure.clone() {
            Some(tenure) => {
                self.is_still_ours(&tenure)?;
                self.is_the_same(&tenure)?;
                (tenure, FencedBy::EarlierRun)
            }
            None => self.take_over().await?,
        };
        let order = RecoveryOrder {
            id: self.id.clone(),
            chain: self.record.chain,
            sequence: tenure.sequence,
            network: tenure.network,
        };
        let vault = (&self.reader, self.record.vault.as_path());
        let recovered = self.recovery.start(vault, order).await.map_err(part)?;
        Ok(FailoverView::of(
            &self.record,
            Running {
                recovered: &recovered,
                captured_at: self.plan(tenure.sequence)?.point.captured_at.to_rfc3339(),
                fenced_by,
                console: &self.recovery.console(&self.id),
            },
        ))
    }

    /// Everything is checked that can be, then the source is fenced, then the point is chosen for good.
    async fn take_over(&mut self) -> Result<(Tenure, FencedBy), CliError> {
        let plan = self.plan(self.choose()?)?;
        let network = self.network(!plan.machine.nics.is_empty())?;
        let checks = self.recovery.checks(&plan.machine, &network).await;
        judge(&checks)?;
        self.file.save(&self.record)?;
        let fenced = fence(&self.record.vault, self.record.chain, self.record.holder).await?;
        talk(&format!(
            "fenced: the source of VM `{}` is refused from epoch {} on",
            self.record.vm, fenced.epoch.number
        ));
        // A point that was sealed just before the fence counts; none comes after it.
        let tenure = Tenure {
            epoch: fenced.epoch,
            sequence: self.choose()?,
            network,
        };
        self.record.tenure = Some(tenure.clone());
        self.file.save(&self.record)?;
        Ok((tenure, fenced.by))
    }

    fn choose(&self) -> Result<Sequence, CliError> {
        let choice = self.arguments.point.unwrap_or(PointChoice::Latest);
        choice.choose(&self.reader, self.record.chain)
    }

    fn plan(&self, sequence: Sequence) -> Result<RecoveryPlan, CliError> {
        RecoveryPlan::new(&self.reader, self.record.chain, sequence).map_err(part)
    }

    /// What the command line says of the network.
    fn wanted_network(&self) -> Option<NetworkAttachment> {
        let wanted = &self.arguments.network;
        let bubble = || NetworkAttachment::Bubble {
            name: self.id.clone(),
        };
        let bridge = wanted.bridge.clone();
        bridge
            .map(|bridge| NetworkAttachment::Bridge { bridge })
            .or_else(|| wanted.isolated.then(bubble))
    }

    fn network(&self, has_cards: bool) -> Result<NetworkAttachment, CliError> {
        match self.wanted_network() {
            Some(network) => Ok(network),
            // Without a card nothing is plugged in anywhere.
            None if !has_cards => Ok(NetworkAttachment::Bubble {
                name: self.id.clone(),
            }),
            None => Err(CliError::Usage(format!(
                "VM `{}` has network cards: say --bridge NAME for production, or --isolated",
                self.record.vm
            ))),
        }
    }

    /// Refuses to run a VM whose chain somebody else was granted meanwhile.
    fn is_still_ours(&self, tenure: &Tenure) -> Result<(), CliError> {
        let current: Option<Epoch> = self.reader.current_epoch(self.record.chain).map_err(failed)?;
        if current == Some(tenure.epoch) {
            return Ok(());
        }
        let current = current.map_or_else(|| "no epoch".to_owned(), |epoch| format!("epoch {epoch}"));
        Err(CliError::Refused {
            message: format!(
                "VM `{}` was failed over with epoch {}, but the chain has {current} now: somebody else was granted it \
                 since. `{} --discard` forgets this failover; then another one can be made",
                self.record.vm,
                tenure.epoch,
                self.arguments.spelled()
            ),
            reason: "superseded".to_owned(),
        })
    }

    /// Refuses what would make it another VM than the one that was started.
    fn is_the_same(&self, tenure: &Tenure) -> Result<(), CliError> {
        let chosen = self.arguments.point.map(|_| self.choose()).transpose()?;
        let same_point = chosen.is_none_or(|chosen| chosen == tenure.sequence);
        let same_network = self
            .wanted_network()
            .is_none_or(|wanted| wanted == tenure.network);
        if same_point && same_network {
            return Ok(());
        }
        Err(CliError::Refused {
            message: format!(
                "VM `{}` was failed over to point {} already, and what it wrote since lies on that point: without \
                 --point and network it is started again as it was; `{} --discard` removes it, and then another \
                 point or network can be chosen",
                self.record.vm,
                tenure.sequence,
                self.arguments.spelled()
            ),
            reason: "wrong-state".to_owned(),
        })
    }
}

/// Where the VM is kept, made if it is new.
pub(super) fn open_recovery(arguments: &FailoverArguments) -> Result<Recovery, CliError> {
    let executable = std::env::current_exe().context("this executable has no path")?;
    Recovery::open(&arguments.into, executable, arguments.accelerator.into()).map_err(part)
}

/// Refuses with all that stands in the way.
fn judge(checks: &[Check]) -> Result<(), CliError> {
    let of = |outcome| checks.iter().filter(move |check| check.outcome == outcome);
    for check in of(CheckOutcome::Warning) {
        talk(&format!(
            "warning: {}: {}; {}",
            check.code, check.found, check.remedy
        ));
    }
    let failed: Vec<String> = of(CheckOutcome::Failed)
        .map(|check| format!("{}: {}; {}", check.code, check.found, check.remedy))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(CliError::Refused {
        message: format!(
            "the VM cannot run here, and nobody was fenced: {}",
            failed.join(". ")
        ),
        reason: "prerequisites-failed".to_owned(),
    })
}

/// Names the recovered VM after its VM and chain, so that it is found again.
fn recovery_id(vm: &str, chain: ChainId) -> Result<RecoveryId, CliError> {
    let chain = chain.to_string();
    let short = chain.get(..8).unwrap_or_default();
    let named = RecoveryId::new(&format!("{vm}-{short}"));
    named
        .or_else(|| RecoveryId::new(&format!("chain-{}", chain.get(..16).unwrap_or_default())))
        .ok_or_else(|| CliError::Usage(format!("VM `{vm}` has a name that no recovered VM can have")))
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    path.canonicalize().map_err(|source| CliError::File {
        action: "find",
        path: path.to_owned(),
        source,
    })
}

/// Whether a path, which may not exist yet, lies in `directory`.
fn lies_in(path: &Path, directory: &Path) -> Result<bool, CliError> {
    let path = std::path::absolute(path).context("cannot find the current directory")?;
    let there = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    Ok(there.is_some_and(|there| there.starts_with(directory)))
}

fn part(error: RecoveryError) -> CliError {
    CliError::Part(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovered_vm_is_named_after_its_vm_and_chain() {
        let chain = ChainId::from_bytes([0xab; 16]);
        let id = |vm| recovery_id(vm, chain).unwrap().to_string();
        assert_eq!(id("db"), "db-abababab");
        assert_eq!(id("a-name-of-twenty-one"), "a-name-of-twenty-one-abababab");
        assert_eq!(id("Not A Name"), "chain-abababababababab");
    }

    #[test]
    fn every_failed_prerequisite_is_named() {
        let check = |code, outcome| Check {
            code: String::from(code),
            outcome,
            found: "found".to_owned(),
            remedy: "remedy".to_owned(),
        };
        let warned = [
            check("slow", CheckOutcome::Warning),
            check("fine", CheckOutcome::Passed),
        ];
        judge(&warned).unwrap();
        let failed = [
            check("one", CheckOutcome::Failed),
            check("slow", CheckOutcome::Warning),
            check("two", CheckOutcome::Failed),
        ];
        let refused = judge(&failed).unwrap_err();
        assert_eq!(refused.exit_status(), 3);
        let text = refused.describe();
        assert!(text.contains("one: found; remedy. two: found"), "{text}");
    }
}
