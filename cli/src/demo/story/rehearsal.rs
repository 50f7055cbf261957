//! A test failover of one VM: a clone in an isolated network, judged, and removed without a trace.

use std::time::Duration;

use anyhow::Context;
use farshore_blocks::clock::WallTime;
use farshore_guest::{status::Status, witness::Acknowledged};
use tokio::time::Instant;

use super::Stage;
use crate::{
    demo::{
        enclosed::{self, Reached},
        guests::{BOOT_LIMIT, Guest},
        judging::judge_point,
        layout::Site,
        network,
        patience::until,
        report::RehearsalReport,
    },
    failover::{cleanup_test, get_test, start_test},
    follow::Follower,
    get::lists,
    output::format,
    view::TestFailoverView,
};

/// The bridge inside each bubble.
const BUBBLE_BRIDGE: &str = "br0";
/// Our own production address inside the bubble.
const PROBE_HOST: u8 = 200;
const POINT_LIMIT: Duration = Duration::from_secs(60);

/// Rehearses.
pub(super) async fn tell(stage: &mut Stage) -> anyhow::Result<RehearsalReport> {
    stage
        .story
        .narrator
        .chapter("6. A rehearsal: farshore failover test shop-web, while production runs on");
    let [other, rehearsed] = stage.guests.as_slice() else {
        anyhow::bail!("the story needs two guests");
    };
    let (other, rehearsed) = (other.clone(), rehearsed.clone());
    let (point, known) = point_after_now(stage, &rehearsed).await?;

    let ordered = Instant::now();
    let test = start_test(&stage.client, &rehearsed.name, &point.to_string()).await?;
    let follower = Follower::new(stage.client.clone(), stage.story.narrator.progress());
    follower.until_done(&test.job).await?;
    let test = TestFailoverView::from(get_test(&stage.client, &test.name).await?);
    let recovered = test.recovered.as_ref().context("the test failover has no VM")?;
    let bubble = recovered
        .namespace
        .clone()
        .context("the test failover has no network of its own")?;
    let order_to_start = recovered.order_to_running_seconds;
    stage.tell(&format!(
        "a clone of {} runs from point {point}, {} after the order; it has not copied a byte",
        rehearsed.name,
        format::optional_seconds(order_to_start)
    ));

    network::enter_bubble(&stage.ip(), &bubble, BUBBLE_BRIDGE, PROBE_HOST).await?;
    let status = until_it_answers(&bubble, &rehearsed).await?;
    let order_to_service = ordered.elapsed().as_secs_f64();
    judge_clone(stage, &rehearsed, point, known, &status).await?;
    let listed_no_way_out = recovered.ways_out.is_empty();
    let isolation_proven = judge_isolation(stage, &bubble, &rehearsed, &other).await? && listed_no_way_out;
    network::leave_bubble(&stage.ip(), &bubble, BUBBLE_BRIDGE, PROBE_HOST).await?;
    judge_production(stage, &rehearsed, point).await?;
    let leaks = clean_up(stage, &follower, &test.name, &bubble).await?;
    Ok(RehearsalReport {
        vm: rehearsed.name,
        point,
        order_to_start_seconds: order_to_start,
        order_to_service_seconds: order_to_service,
        isolation_proven,
        leaks,
    })
}

/// A point whose instant is after everything that the witness has heard by now; so it must hold all of that.
async fn point_after_now(stage: &Stage, guest: &Guest) -> anyhow::Result<(u64, Acknowledged)> {
    let known = guest.testimony()?.acknowledged;
    let now = WallTime::now().to_rfc3339();
    until(
        &format!("a further point of {}", guest.name),
        POINT_LIMIT,
        || async {
            let points = lists::points(&stage.client, &guest.name).await?;
            // Both times are RFC 3339 in UTC to the millisecond, so that their texts have their order.
            let later = points
                .iter()
                .rfind(|point| point.captured_at.as_ref().is_some_and(|time| *time > now));
            Ok(later.map(|point| (point.sequence, known)))
        },
    )
    .await
}

/// Until the guest answers, asked from inside the namespace.
pub(super) async fn until_it_answers(namespace: &str, guest: &Guest) -> anyhow::Result<Status> {
    until(
        &format!("the answer of {} in {namespace}", guest.name),
        BOOT_LIMIT,
        || enclosed::status(namespace, guest.socket()),
    )
    .await
}

async fn judge_clone(
    stage: &mut Stage,
    guest: &Guest,
    point: u64,
    known: Acknowledged,
    status: &Status,
) -> anyhow::Result<()> {
    let (vault, name) = (stage.story.layout.vault(), guest.name.clone());
    let judged = stage
        .story
        .blocking
        .spawn_blocking(move || judge_point(&vault, &name, point, known));
    let judgement = judged.await??;
    let lost = judgement.acknowledged_lost_a.max(judgement.acknowledged_lost_b);
    stage.judge(
        format!(
            "point {point} of {} holds all that was written before it",
            guest.name
        ),
        judgement.lost_nothing(),
        format!(
            "records to {}, none torn or out of order, {lost} missing",
            judgement.region_a.last
        ),
    );
    let found = &status.boot_verdict;
    stage.judge(
        "the clone found its disks whole",
        found.is_clean() && found.region_a_last == judgement.region_a.last && status.io_errors == 0,
        format!(
            "records to {}, file system clean: {}",
            found.region_a_last, found.ext4_clean
        ),
    );
    Ok(())
}

/// The clone must not reach what the original reaches.
async fn judge_isolation(
    stage: &mut Stage,
    bubble: &str,
    guest: &Guest,
    other: &Guest,
) -> anyhow::Result<bool> {
    let east = stage.story.layout.namespace(Site::East);
    let original = enclosed::probe(&east, guest.socket(), other.socket()).await?;
    let clone = enclosed::probe(bubble, guest.socket(), other.socket()).await?;
    let (held, found) = match (&original, &clone) {
        (Reached::Answered { bytes }, Reached::Nothing { why }) => (
            true,
            format!(
                "the original gets {bytes} bytes from {}, the clone none ({why})",
                other.name
            ),
        ),
        (Reached::Answered { .. }, Reached::Answered { bytes }) => (
            false,
            format!("the clone got {bytes} bytes from {} in production", other.name),
        ),
        (Reached::Nothing { why }, _) => (
            false,
            format!(
                "nothing is proven: not even the original reaches {} ({why})",
                other.name
            ),
        ),
    };
    stage.judge("the clone cannot reach production", held, found);
    Ok(held)
}

async fn judge_production(stage: &mut Stage, guest: &Guest, point: u64) -> anyhow::Result<()> {
    let newest = lists::points(&stage.client, &guest.name)
        .await?
        .first()
        .map_or(0, |newest| newest.sequence);
    let errors = guest.testimony()?.errors;
    stage.judge(
        "replication and production went on meanwhile",
        newest > point && errors.is_empty(),
        format!(
            "the newest point is {newest}, and the original saw {} errors",
            errors.len()
        ),
    );
    Ok(())
}

async fn clean_up(
    stage: &mut Stage,
    follower: &Follower,
    test: &str,
    bubble: &str,
) -> anyhow::Result<Vec<String>> {
    let cleanup = cleanup_test(&stage.client, test, "told by the demo".to_owned(), false).await?;
    follower.until_done(&cleanup.job).await?;
    let ended = TestFailoverView::from(get_test(&stage.client, test).await?);
    let mut leaks: Vec<String> = ended
        .leaks
        .iter()
        .map(|leak| format!("{} {}", leak.kind, leak.name))
        .collect();
    if network::namespaces().iter().any(|name| name == bubble) {
        leaks.push(format!("namespace {bubble}"));
    }
    let found = if leaks.is_empty() {
        "nothing".to_owned()
    } else {
        leaks.join(", ")
    };
    let clean = leaks.is_empty() && ended.state == "Cleaned";
    stage.judge("what the rehearsal left behind", clean, found);
    Ok(leaks)
}
