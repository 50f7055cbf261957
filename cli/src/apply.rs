//! `apply`: declares what is in a file, and with `--wait` stays until every VM of it is protected.

use std::path::PathBuf;

use clap::Args;
use farshore_proto::v1::{ApplyRequest, ApplyResponse};
use tokio::task::JoinSet;

use crate::{
    client::{Client, ServerOptions, idempotency_key},
    exit::CliError,
    follow::{self, Follower},
    get::show,
    manifest,
    output::{Form, progress::Progress},
    validate,
    view::AppliedView,
};

/// What is to be declared.
#[derive(Debug, Args)]
pub(crate) struct ApplyArguments {
    /// A YAML file, a directory of them, or - for standard input
    #[arg(short, long, value_name = "FILE|DIR")]
    file: PathBuf,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// Stay until every VM of it is protected
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Applies, and waits if so ordered.
pub(crate) async fn run(server: &ServerOptions, arguments: ApplyArguments) -> Result<(), CliError> {
    let files = manifest::read(&arguments.file)?;
    for file in &files {
        validate::check(file)?;
    }
    let client = Client::connect(server).await?;
    let response = apply(&client, manifest::joined(&files), arguments.dry_run).await?;
    let applied: Vec<AppliedView> = response.applied.into_iter().map(AppliedView::from).collect();
    show::list(&applied, arguments.output)?;
    if arguments.wait {
        await_protection(&client, &applied).await?;
    }
    Ok(())
}

/// One apply.
pub(crate) async fn apply(
    client: &Client,
    manifest: String,
    dry_run: bool,
) -> Result<ApplyResponse, CliError> {
    let request = client.request(ApplyRequest {
        idempotency_key: idempotency_key(),
        manifest,
        dry_run,
    });
    client
        .answer("the apply", client.declarations().apply(request))
        .await
}

async fn await_protection(client: &Client, applied: &[AppliedView]) -> Result<(), CliError> {
    let follower = Follower::new(client.clone(), Progress::for_people());
    let mut waits = JoinSet::new();
    for item in applied.iter().filter(|item| item.kind == "ProtectedVm") {
        let (follower, name, job) = (follower.clone(), item.name.clone(), item.job.clone());
        waits.spawn(async move { follower.until_protected(&name, job.as_deref()).await });
    }
    follow::within(client, "protection", async {
        while let Some(ended) = waits.join_next().await {
            ended.map_err(|error| CliError::Part(error.into()))??;
        }
        Ok(())
    })
    .await
}
