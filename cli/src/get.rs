//! `get`: lists of a kind, or one of them, once or again at every change.

pub(crate) mod lists;
pub(crate) mod show;

use std::{future::Future, time::Duration};

use clap::{Args, ValueEnum};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::{
    client::{Client, ServerOptions},
    exit::CliError,
    output::Form,
    view::Listed,
};

/// How often `--watch` looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Of what there are lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Places where VMs run
    #[value(alias = "site")]
    Sites,
    /// Node processes at the sites
    #[value(alias = "replicator")]
    Replicators,
    /// Replication policies
    #[value(aliases = ["policy", "replicationpolicies"])]
    Policies,
    /// Protected VMs
    #[value(aliases = ["vm", "protectedvms"])]
    Vms,
    /// Consistency groups
    #[value(aliases = ["group", "consistencygroups"])]
    Groups,
    /// Durable work
    #[value(alias = "job")]
    Jobs,
    /// Recovery points of a VM, whose name is needed
    #[value(alias = "point")]
    Points,
    /// What happened; NAME is a subject like vm/shop-db
    #[value(alias = "event")]
    Events,
    /// Rehearsals
    #[value(aliases = ["test-failover", "tests", "test"])]
    TestFailovers,
}

/// What is to be listed.
#[derive(Debug, Args)]
pub(crate) struct GetArguments {
    /// Of what
    #[arg(value_enum)]
    kind: Kind,
    /// Only this one (points: of this VM; events: of this subject)
    name: Option<String>,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
    /// Go on and show every change
    #[arg(short, long)]
    watch: bool,
}

/// Lists.
pub(crate) async fn run(server: &ServerOptions, arguments: GetArguments) -> Result<(), CliError> {
    let name = arguments.name.as_deref();
    if arguments.kind == Kind::Points && name.is_none() {
        return Err(CliError::Usage(
            "the points of which VM? `farshore get points VM` is accepted".to_owned(),
        ));
    }
    let client = Client::connect(server).await?;
    let answered = answer(&client, &arguments, name);
    match server.timeout.filter(|_| arguments.watch) {
        Some(limit) => timeout(limit, answered).await.map_err(|_| CliError::TimedOut {
            what: "the watch".to_owned(),
            limit,
        })?,
        None => answered.await,
    }
}

async fn answer(client: &Client, arguments: &GetArguments, name: Option<&str>) -> Result<(), CliError> {
    let one = arguments.name.is_some();
    match arguments.kind {
        Kind::Sites => give(arguments, one, || lists::sites(client, name)).await,
        Kind::Replicators => give(arguments, one, || lists::replicators(client, name)).await,
        Kind::Policies => give(arguments, one, || lists::policies(client, name)).await,
        Kind::Vms => give(arguments, one, || lists::vms(client, name)).await,
        Kind::Groups => give(arguments, one, || lists::groups(client, name)).await,
        Kind::Jobs => give(arguments, one, || lists::jobs(client, name)).await,
        Kind::Points => {
            give(arguments, false, || {
                lists::points(client, name.unwrap_or_default())
            })
            .await
        }
        Kind::Events => {
            give(arguments, false, || {
                lists::events(client, name.unwrap_or_default())
            })
            .await
        }
        Kind::TestFailovers => give(arguments, one, || lists::test_failovers(client, name)).await,
    }
}

async fn give<T: Listed, F>(
    arguments: &GetArguments,
    one: bool,
    fetch: impl Fn() -> F,
) -> Result<(), CliError>
where
    F: Future<Output = Result<Vec<T>, CliError>>,
{
    if !arguments.watch {
        let items = fetch().await?;
        return match items.first().filter(|_| one) {
            Some(item) => show::one(item, arguments.output),
            None => show::list(&items, arguments.output),
        };
    }
    let mut watch = show::Watch::new(arguments.output);
    let mut ticks = interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        watch.show(&fetch().await?)?;
    }
}
