//! `job watch|cancel|retry`: follows a job to its end, or changes its course.

use clap::{Args, Subcommand};
use farshore_proto::v1::ChangeJobRequest;

use crate::{
    client::{Client, ServerOptions, idempotency_key},
    exit::CliError,
    follow::{self, Follower},
    get::show,
    output::{Form, progress::Progress},
    view::JobView,
};

/// What can be done with a job.
#[derive(Debug, Subcommand)]
pub(crate) enum JobVerb {
    /// Follow its steps until it has ended; exit status 1 if it did not succeed
    Watch(JobArguments),
    /// Stop it where it can still be stopped; what it did is undone
    Cancel(JobArguments),
    /// Try it again from the step that failed
    Retry(JobArguments),
}

/// Which job.
#[derive(Debug, Args)]
pub(crate) struct JobArguments {
    /// Its identifier, as `farshore get jobs` shows it
    job: String,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Does it.
pub(crate) async fn run(server: &ServerOptions, verb: JobVerb) -> Result<(), CliError> {
    let client = Client::connect(server).await?;
    match verb {
        JobVerb::Watch(arguments) => watch(&client, &arguments).await,
        JobVerb::Cancel(arguments) => {
            let request = change(&client, &arguments);
            let job = client
                .answer("the cancellation", client.jobs().cancel_job(request))
                .await?;
            show::one(&JobView::from(job), arguments.output)
        }
        JobVerb::Retry(arguments) => {
            let request = change(&client, &arguments);
            let job = client
                .answer("the retry", client.jobs().retry_job(request))
                .await?;
            show::one(&JobView::from(job), arguments.output)
        }
    }
}

async fn watch(client: &Client, arguments: &JobArguments) -> Result<(), CliError> {
    let follower = Follower::new(client.clone(), Progress::for_people());
    let followed = follower.until_ended(&arguments.job);
    let job = follow::within(client, "the job", followed).await?;
    let outcome = follow::outcome_of(&job);
    show::one(&JobView::from(job), arguments.output)?;
    outcome
}

fn change(client: &Client, arguments: &JobArguments) -> tonic::Request<ChangeJobRequest> {
    client.request(ChangeJobRequest {
        idempotency_key: idempotency_key(),
        id: arguments.job.clone(),
    })
}
