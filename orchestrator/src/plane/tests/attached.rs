//! A scripted world whose replicators attach over gRPC, as real ones do, and again when the stream ends.

use std::{net::SocketAddr, time::Duration};

use farshore_proto::v1::{self, fleet_client::FleetClient, orchestrator_message, replicator_message::Body};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;

use crate::replicators::{
    Replicators,
    scripted::{SITES, Scripted, part_of},
};

/// The replicators of both sites; dropped, they detach.
pub(super) fn attach(address: SocketAddr, world: &Scripted) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for site in SITES {
        let world = world.clone();
        tasks.spawn(async move {
            loop {
                attach_once(address, site, &world).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    tasks
}

async fn attach_once(address: SocketAddr, site: &'static str, world: &Scripted) -> Option<()> {
    let mut views = world.reports();
    views
        .wait_for(|view| view.replicators[&format!("{site}-1")].up)
        .await
        .ok()?;
    let (outbound, messages) = mpsc::channel(64);
    let send = |body| outbound.send(v1::ReplicatorMessage { body: Some(body) });
    send(Body::Register(Scripted::register(site))).await.ok()?;
    let mut client = FleetClient::connect(format!("http://{address}")).await.ok()?;
    let mut inbound = client
        .attach(ReceiverStream::new(messages))
        .await
        .ok()?
        .into_inner();
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            _ = ticks.tick() => send(Body::Report(world.report(site))).await.ok()?,
            changed = views.changed() => {
                changed.ok()?;
                if world.world().away.contains(site) {
                    return None;
                }
                send(Body::Report(world.report(site))).await.ok()?;
            }
            message = inbound.message() => match message.ok()??.body? {
                orchestrator_message::Body::Registered(_) | orchestrator_message::Body::Ask(_) => {}
                orchestrator_message::Body::Command(command) => {
                    let body = command.body?;
                    if world.world().stuck.contains(part_of(&body)) {
                        world.world().asked.push((command.id, part_of(&body)));
                        continue;
                    }
                    let outcome = world.carry_out(&command.id, &body)?;
                    let result = v1::CommandResult { id: command.id, outcome: Some(outcome) };
                    send(Body::Result(result)).await.ok()?;
                }
            }
        }
    }
}
