//! Two sites, two virtual machines, an orchestrator and two replicators.

use super::{Stage, Story};
use crate::{
    client::{Client, ServerOptions},
    demo::{
        guests,
        layout::Site,
        manifests,
        network::{self, Ip},
        processes,
        report::Verdicts,
    },
};

/// Opens the stage.
pub(super) async fn tell(story: Story) -> anyhow::Result<Stage> {
    let (layout, narrator) = (story.layout.clone(), story.narrator.clone());
    narrator.plain(
        "Farshore's demo: two sites on this machine, real virtual machines, a rehearsal and a disaster.",
    );
    narrator.plain(&format!(
        "Its files are in {}. Ctrl-C ends it at any moment and leaves nothing behind.",
        layout.directory().display()
    ));

    narrator.chapter("1. Two sites, and a production network in each");
    network::make(&Ip(story.blocking.clone()), &layout).await?;
    let [east, west, _] = layout.namespaces();
    narrator.tell(&format!(
        "east and west are network namespaces, {east} and {west}, with a network between them"
    ));

    narrator.chapter("2. Two virtual machines run at east");
    let vms = manifests::declared_vms()?;
    let disks = guests::build(&layout, &vms, &story.blocking).await?;
    narrator.tell(&format!(
        "their disks are built: they boot by themselves and write {} numbered records a second",
        guests::RECORDS_PER_SECOND
    ));
    let guests = guests::start(&layout, &vms, &disks, story.accelerator, &story.blocking).await?;
    for guest in &guests {
        narrator.tell(&format!(
            "{} is up at {}; a witness notes each record that it has safely written",
            guest.name,
            guest.socket().ip()
        ));
    }

    narrator.chapter("3. Farshore starts: the orchestrator at west, a replicator at each site");
    let orchestrator = processes::start_orchestrator(&layout).await?;
    narrator.tell(&format!("the orchestrator listens on {}", layout.orchestrator()));
    let west_replicator = processes::start_replicator(&layout, Site::West, story.accelerator).await?;
    let east_replicator = processes::start_replicator(&layout, Site::East, story.accelerator).await?;
    let client = Client::connect(&ServerOptions::at(format!("http://{}", layout.orchestrator()))).await?;
    Ok(Stage {
        story,
        client,
        guests,
        east_replicator,
        _others: [orchestrator, west_replicator],
        verdicts: Verdicts::default(),
    })
}
