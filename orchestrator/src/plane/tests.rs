//! The whole control plane over a real server: users and replicators speak gRPC to it.

mod attached;
mod dialling;
mod disks;
mod groups;
mod interruptions;
mod scene;
mod seeds;
mod user;
mod vault;

use std::time::Duration;

use farshore_proto::v1::{self, JobState, ProtectionState};
use tokio::time::timeout;
use tonic::Code;

use super::*;
use crate::replicators::scripted::{Fault, MANIFEST, Scripted};
use attached::attach;
use scene::Scene;
use user::User;

const LONG: Duration = Duration::from_secs(30);

/// A running control plane over a directory.
struct Running {
    stop: CancellationToken,
    address: std::net::SocketAddr,
    http: std::net::SocketAddr,
    ended: tokio::task::JoinHandle<Result<(), PlaneError>>,
}

impl Running {
    async fn start(directory: &Path) -> Self {
        Self::start_at(directory, "127.0.0.1:0".parse().unwrap()).await
    }

    async fn start_at(directory: &Path, address: std::net::SocketAddr) -> Self {
        let stop = CancellationToken::new();
        let plane = Plane::open(directory, stop.clone()).unwrap();
        let listeners = Listeners {
            grpc: TcpListener::bind(address).await.unwrap(),
            http: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        };
        Self {
            stop,
            address: listeners.grpc.local_addr().unwrap(),
            http: listeners.http.local_addr().unwrap(),
            ended: tokio::spawn(plane.run(listeners)),
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(LONG, self.ended).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_applied_vm_is_protected_in_the_five_classic_steps() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let world = Scripted::new();
    world.change(|world| world.enabled_phase = Some(v1::SourcePhase::InitialSync));
    let _replicators = attach(plane.address, &world);
    let user = User::connect(plane.address).await;

    let applied = user.apply("key-1", MANIFEST).await.unwrap();
    let effects: Vec<_> = applied
        .iter()
        .map(|applied| (applied.kind.as_str(), applied.effect()))
        .collect();
    let created = v1::ApplyEffect::Created;
    assert_eq!(
        effects,
        [
            ("Site", created),
            ("Site", created),
            ("ReplicationPolicy", created),
            ("ProtectedVm", created)
        ]
    );
    let job = user.watch_job(&applied[3].job).await;
    assert_eq!(job.state(), JobState::Succeeded, "{job:?}");
    assert_eq!(
        (job.kind.as_str(), job.subject.as_str()),
        ("enable-protection", "vm/shop-db")
    );
    let steps: Vec<_> = job
        .steps
        .iter()
        .map(|step| (step.name.as_str(), step.state()))
        .collect();
    let done = v1::StepState::Done;
    assert_eq!(
        steps,
        [
            ("Prerequisites check", done),
            ("Installing Mobility Service and preparing target", done),
            ("Enable replication", done),
            ("Starting initial replication", done),
            ("Updating provider states", done),
        ]
    );
    plane.stop().await;
}

#[tokio::test]
async fn the_state_of_a_vm_follows_what_its_replicators_report() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let world = Scripted::new();
    world.change(|world| world.enabled_phase = Some(v1::SourcePhase::InitialSync));
    let replicators = attach(plane.address, &world);
    let user = User::connect(plane.address).await;
    let job = user.apply("", MANIFEST).await.unwrap()[3].job.clone();
    user.watch_job(&job).await;
    let vm = user.vm_in(ProtectionState::InitialSync).await;
    assert_eq!((vm.sync_done_bytes, vm.sync_total_bytes, vm.rpo), (5, 10, None));
    assert_eq!(vm.checks.len(), 2);

    world.change(|world| {
        for (chain, (_, phase)) in &mut world.sources {
            *phase = v1::SourcePhase::Replicating;
            world.points.insert(chain.clone(), 1);
        }
    });
    let vm = user.vm_in(ProtectionState::Protected).await;
    assert!(vm.rpo.is_some() && vm.active_job.is_empty(), "{vm:?}");
    assert_eq!(
        vm.allowed_operations,
        ["disable-protection", "test-failover", "unplanned-failover"]
    );
    assert_eq!(user.points().await.len(), 1);
    let codes: Vec<_> = user
        .events("vm/shop-db")
        .await
        .into_iter()
        .map(|event| event.code)
        .collect();
    assert_eq!(
        codes,
        ["protected", "job-succeeded", "initial-sync-started", "declared"]
    );
    drop(replicators);
    plane.stop().await;
}

#[tokio::test]
async fn the_same_key_with_the_same_request_has_its_effect_once() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let user = User::connect(plane.address).await;
    let first = user.apply("key-1", MANIFEST).await.unwrap();
    let again = user.apply("key-1", MANIFEST).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(user.jobs().await.len(), 1);
    let refused = user.apply("key-1", "apiVersion: farshore/v1").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let other = MANIFEST.replace("rpoTarget: 15s", "rpoTarget: 16s");
    let refused = user.apply("key-1", &other).await.unwrap_err();
    assert_eq!(reason(&refused), "idempotency-key-reused");
    // Without the key it is a new order, which finds everything as it is.
    let unchanged = user.apply("key-2", MANIFEST).await.unwrap();
    assert!(
        unchanged
            .iter()
            .all(|applied| applied.effect() == v1::ApplyEffect::Unchanged)
    );
    assert_eq!(user.jobs().await.len(), 1);
    plane.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_its_reason_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let user = User::connect(plane.address).await;
    let cases = [
        ("", Code::InvalidArgument, "invalid-manifest"),
        (
            "apiVersion: farshore/v1\nkind: Sight\n",
            Code::InvalidArgument,
            "invalid-manifest",
        ),
        (
            &MANIFEST.replace("policy: gold", "policy: gould"),
            Code::InvalidArgument,
            "missing-reference",
        ),
    ];
    for (manifest, code, expected) in cases {
        let refused = user.apply("", manifest).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (code, expected),
            "{refused:?}"
        );
    }
    assert!(user.jobs().await.is_empty() && user.vm().await.is_err());
    let preview = user.dry_run(MANIFEST).await.unwrap();
    assert!(
        preview
            .iter()
            .all(|applied| applied.effect() == v1::ApplyEffect::Created && applied.job.is_empty())
    );
    assert!(user.vm().await.is_err());

    user.apply("", MANIFEST).await.unwrap();
    let refused = user.start_test("latest").await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::FailedPrecondition, "no-recovery-point")
    );
    let refused = user.start_test("yesterday").await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::InvalidArgument, "invalid-field")
    );
    let refused = user.delete("Site", "west").await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::FailedPrecondition, "in-use")
    );
    let refused = user.delete("Site", "north").await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::NotFound, "not-found")
    );
    let refused = user.delete("Sight", "west").await.unwrap_err();
    assert_eq!(reason(&refused), "unknown-kind");
    let changed = MANIFEST.replace("memory: 256MiB", "memory: 512MiB");
    let refused = user.apply("", &changed).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::FailedPrecondition, "in-use")
    );
    plane.stop().await;
}

#[tokio::test]
async fn failed_checks_are_all_told_and_a_retry_asks_anew() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let world = Scripted::new();
    world.change(|world| world.failed_checks = vec!["disk-format", "scratch-room"]);
    let _replicators = attach(plane.address, &world);
    let user = User::connect(plane.address).await;
    let job = user.apply("", MANIFEST).await.unwrap()[3].job.clone();
    let failed = user.watch_job(&job).await;
    assert_eq!(failed.state(), JobState::Failed);
    assert!(
        failed.error.contains("disk-format") && failed.error.contains("scratch-room"),
        "{}",
        failed.error
    );
    let vm = user.vm_in(ProtectionState::Failed).await;
    assert!(
        vm.state_detail.starts_with("at CheckingPrerequisites"),
        "{}",
        vm.state_detail
    );
    assert_eq!(
        (vm.checks.len(), vm.health()),
        (4, v1::ReplicationHealth::Critical)
    );
    let refused = user.cancel(&job).await.unwrap_err();
    assert_eq!(reason(&refused), "not-cancellable");

    world.change(|world| world.failed_checks.clear());
    user.retry(&job).await.unwrap();
    assert_eq!(user.watch_job(&job).await.state(), JobState::Succeeded);
    user.vm_in(ProtectionState::Protected).await;
    assert_eq!(reason(&user.retry(&job).await.unwrap_err()), "not-retryable");
    plane.stop().await;
}

#[tokio::test]
async fn a_protected_vm_is_rehearsed_failed_over_and_its_old_source_shown_as_fenced() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let world = Scripted::new();
    let _replicators = attach(plane.address, &world);
    let user = User::connect(plane.address).await;
    user.apply("", MANIFEST).await.unwrap();
    user.vm_in(ProtectionState::Protected).await;

    let refused = user.start_test("17").await.unwrap_err();
    assert_eq!(reason(&refused), "no-such-point");
    let test = user.start_test("latest").await.unwrap();
    assert_eq!(test.name, "shop-db-t1");
    assert_eq!(user.watch_job(&test.job).await.state(), JobState::Succeeded);
    let test = user.test(&test.name).await;
    assert_eq!((test.state(), test.point), (v1::TestFailoverState::Running, 1));
    assert!(world.world().recovered.contains_key("shop-db-t1"));
    let cleaning = user.clean_up(&test.name, "went well").await.unwrap();
    assert_eq!(user.watch_job(&cleaning.job).await.state(), JobState::Succeeded);
    let test = user.test(&test.name).await;
    assert_eq!(
        (test.state(), test.notes.as_str()),
        (v1::TestFailoverState::Cleaned, "went well")
    );
    assert!(world.world().recovered.is_empty());
    assert_eq!(
        reason(&user.clean_up(&test.name, "").await.unwrap_err()),
        "wrong-state"
    );

    world.change(|world| {
        world.away.insert("east");
    });
    let job = user.start_unplanned("latest").await.unwrap();
    let job = user.watch_job(&job.id).await;
    assert_eq!(job.state(), JobState::Succeeded, "{job:?}");
    let vm = user.vm().await.unwrap();
    assert_eq!(vm.failover(), v1::FailoverState::FailedOver);
    assert_eq!(vm.recovered.unwrap().recovery_id, "shop-db-f1");
    assert_eq!(
        reason(&user.start_unplanned("latest").await.unwrap_err()),
        "wrong-state"
    );
    assert_eq!(
        reason(&user.delete("ProtectedVm", "shop-db").await.unwrap_err()),
        "wrong-state"
    );
    world.change(|world| {
        world.away.clear();
        for (_, phase) in world.sources.values_mut() {
            *phase = v1::SourcePhase::Fenced;
        }
    });
    user.vm_until(|vm| vm.source_phase() == v1::SourcePhase::Fenced)
        .await;
    let metrics = user::scrape(plane.http).await;
    assert!(
        metrics.contains("farshore_failovers_total{kind=\"unplanned\",result=\"succeeded\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("farshore_test_failover_last_success_timestamp_seconds{vm=\"shop-db\"}"),
        "{metrics}"
    );
    plane.stop().await;
}

#[tokio::test]
async fn a_deleted_vm_is_gone_when_its_job_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let world = Scripted::new();
    let _replicators = attach(plane.address, &world);
    let user = User::connect(plane.address).await;
    user.apply("", MANIFEST).await.unwrap();
    user.vm_in(ProtectionState::Protected).await;
    let job = user.delete("ProtectedVm", "shop-db").await.unwrap();
    assert_eq!(user.watch_job(&job).await.state(), JobState::Succeeded);
    assert_eq!(user.vm().await.unwrap_err().code(), Code::NotFound);
    assert!(world.world().sources.is_empty());
    assert_eq!(world.world().points.len(), 1, "the chain stays in the vault");
    user.delete("Site", "west").await.unwrap();
    let applied = user.apply("", MANIFEST).await.unwrap();
    assert_eq!(user.watch_job(&applied[3].job).await.state(), JobState::Succeeded);
    assert_eq!(
        world.world().epochs.len(),
        2,
        "a VM that is protected again has a new chain"
    );
    plane.stop().await;
}

#[tokio::test]
async fn a_vm_whose_replicators_never_came_can_be_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let user = User::connect(plane.address).await;
    let enabling = user.apply("", MANIFEST).await.unwrap()[3].job.clone();
    user.vm_in(ProtectionState::CheckingPrerequisites).await;
    let disabling = user.delete("ProtectedVm", "shop-db").await.unwrap();
    assert_eq!(user.watch_job(&enabling).await.state(), JobState::Cancelled);
    assert_eq!(user.watch_job(&disabling).await.state(), JobState::Succeeded);
    assert_eq!(user.vm().await.unwrap_err().code(), Code::NotFound);
    plane.stop().await;
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_step_ends_as_if_nothing_had_happened() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let world = Scripted::new();
    world.change(|world| {
        world.stuck.insert("install-source");
    });
    let address = plane.address;
    let replicators = attach(address, &world);
    let user = User::connect(address).await;
    let job = user.apply("", MANIFEST).await.unwrap()[3].job.clone();
    user.vm_in(ProtectionState::PreparingTarget).await;
    timeout(LONG, async {
        while !world
            .world()
            .asked
            .iter()
            .any(|(_, part)| *part == "install-source")
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    plane.stop().await;
    drop(replicators);

    world.change(|world| world.stuck.clear());
    let plane = Running::start(directory.path()).await;
    let _replicators = attach(plane.address, &world);
    let user = User::connect(plane.address).await;
    let job = user.watch_job(&job).await;
    assert_eq!(job.state(), JobState::Succeeded, "{job:?}");
    assert_eq!(job.steps[1].attempts, 2);
    user.vm_in(ProtectionState::Protected).await;
    let world = world.world();
    let installs: std::collections::BTreeSet<_> = world
        .asked
        .iter()
        .filter(|(_, part)| *part == "install-source")
        .collect();
    assert_eq!(
        installs.len(),
        1,
        "the same command is sent again, not another one"
    );
    assert_eq!(
        world
            .epochs
            .values()
            .map(|(number, _)| *number)
            .collect::<Vec<_>>(),
        [1]
    );
}

#[tokio::test]
async fn reflection_and_health_answer() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let user = User::connect(plane.address).await;
    assert!(user.is_serving("farshore.v1.Jobs").await);
    let services = user.reflected_services().await;
    for service in ["Declarations", "Protection", "Failovers", "Jobs", "Fleet"] {
        assert!(
            services.contains(&format!("farshore.v1.{service}")),
            "{services:?}"
        );
    }
    plane.stop().await;
}

fn reason(status: &tonic::Status) -> String {
    let reason = status.metadata().get("farshore-reason").expect("a reason");
    reason.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_policy_that_is_changed_while_it_is_in_use_reaches_both_sites() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let world = Scripted::new();
    let _replicators = attach(plane.address, &world);
    let user = User::connect(plane.address).await;
    let job = user.apply("", MANIFEST).await.unwrap()[3].job.clone();
    user.watch_job(&job).await;
    let told = |seen: fn(&v1::Retention, &v1::Replicate) -> bool| {
        let world = world.clone();
        move || {
            let world = world.world();
            let mut both = world.retention.values().zip(world.replication.values());
            both.next()
                .is_some_and(|(retention, policy)| seen(retention, policy))
        }
    };
    // What was not declared is the default.
    until(told(|retention, _| (retention.daily, retention.weekly) == (7, 4))).await;

    let changed = MANIFEST.replace(
        "  rpoTarget: 15s\n",
        "  rpoTarget: 15s\n  retention: {daily: 30, limit: 1GiB}\n",
    );
    let applied = user.apply("", &changed).await.unwrap();
    assert_eq!(applied[2].effect(), v1::ApplyEffect::Changed);
    until(told(|retention, _| {
        (retention.daily, retention.limit_bytes) == (30, 1 << 30)
    }))
    .await;
    assert_eq!(user.policies().await[0].retention.unwrap().daily, 30);

    // A target that fails is told again, and a source takes its part of the policy too.
    let fault = Fault::Fails { retryable: true };
    world.change(|world| drop(world.faults.insert("set-retention", vec![fault])));
    let changed = changed
        .replace("interval: 2s", "interval: 3s")
        .replace("daily: 30", "daily: 31");
    user.apply("", &changed).await.unwrap();
    until(told(|_, policy| {
        policy.interval.is_some_and(|interval| interval.seconds == 3)
    }))
    .await;
    until(told(|retention, _| retention.daily == 31)).await;

    let silver = changed.replace("gold", "silver").replace("daily: 31", "daily: 5");
    user.apply("", &silver).await.unwrap();
    until(told(|retention, _| retention.daily == 5)).await;

    let linked = silver.replace(
        "{provider: qemu}",
        "{provider: qemu, links: [{to: west, bandwidthLimit: 7MiB}]}",
    );
    user.apply("", &linked).await.unwrap();
    until(told(|_, policy| {
        policy
            .link
            .as_ref()
            .map(|link| (link.to.as_str(), link.bytes_per_second))
            == Some(("west", 7 << 20))
    }))
    .await;

    let count = |part: &str| {
        world
            .world()
            .asked
            .iter()
            .filter(|(_, asked)| *asked == part)
            .count()
    };
    let asked = (count("set-retention"), count("set-replication"));
    assert!(
        asked.0 <= 8 && asked.1 <= 3,
        "who goes by the policy is left alone: {asked:?}"
    );
    plane.stop().await;
}

async fn until(seen: impl Fn() -> bool) {
    let waited = timeout(LONG, async {
        while !seen() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("the replicators are told in time");
}
