//! `failover test|cleanup|unplanned`: rehearsals, their end, and the real thing.

use clap::{Args, Subcommand};
use farshore_proto::v1::{
    CleanupTestRequest, GetTestRequest, GetVmRequest, Job, StartTestRequest, StartUnplannedRequest,
    TestFailover, Vm,
};

use crate::{
    client::{Client, ServerOptions, idempotency_key},
    exit::CliError,
    follow::{self, Follower},
    get::show,
    output::{Form, progress::Progress, talk},
    view::{JobView, TestFailoverView, VmView},
};

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum FailoverVerb {
    /// Start a clone from a recovery point in an isolated network; production and replication go on
    Test(StartArguments),
    /// Remove a test failover and everything of it
    Cleanup(CleanupArguments),
    /// Fence the source and start the VM at the target site, with what the vault has
    Unplanned(StartArguments),
}

/// From what to start.
#[derive(Debug, Args)]
pub(crate) struct StartArguments {
    /// The protected VM
    vm: String,
    /// `latest`, `latest-app-consistent`, a point's sequence, or an RFC 3339 time
    #[arg(long, default_value = "latest", value_name = "POINT")]
    point: String,
    /// Stay until it runs
    #[arg(long)]
    wait: bool,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Which test to end.
#[derive(Debug, Args)]
pub(crate) struct CleanupArguments {
    /// The test failover, as `farshore get test-failovers` shows it
    test: String,
    /// What to remember of it
    #[arg(long, default_value = "", value_name = "TEXT")]
    notes: String,
    /// Call it cleaned even if something of it is left behind; what is left is recorded
    #[arg(long)]
    force: bool,
    /// Stay until it is done
    #[arg(long)]
    wait: bool,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Does it.
pub(crate) async fn run(server: &ServerOptions, verb: FailoverVerb) -> Result<(), CliError> {
    let client = Client::connect(server).await?;
    match verb {
        FailoverVerb::Test(arguments) => test(&client, &arguments).await,
        FailoverVerb::Cleanup(arguments) => cleanup(&client, arguments).await,
        FailoverVerb::Unplanned(arguments) => unplanned(&client, &arguments).await,
    }
}

async fn test(client: &Client, arguments: &StartArguments) -> Result<(), CliError> {
    let mut test = start_test(client, &arguments.vm, &arguments.point).await?;
    if arguments.wait {
        talk(&format!(
            "test failover {} is being started by job {}",
            test.name, test.job
        ));
        until_done(client, "the test failover", &test.job).await?;
        test = get_test(client, &test.name).await?;
    }
    show::one(&TestFailoverView::from(test), arguments.output)
}

async fn cleanup(client: &Client, arguments: CleanupArguments) -> Result<(), CliError> {
    let (name, force) = (arguments.test, arguments.force);
    let mut test = cleanup_test(client, &name, arguments.notes, force).await?;
    if arguments.wait {
        until_done(client, "the cleanup", &test.job).await?;
        test = get_test(client, &test.name).await?;
    }
    show::one(&TestFailoverView::from(test), arguments.output)
}

async fn unplanned(client: &Client, arguments: &StartArguments) -> Result<(), CliError> {
    let job = start_unplanned(client, &arguments.vm, &arguments.point).await?;
    if !arguments.wait {
        return show::one(&JobView::from(job), arguments.output);
    }
    until_done(client, "the failover", &job.id).await?;
    show::one(
        &VmView::from(get_vm(client, &arguments.vm).await?),
        arguments.output,
    )
}

async fn until_done(client: &Client, what: &str, job: &str) -> Result<(), CliError> {
    let follower = Follower::new(client.clone(), Progress::for_people());
    follow::within(client, what, follower.until_done(job)).await
}

/// Orders a test failover.
pub(crate) async fn start_test(client: &Client, vm: &str, point: &str) -> Result<TestFailover, CliError> {
    let request = client.request(StartTestRequest {
        idempotency_key: idempotency_key(),
        vm: vm.to_owned(),
        point: point.to_owned(),
    });
    client
        .answer("the test failover", client.failovers().start_test(request))
        .await
}

/// Orders the end of a test failover.
pub(crate) async fn cleanup_test(
    client: &Client,
    name: &str,
    notes: String,
    force: bool,
) -> Result<TestFailover, CliError> {
    let request = client.request(CleanupTestRequest {
        idempotency_key: idempotency_key(),
        name: name.to_owned(),
        notes,
        force,
    });
    client
        .answer("the cleanup", client.failovers().cleanup_test(request))
        .await
}

/// Orders an unplanned failover.
pub(crate) async fn start_unplanned(client: &Client, vm: &str, point: &str) -> Result<Job, CliError> {
    let request = client.request(StartUnplannedRequest {
        idempotency_key: idempotency_key(),
        vm: vm.to_owned(),
        point: point.to_owned(),
    });
    client
        .answer("the failover", client.failovers().start_unplanned(request))
        .await
}

/// A test failover as it is now.
pub(crate) async fn get_test(client: &Client, name: &str) -> Result<TestFailover, CliError> {
    let request = client.request(GetTestRequest {
        name: name.to_owned(),
    });
    client
        .answer("the question", client.failovers().get_test(request))
        .await
}

/// A protected VM as it is now.
pub(crate) async fn get_vm(client: &Client, name: &str) -> Result<Vm, CliError> {
    let request = client.request(GetVmRequest {
        name: name.to_owned(),
    });
    client
        .answer("the question", client.protection().get_vm(request))
        .await
}
