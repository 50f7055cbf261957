//! Over a real server and real clients.

use std::future::Future;

use farshore_proto::v1::{
    command::Body, command_result::Outcome, fleet_client::FleetClient, orchestrator_message,
    replicator_message,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Status, Streaming, transport::Server};

use super::*;

mod hostile;

const LONG: Duration = Duration::from_secs(20);
const EAST: (&str, Duty) = ("east", Duty::Source(None));

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.expect("it took too long")
}

struct Served {
    fleet: Fleet,
    url: String,
    server: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(options: FleetOptions) -> Served {
    let fleet = Fleet::new(options);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = Server::builder()
        .add_service(fleet.service())
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(async move { serving.await.unwrap() });
    Served { fleet, url, server }
}

async fn patient() -> Served {
    serve(FleetOptions {
        report_interval: Duration::from_secs(3600),
        ..FleetOptions::default()
    })
    .await
}

/// A replicator as far as the fleet can see it.
struct Peer {
    outbound: mpsc::Sender<v1::ReplicatorMessage>,
    inbound: Streaming<v1::OrchestratorMessage>,
}

fn register(name: &str, site: &str) -> v1::Register {
    v1::Register {
        name: name.to_owned(),
        site: site.to_owned(),
        instance: "1".to_owned(),
        replication_endpoint: "http://127.0.0.1:7201".to_owned(),
        vault_incarnation: vec![7; 16].into(),
        ..v1::Register::default()
    }
}

impl Peer {
    async fn open(served: &Served, first: replicator_message::Body) -> Result<Self, Status> {
        let mut client = FleetClient::connect(served.url.clone()).await.unwrap();
        let (outbound, messages) = mpsc::channel(8);
        let message = v1::ReplicatorMessage { body: Some(first) };
        outbound.send(message).await.unwrap();
        let inbound = within(client.attach(ReceiverStream::new(messages)))
            .await?
            .into_inner();
        Ok(Self { outbound, inbound })
    }

    async fn attach(served: &Served, name: &str, site: &str) -> Self {
        let register = replicator_message::Body::Register(register(name, site));
        let mut peer = Self::open(served, register).await.unwrap();
        let greeting = within(peer.inbound.message()).await.unwrap().unwrap();
        assert!(matches!(
            greeting.body,
            Some(orchestrator_message::Body::Registered(v1::Registered {
                report_interval: Some(_),
                asked_at: Some(_)
            }))
        ));
        peer
    }

    async fn command(&mut self) -> v1::Command {
        loop {
            match within(self.inbound.message()).await.unwrap().unwrap().body {
                Some(orchestrator_message::Body::Command(command)) => return command,
                Some(orchestrator_message::Body::Ask(_) | orchestrator_message::Body::Registered(_)) => {}
                other => panic!("{other:?} is no command"),
            }
        }
    }

    async fn send(&self, body: replicator_message::Body) {
        let message = v1::ReplicatorMessage { body: Some(body) };
        within(self.outbound.send(message)).await.unwrap();
    }

    async fn answer(&self, id: &str, outcome: Outcome) {
        let result = v1::CommandResult {
            id: id.to_owned(),
            outcome: Some(outcome),
        };
        self.send(replicator_message::Body::Result(result)).await;
    }

    /// How the stream ends.
    async fn end(&mut self) -> Status {
        loop {
            match within(self.inbound.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }
}

fn enable() -> Body {
    Body::EnableSource(v1::EnableSource {
        chain: vec![1; 16].into(),
    })
}

fn enabled() -> Outcome {
    Outcome::SourceEnabled(v1::SourceEnabled {})
}

fn report() -> v1::Report {
    v1::Report {
        sources: vec![v1::SourceStatus {
            vm: "shop-db".to_owned(),
            chain: vec![1; 16].into(),
            phase: v1::SourcePhase::Replicating.into(),
            ..v1::SourceStatus::default()
        }],
        ..v1::Report::default()
    }
}

async fn until(fleet: &Fleet, condition: impl FnMut(&Arc<FleetView>) -> bool) {
    within(fleet.views().wait_for(condition)).await.unwrap();
}

fn is_up(view: &FleetView, name: &str) -> bool {
    view.replicators.get(name).is_some_and(|replicator| replicator.up)
}

#[tokio::test]
async fn a_command_is_answered_by_the_replicator_of_its_site() {
    let served = patient().await;
    let mut east = Peer::attach(&served, "e", "east").await;
    let _west = Peer::attach(&served, "w", "west").await;
    let asked = served.fleet.command(EAST, "job/1".to_owned(), enable(), LONG);
    let (outcome, ()) = tokio::join!(asked, async {
        let command = east.command().await;
        assert_eq!((command.id.as_str(), command.body), ("job/1", Some(enable())));
        east.answer("job/1", enabled()).await;
    });
    assert_eq!(outcome, Ok(enabled()));
}

#[tokio::test]
async fn a_failure_that_the_replicator_tells_is_an_outcome() {
    let served = patient().await;
    let mut east = Peer::attach(&served, "e", "east").await;
    let failure = Outcome::Failure(v1::Failure {
        reason: "unknown-chain".to_owned(),
        message: "no such chain".to_owned(),
        retryable: false,
    });
    let asked = served.fleet.command(EAST, "job/1".to_owned(), enable(), LONG);
    let (outcome, ()) = tokio::join!(asked, async {
        let command = east.command().await;
        east.answer(&command.id, failure.clone()).await;
    });
    assert_eq!(outcome, Ok(failure));
}

#[tokio::test]
async fn a_command_waits_for_a_replicator_to_attach() {
    let served = patient().await;
    let asked = served.fleet.command(EAST, "job/1".to_owned(), enable(), LONG);
    // The peer outlives the block: a stream that is cut may lose the answer that it was sending.
    let (outcome, _east) = tokio::join!(asked, async {
        let mut east = Peer::attach(&served, "e", "east").await;
        let command = east.command().await;
        east.answer(&command.id, enabled()).await;
        east
    });
    assert_eq!(outcome, Ok(enabled()));
}

#[tokio::test]
async fn a_command_is_sent_again_under_its_identifier_after_a_reattach() {
    let served = patient().await;
    let asked = served.fleet.command(EAST, "job/1".to_owned(), enable(), LONG);
    let (outcome, _third) = tokio::join!(asked, async {
        let mut first = Peer::attach(&served, "e", "east").await;
        assert_eq!(first.command().await.id, "job/1");
        drop(first);
        until(&served.fleet, |view| !is_up(view, "e")).await;
        let mut second = Peer::attach(&served, "e", "east").await;
        assert_eq!(second.command().await.id, "job/1");
        // The first stream is replaced while it is still open.
        let mut third = Peer::attach(&served, "e", "east").await;
        assert_eq!(third.command().await.id, "job/1");
        third.answer("job/1", enabled()).await;
        assert_eq!(second.end().await.code(), Code::Aborted);
        third
    });
    assert_eq!(outcome, Ok(enabled()));
}

#[tokio::test]
async fn a_command_ends_at_its_deadline_and_says_whether_anybody_was_there() {
    let served = patient().await;
    let soon = Duration::from_millis(50);
    let nobody = served
        .fleet
        .command(EAST, "job/1".to_owned(), enable(), soon)
        .await;
    assert!(
        matches!(nobody, Err(FleetError::Unreachable { .. })),
        "{nobody:?}"
    );
    let _east = Peer::attach(&served, "e", "east").await;
    let silence = served
        .fleet
        .command(EAST, "job/1".to_owned(), enable(), soon)
        .await;
    assert!(matches!(silence, Err(FleetError::NoAnswer { .. })), "{silence:?}");
}

#[tokio::test]
async fn a_late_result_is_ignored_and_the_stream_lives_on() {
    let served = patient().await;
    let mut east = Peer::attach(&served, "e", "east").await;
    let soon = Duration::from_millis(50);
    let missed = served
        .fleet
        .command(EAST, "job/1".to_owned(), enable(), soon)
        .await;
    assert!(missed.is_err());
    assert_eq!(east.command().await.id, "job/1");
    east.answer("job/1", enabled()).await;
    let asked = served.fleet.command(EAST, "job/2".to_owned(), enable(), LONG);
    let (outcome, ()) = tokio::join!(asked, async {
        assert_eq!(east.command().await.id, "job/2");
        east.answer("job/2", enabled()).await;
    });
    assert_eq!(outcome, Ok(enabled()));
}

#[tokio::test]
async fn a_command_in_flight_is_not_asked_twice_at_once_but_may_be_asked_anew() {
    let served = patient().await;
    let mut east = Peer::attach(&served, "e", "east").await;
    let fleet = served.fleet.clone();
    let first = tokio::spawn(async move { fleet.command(EAST, "job/1".to_owned(), enable(), LONG).await });
    assert_eq!(east.command().await.id, "job/1");
    let second = served
        .fleet
        .command(EAST, "job/1".to_owned(), enable(), LONG)
        .await;
    assert_eq!(
        second,
        Err(FleetError::InFlight {
            id: "job/1".to_owned()
        })
    );
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let anew = served.fleet.command(EAST, "job/1".to_owned(), enable(), LONG);
    let (outcome, ()) = tokio::join!(anew, async {
        assert_eq!(east.command().await.id, "job/1");
        east.answer("job/1", enabled()).await;
    });
    assert_eq!(outcome, Ok(enabled()));
}

#[tokio::test]
async fn a_replicator_is_down_when_its_stream_ends_and_its_last_report_is_kept() {
    let served = patient().await;
    let east = Peer::attach(&served, "e", "east").await;
    east.send(replicator_message::Body::Report(report())).await;
    until(&served.fleet, |view| {
        is_up(view, "e") && view.replicators["e"].report.is_some()
    })
    .await;
    drop(east);
    until(&served.fleet, |view| !is_up(view, "e")).await;
    let view = served.fleet.views().borrow().clone();
    assert_eq!(view.replicators["e"].report, Some(report()));
}

#[tokio::test]
async fn a_replicator_that_does_not_report_is_down_until_it_does() {
    let served = serve(FleetOptions {
        report_interval: Duration::from_millis(100),
        ..FleetOptions::default()
    })
    .await;
    let mut views = served.fleet.views();
    let mut east = Peer::attach(&served, "e", "east").await;
    within(views.wait_for(|view| view.replicators.contains_key("e") && !is_up(view, "e")))
        .await
        .unwrap();
    // Silent, but attached: commands reach it and are answered.
    let asked = served.fleet.command(EAST, "job/1".to_owned(), enable(), LONG);
    let (outcome, ()) = tokio::join!(asked, async {
        let command = east.command().await;
        east.answer(&command.id, enabled()).await;
    });
    assert_eq!(outcome, Ok(enabled()));
    east.send(replicator_message::Body::Report(report())).await;
    within(views.wait_for(|view| is_up(view, "e"))).await.unwrap();
}

#[tokio::test]
async fn a_second_vault_at_a_site_is_refused_with_the_name_of_the_first() {
    let served = patient().await;
    let _east = Peer::attach(&served, "e", "east").await;
    let second = replicator_message::Body::Register(register("other", "east"));
    let refused = Peer::open(&served, second).await.err().unwrap();
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert_eq!(
        refused.message(),
        "the site east has the replicator e with a vault attached; a site has one vault"
    );
}

#[tokio::test]
async fn each_of_several_replicators_of_a_site_gets_what_is_for_it() {
    let served = patient().await;
    let source = |name: &str| {
        let register = v1::Register {
            replication_endpoint: String::new(),
            vault_incarnation: Vec::new().into(),
            captures: Some(true),
            ..register(name, "east")
        };
        Peer::open(&served, replicator_message::Body::Register(register))
    };
    let (mut one, mut other) = (source("e1").await.unwrap(), source("e2").await.unwrap());
    for (name, peer) in [("e1", &mut one), ("e2", &mut other)] {
        let meant = ("east", Duty::Source(Some(name.to_owned())));
        let asked = served.fleet.command(meant, format!("job/{name}"), enable(), LONG);
        let (outcome, ()) = tokio::join!(asked, async {
            let command = peer.command().await;
            assert_eq!(command.id, format!("job/{name}"));
            peer.answer(&command.id, enabled()).await;
        });
        assert_eq!(outcome, Ok(enabled()));
    }
    let any = served.fleet.command(EAST, "job/any".to_owned(), enable(), LONG);
    assert_eq!(
        any.await,
        Err(FleetError::Ambiguous {
            site: "east".to_owned(),
            names: vec!["e1".to_owned(), "e2".to_owned()],
        })
    );
    let meant = ("east", Duty::Source(Some("e3".to_owned())));
    let soon = Duration::from_millis(50);
    let nobody = served.fleet.command(meant, "job/3".to_owned(), enable(), soon);
    assert!(matches!(
        nobody.await,
        Err(FleetError::NamedUnreachable { replicator, .. }) if replicator == "e3"
    ));
}

#[tokio::test]
async fn closing_ends_streams_and_commands() {
    let served = patient().await;
    let mut east = Peer::attach(&served, "e", "east").await;
    let asked = served.fleet.command(EAST, "job/1".to_owned(), enable(), LONG);
    let (answered, ()) = tokio::join!(asked, async {
        assert_eq!(east.command().await.id, "job/1");
        let ((), status) = tokio::join!(within(served.fleet.close()), east.end());
        assert_eq!(status.code(), Code::Unavailable);
    });
    assert_eq!(answered, Err(FleetError::Closing));
    let again = replicator_message::Body::Register(register("e", "east"));
    let refused = Peer::open(&served, again).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
}
