//! East is gone from one moment to the next, and its VMs come up at west.

use std::time::Duration;

use anyhow::Context;
use farshore_blocks::clock::WallTime;
use farshore_guest::{status::Status, witness::Acknowledged};
use jiff::Timestamp;
use tokio::{task::JoinSet, time::Instant};

use super::{Stage, rehearsal::until_it_answers};
use crate::{
    client::Client,
    demo::{
        enclosed, guests::Guest, judging::judge_point, layout::Site, patience::until, report::RecoveryReport,
    },
    failover::{get_vm, start_unplanned},
    follow::Follower,
    get::lists,
    output::{format, progress::Progress},
    view::VmView,
};

const GOES_ON_LIMIT: Duration = Duration::from_secs(60);

/// What a VM was when its site was lost.
struct Lost {
    guest: Guest,
    acknowledged: Acknowledged,
    at: WallTime,
}

/// A VM that came up at west.
struct Recovered {
    lost: Lost,
    vm: VmView,
    status: Status,
    rto_seconds: f64,
    service_seconds: f64,
}

/// Destroys east and recovers at west.
pub(super) async fn tell(stage: &mut Stage) -> anyhow::Result<Vec<RecoveryReport>> {
    stage
        .story
        .narrator
        .chapter("7. Disaster: both virtual machines and east's replicator are killed, all at once");
    let lost = destroy_east(stage).await?;

    stage
        .story
        .narrator
        .chapter("8. farshore failover unplanned shop-db; farshore failover unplanned shop-web");
    let west = stage.story.layout.namespace(Site::West);
    let mut recoveries = JoinSet::new();
    for lost in lost {
        let (client, west, progress) = (
            stage.client.clone(),
            west.clone(),
            stage.story.narrator.progress(),
        );
        recoveries.spawn(async move { recover(&client, progress, &west, lost).await });
    }
    let mut recovered = Vec::new();
    while let Some(one) = recoveries.join_next().await {
        let one = one??;
        stage.tell(&format!(
            "{} runs at west from point {}, {} after the order, and serves after {}",
            one.vm.name,
            point_of(&one.vm)?,
            format::seconds(one.rto_seconds),
            format::seconds(one.service_seconds)
        ));
        recovered.push(one);
    }
    recovered.sort_by(|one, other| one.vm.name.cmp(&other.vm.name));

    stage.story.narrator.chapter("9. What was lost?");
    let mut reports = Vec::new();
    for one in recovered {
        reports.push(judge(stage, &west, one).await?);
    }
    Ok(reports)
}

async fn destroy_east(stage: &mut Stage) -> anyhow::Result<Vec<Lost>> {
    let mut lost = Vec::new();
    for guest in stage.guests.clone() {
        guest.kill9(&stage.story.blocking).await?;
        let at = WallTime::now();
        lost.push(Lost {
            acknowledged: guest.testimony()?.acknowledged,
            guest,
            at,
        });
    }
    stage.east_replicator.kill9().await?;
    for one in &lost {
        stage.tell(&format!(
            "{} is dead; the last record that it was told is safe was number {}",
            one.guest.name, one.acknowledged.region_a
        ));
    }
    Ok(lost)
}

async fn recover(client: &Client, progress: Progress, west: &str, lost: Lost) -> anyhow::Result<Recovered> {
    let name = lost.guest.name.clone();
    let ordered = Instant::now();
    let job = start_unplanned(client, &name, "latest").await?;
    Follower::new(client.clone(), progress)
        .until_done(&job.id)
        .await?;
    let rto_seconds = ordered.elapsed().as_secs_f64();
    let status = until_it_answers(west, &lost.guest).await?;
    let service_seconds = ordered.elapsed().as_secs_f64();
    let vm = VmView::from(get_vm(client, &name).await?);
    Ok(Recovered {
        lost,
        vm,
        status,
        rto_seconds,
        service_seconds,
    })
}

async fn judge(stage: &mut Stage, west: &str, one: Recovered) -> anyhow::Result<RecoveryReport> {
    let Recovered {
        lost,
        vm,
        status,
        rto_seconds,
        service_seconds,
    } = one;
    let (name, point) = (vm.name.clone(), point_of(&vm)?);
    let (vault, judged_name, acknowledged) = (stage.story.layout.vault(), name.clone(), lost.acknowledged);
    let judged = stage
        .story
        .blocking
        .spawn_blocking(move || judge_point(&vault, &judged_name, point, acknowledged));
    let judgement = judged.await??;
    let lost_records = judgement.acknowledged_lost_a.max(judgement.acknowledged_lost_b);
    let lost_seconds = seconds_lost(stage, &lost, &name, point).await?;

    let exact = judgement.is_exact_instant();
    let found = format!(
        "records 1 to {}, none torn, missing or out of order",
        judgement.region_a.last
    );
    stage.judge(
        format!("{name}: point {point} is an exact instant of it"),
        exact,
        if exact { found } else { judgement.describe() },
    );
    let found = &status.boot_verdict;
    stage.judge(
        format!("{name}: the recovered VM found its disks whole"),
        found.is_clean() && found.region_a_last == judgement.region_a.last,
        format!(
            "records to {}, {} torn, {} missing, file system clean: {}",
            found.region_a_last, found.torn, found.gaps, found.ext4_clean
        ),
    );
    let later = goes_on(west, &lost.guest, &status).await?;
    stage.judge(
        format!("{name}: it goes on where it was"),
        later.io_errors == 0,
        format!("records to {} by now, {} errors", later.last_a, later.io_errors),
    );
    let target = vm.rpo_target_seconds.unwrap_or(0.0);
    stage.judge(
        format!("{name}: no more is lost than the policy allows"),
        lost_seconds <= target,
        format!(
            "{lost_records} acknowledged records, {} of at most {}",
            format::seconds(lost_seconds),
            format::seconds(target)
        ),
    );
    stage.judge(
        format!("{name}: it is failed over"),
        vm.failover == "FailedOver",
        vm.failover.clone(),
    );
    Ok(RecoveryReport {
        points_kept: vm.points,
        recovered_point: point,
        acknowledged_records: lost.acknowledged.region_a,
        lost_records,
        lost_seconds,
        rto_seconds,
        order_to_service_seconds: service_seconds,
        vm: name,
    })
}

async fn goes_on(west: &str, guest: &Guest, first: &Status) -> anyhow::Result<Status> {
    until(
        &format!("a new record of {}", guest.name),
        GOES_ON_LIMIT,
        || async {
            let now = enclosed::status(west, guest.socket()).await?;
            Ok(now.filter(|now| now.last_a > first.last_a))
        },
    )
    .await
}

async fn seconds_lost(stage: &Stage, lost: &Lost, name: &str, point: u64) -> anyhow::Result<f64> {
    let points = lists::points(&stage.client, name).await?;
    let captured = points
        .into_iter()
        .find(|candidate| candidate.sequence == point)
        .and_then(|point| point.captured_at);
    let captured: Timestamp = captured
        .with_context(|| format!("point {point} of {name} is not listed"))?
        .parse()?;
    let captured = WallTime(u64::try_from(captured.as_nanosecond())?);
    Ok(lost.at.since(captured).as_secs_f64())
}

fn point_of(vm: &VmView) -> anyhow::Result<u64> {
    let recovered = vm
        .recovered
        .as_ref()
        .with_context(|| format!("{} has no recovered VM", vm.name))?;
    Ok(recovered.point)
}
