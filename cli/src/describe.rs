//! `describe`: everything about one VM, policy, group, job or test failover, for reading.

use clap::{Args, ValueEnum};
use farshore_proto::v1::GetJobRequest;

use crate::{
    client::{Client, ServerOptions},
    exit::CliError,
    failover,
    get::{lists, show},
    output::{self, Form},
    view::{JobView, Listed, TestFailoverView, VmView},
};

mod group_page;
mod job_page;
mod policy_page;
mod test_page;
mod vm_page;

/// What can be described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DescribedKind {
    /// A protected VM
    #[value(aliases = ["vms", "protectedvm"])]
    Vm,
    /// A replication policy
    #[value(aliases = ["policies", "replicationpolicy"])]
    Policy,
    /// A consistency group
    #[value(aliases = ["groups", "consistencygroup"])]
    Group,
    /// A job
    #[value(alias = "jobs")]
    Job,
    /// A test failover
    #[value(aliases = ["test-failovers", "test", "tests"])]
    TestFailover,
}

/// What is to be described.
#[derive(Debug, Args)]
pub(crate) struct DescribeArguments {
    /// Of which kind it is
    #[arg(value_enum)]
    kind: DescribedKind,
    /// Its name
    name: String,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Describes.
pub(crate) async fn run(server: &ServerOptions, arguments: DescribeArguments) -> Result<(), CliError> {
    let client = Client::connect(server).await?;
    let name = arguments.name.as_str();
    match arguments.kind {
        DescribedKind::Vm => {
            let vm = VmView::from(failover::get_vm(&client, name).await?);
            give(&vm, arguments.output, vm_page::page)
        }
        DescribedKind::Policy => {
            // The list of a name has that one, or is an error.
            let found = lists::policies(&client, Some(name)).await?;
            let mut all = found.iter();
            all.try_for_each(|policy| give(policy, arguments.output, policy_page::page))
        }
        DescribedKind::Group => {
            let found = lists::groups(&client, Some(name)).await?;
            let mut all = found.iter();
            all.try_for_each(|group| give(group, arguments.output, group_page::page))
        }
        DescribedKind::Job => {
            let request = client.request(GetJobRequest { id: name.to_owned() });
            let job = client
                .answer("the question", client.jobs().get_job(request))
                .await?;
            give(&JobView::from(job), arguments.output, job_page::page)
        }
        DescribedKind::TestFailover => {
            let test = TestFailoverView::from(failover::get_test(&client, name).await?);
            give(&test, arguments.output, test_page::page)
        }
    }
}

fn give<T: Listed>(item: &T, form: Form, page: impl Fn(&T) -> String) -> Result<(), CliError> {
    match form {
        Form::Table | Form::Wide => output::answer(&page(item)),
        Form::Json | Form::Yaml => show::one(item, form),
    }
}

/// A heading and what is below it; nothing if there is nothing below it.
fn section(heading: &str, body: &str) -> String {
    if body.is_empty() {
        return String::new();
    }
    let lines: Vec<String> = body.lines().map(|line| format!("  {line}")).collect();
    format!("\n\n{heading}\n{}", lines.join("\n"))
}
