//! Ending a VM that was started from a vault. The vault itself is not needed for it.

use farshore_provider::{Leak, RecoveryId};
use farshore_replicator::recovery::{Recovery, RecoveryError};

use super::{
    FailoverArguments,
    attempt::open_recovery,
    record::{self, FailoverRecord, RecordFile},
};
use crate::{exit::CliError, output::talk};

pub(super) async fn end(arguments: &FailoverArguments) -> Result<(), CliError> {
    let (id, record) = find(arguments)?;
    let file = RecordFile::take(&arguments.into, &id)?;
    let recovery = open_recovery(arguments)?;
    if arguments.ending.discard {
        discard(&recovery, &id, file).await?;
        talk(&format!(
            "`{id}` is gone with all that it wrote; the source of VM `{}` stays fenced",
            record.vm
        ));
        return Ok(());
    }
    no_leaks(recovery.stop(&id).await)?;
    talk(&format!("`{id}` is off; what it wrote is kept"));
    Ok(())
}

async fn discard(recovery: &Recovery, id: &RecoveryId, file: RecordFile) -> Result<(), CliError> {
    no_leaks(recovery.discard(id).await)?;
    file.remove()
}

fn no_leaks(ended: Result<Vec<Leak>, RecoveryError>) -> Result<(), CliError> {
    let leaks = ended.map_err(|error| CliError::Part(error.into()))?;
    if leaks.is_empty() {
        return Ok(());
    }
    let leaks: Vec<String> = leaks
        .into_iter()
        .map(|leak| format!("{} {}", leak.kind, leak.name))
        .collect();
    Err(CliError::Failed {
        message: format!("still there: {}; run this again", leaks.join(", ")),
        reason: "leaks".to_owned(),
    })
}

/// The failover that is meant, by its VM or its chain.
fn find(arguments: &FailoverArguments) -> Result<(RecoveryId, FailoverRecord), CliError> {
    let subject = &arguments.of.subject;
    let vault = arguments.of.directory.canonicalize().ok();
    let meant = |(_, record): &(RecoveryId, FailoverRecord)| {
        let is_it = record.vm == *subject || record.chain.to_string() == *subject;
        is_it && vault.as_ref().is_none_or(|vault| *vault == record.vault)
    };
    let mut found: Vec<_> = record::all(&arguments.into)?.into_iter().filter(meant).collect();
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err(CliError::Usage(format!(
            "several chains of VM `{subject}` were failed over into {}: name the chain",
            arguments.into.display()
        ))),
        (None, _) => Err(CliError::NotFound {
            message: format!(
                "no failover of `{subject}` from {} is known in {}; is --into right?",
                arguments.of.directory.display(),
                arguments.into.display()
            ),
            reason: "not-found".to_owned(),
        }),
    }
}
