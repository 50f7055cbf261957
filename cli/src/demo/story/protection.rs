//! Both VMs become protected while they run.

use std::time::Duration;

use tokio::task::JoinSet;

use super::Stage;
use crate::{
    apply::apply,
    demo::{manifests, patience::until},
    follow::Follower,
    get::lists,
    manifest,
    output::format,
    view::VmView,
};

/// How long replicators may take to come up.
const ATTACH_LIMIT: Duration = Duration::from_secs(30);
/// How long the initial sync may take.
const PROTECT_LIMIT: Duration = Duration::from_secs(300);
/// How long the first points may take.
const POINTS_LIMIT: Duration = Duration::from_secs(60);
/// How many points are waited for.
const FIRST_POINTS: u64 = 3;

/// Declares, follows, and waits for the first points.
pub(super) async fn tell(stage: &Stage) -> anyhow::Result<()> {
    let narrator = &stage.story.narrator;
    until_attached(stage).await?;
    stage.tell("both replicators are attached");

    narrator.chapter("4. Protection is declared: farshore apply -f quickstart --wait");
    let files = manifest::read(&manifests::write(&stage.story.layout)?)?;
    let response = apply(&stage.client, manifest::joined(&files), false).await?;
    let follower = Follower::new(stage.client.clone(), narrator.progress());
    let mut waits = JoinSet::new();
    for applied in response
        .applied
        .into_iter()
        .filter(|applied| applied.kind == "ProtectedVm")
    {
        let follower = follower.clone();
        waits.spawn(async move {
            let job = Some(applied.job.as_str()).filter(|job| !job.is_empty());
            follower.until_protected(&applied.name, job).await
        });
    }
    let protected = async {
        while let Some(vm) = waits.join_next().await {
            vm??;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PROTECT_LIMIT, protected)
        .await
        .map_err(|_| anyhow::anyhow!("the VMs were not protected within {} s", PROTECT_LIMIT.as_secs()))??;

    narrator.chapter("5. From now on a recovery point every two seconds, while the VMs run on");
    for guest in &stage.guests {
        let vm = until_points(stage, &guest.name).await?;
        let hold = format::optional_seconds(vm.last_hold_seconds);
        stage.tell(&format!(
            "{}: {} points; the last cycle took {} and held the guest's writes for {hold}",
            vm.name,
            vm.points,
            format::optional_seconds(vm.last_cycle_seconds),
        ));
    }
    Ok(())
}

async fn until_attached(stage: &Stage) -> anyhow::Result<()> {
    until("the attachment of both replicators", ATTACH_LIMIT, || async {
        let replicators = lists::replicators(&stage.client, None).await?;
        let up = replicators.iter().filter(|replicator| replicator.up).count();
        Ok((up == 2).then_some(()))
    })
    .await
}

async fn until_points(stage: &Stage, name: &str) -> anyhow::Result<VmView> {
    until(
        &format!("point {FIRST_POINTS} of {name}"),
        POINTS_LIMIT,
        || async {
            let vms = lists::vms(&stage.client, Some(name)).await?;
            Ok(vms.into_iter().next().filter(|vm| vm.points >= FIRST_POINTS))
        },
    )
    .await
}
