//! `point pin|unpin`: keeps a recovery point whatever retention says, or no longer.

use clap::{Args, Subcommand};
use farshore_proto::v1::{PinPointRequest, UnpinPointRequest};

use crate::{
    client::{Client, ServerOptions, idempotency_key},
    exit::CliError,
    get::show,
    output::Form,
    view::PointView,
};

/// What can be done with a recovery point.
#[derive(Debug, Subcommand)]
pub(crate) enum PointVerb {
    /// Keep it, whatever retention says
    Pin {
        #[command(flatten)]
        which: PointArguments,
        /// Lock it until this RFC 3339 time: before that nobody can release it, and no lock can be shortened
        #[arg(long, value_name = "TIME", default_value = "", hide_default_value = true)]
        until: String,
    },
    /// Let it go when retention says so; refused while it is locked
    Unpin(PointArguments),
}

/// Which point.
#[derive(Debug, Args)]
pub(crate) struct PointArguments {
    /// The protected VM
    vm: String,
    /// Its sequence, as `farshore get points` shows it, `latest`, or an RFC 3339 time
    point: String,
    /// The form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// Does it.
pub(crate) async fn run(server: &ServerOptions, verb: PointVerb) -> Result<(), CliError> {
    let client = Client::connect(server).await?;
    let (which, point) = match verb {
        PointVerb::Pin { which, until } => {
            let request = client.request(PinPointRequest {
                idempotency_key: idempotency_key(),
                vm: which.vm.clone(),
                point: which.point.clone(),
                until,
            });
            let mut protection = client.protection();
            (
                which,
                client.answer("the pin", protection.pin_point(request)).await?,
            )
        }
        PointVerb::Unpin(which) => {
            let request = client.request(UnpinPointRequest {
                idempotency_key: idempotency_key(),
                vm: which.vm.clone(),
                point: which.point.clone(),
            });
            let mut protection = client.protection();
            (
                which,
                client
                    .answer("the unpinning", protection.unpin_point(request))
                    .await?,
            )
        }
    };
    show::one(&PointView::from(point), which.output)
}
