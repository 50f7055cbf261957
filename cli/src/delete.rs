//! `delete`: takes back a declaration; a VM's protection is disabled by a job.

use clap::{Args, ValueEnum};
use farshore_proto::v1::DeleteRequest;

use crate::{
    client::{Client, ServerOptions, idempotency_key},
    exit::CliError,
    follow::{self, Follower},
    output::{self, progress::Progress},
};

/// What can be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeletableKind {
    /// A site that no VM refers to
    #[value(alias = "sites")]
    Site,
    /// A replication policy that no VM refers to
    #[value(aliases = ["policies", "replicationpolicy"])]
    Policy,
    /// A consistency group; its members stay protected, each by itself
    #[value(aliases = ["groups", "consistencygroup"])]
    Group,
    /// A protected VM that is in no group
    #[value(aliases = ["vms", "protectedvm"])]
    Vm,
}

impl DeletableKind {
    fn declared(self) -> &'static str {
        match self {
            Self::Site => "Site",
            Self::Policy => "ReplicationPolicy",
            Self::Vm => "ProtectedVm",
            Self::Group => "ConsistencyGroup",
        }
    }
}

/// What is to be deleted.
#[derive(Debug, Args)]
pub(crate) struct DeleteArguments {
    /// Of which kind it is
    #[arg(value_enum, ignore_case = true)]
    kind: DeletableKind,
    /// Its name
    name: String,
    /// Stay until it is done
    #[arg(long)]
    wait: bool,
}

/// Deletes, and waits if so ordered.
pub(crate) async fn run(server: &ServerOptions, arguments: DeleteArguments) -> Result<(), CliError> {
    let client = Client::connect(server).await?;
    let kind = arguments.kind.declared();
    let request = client.request(DeleteRequest {
        idempotency_key: idempotency_key(),
        kind: kind.to_owned(),
        name: arguments.name.clone(),
    });
    let response = client
        .answer("the deletion", client.declarations().delete(request))
        .await?;
    if response.job.is_empty() {
        return output::answer(&format!("{kind} {}: deleted", arguments.name));
    }
    output::answer(&format!(
        "{kind} {}: protection is being disabled by job {}; its recovery points stay in the vault",
        arguments.name, response.job
    ))?;
    if arguments.wait {
        let follower = Follower::new(client.clone(), Progress::for_people());
        follow::within(&client, "the deletion", follower.until_done(&response.job)).await?;
    }
    Ok(())
}
