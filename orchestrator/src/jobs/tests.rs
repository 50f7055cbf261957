//! The four tests of every workflow: each command is repeated, each fails, each undo is repeated, and the
//! process dies after each record. The outcome must be that of the undisturbed run.

mod bench;

use farshore_domain::job::{JobKind, JobState, StepState};

use crate::replicators::scripted::Fault;
use bench::{Bench, Prepared};

const KINDS: [JobKind; 5] = JobKind::ALL;

#[tokio::test]
async fn an_undisturbed_job_succeeds_and_sends_every_command_once() {
    for kind in KINDS {
        let prepared = Prepared::new(kind).await;
        let bench = Bench::over(&prepared);
        bench.run().await.unwrap();
        let job = bench.job();
        assert_eq!(job.state, JobState::Succeeded, "{kind:?}");
        assert!(
            job.steps
                .iter()
                .all(|step| step.attempts == 1 && step.state == StepState::Done)
        );
        let mut ids = bench.asked_ids();
        ids.sort();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count, "{kind:?}");
    }
}

#[tokio::test]
async fn a_process_that_dies_after_any_record_changes_no_outcome() {
    for kind in KINDS {
        let prepared = Prepared::new(kind).await;
        let undisturbed = Bench::over(&prepared);
        undisturbed.run().await.unwrap();
        let expected = undisturbed.outcome();
        let mut deaths = 0;
        loop {
            let dying = Bench::dying_after(&prepared, deaths);
            if dying.run().await.is_ok() {
                break;
            }
            let successor = dying.successor();
            successor.run().await.unwrap();
            assert_eq!(
                successor.outcome(),
                expected,
                "{kind:?} died after {deaths} records"
            );
            deaths += 1;
        }
        assert!(deaths > 2 * prepared.steps(), "{kind:?} died only {deaths} times");
    }
}

#[tokio::test]
async fn a_command_that_is_carried_out_twice_changes_no_outcome() {
    for kind in KINDS {
        let prepared = Prepared::new(kind).await;
        let undisturbed = Bench::over(&prepared);
        undisturbed.run().await.unwrap();
        for part in undisturbed.asked_parts() {
            let bench = Bench::over(&prepared);
            bench.fault(part, Fault::AnswerLost);
            bench.run().await.unwrap();
            assert_eq!(bench.outcome(), undisturbed.outcome(), "{kind:?} {part}");
            let ids: Vec<_> = bench.asked_ids_of(part);
            assert_eq!(
                (ids.len(), &ids[0]),
                (2, &ids[1]),
                "an unknown outcome is asked again under its name"
            );
        }
    }
}

#[tokio::test]
async fn a_command_that_fails_once_changes_no_outcome() {
    for kind in KINDS {
        let prepared = Prepared::new(kind).await;
        let undisturbed = Bench::over(&prepared);
        undisturbed.run().await.unwrap();
        for part in undisturbed.asked_parts() {
            let bench = Bench::over(&prepared);
            bench.fault(part, Fault::Fails { retryable: true });
            bench.run().await.unwrap();
            assert_eq!(bench.outcome(), undisturbed.outcome(), "{kind:?} {part}");
            let ids = bench.asked_ids_of(part);
            assert_ne!(
                ids[0], ids[1],
                "a failure that was answered is followed by a new command"
            );
        }
    }
}

#[tokio::test]
async fn a_command_that_fails_for_good_fails_its_job_and_a_retry_ends_the_same() {
    for kind in KINDS {
        let prepared = Prepared::new(kind).await;
        let undisturbed = Bench::over(&prepared);
        undisturbed.run().await.unwrap();
        for part in undisturbed.asked_parts() {
            let bench = Bench::over(&prepared);
            bench.fault(part, Fault::Fails { retryable: false });
            bench.run().await.unwrap();
            let failed = bench.job();
            assert!(
                failed.error().is_some_and(|error| error.contains(part)),
                "{kind:?} {part}: {failed:?}"
            );
            if kind == JobKind::TestFailover {
                assert!(
                    bench.recovered().is_empty(),
                    "a failed test leaves nothing behind"
                );
            }
            bench.retry().await;
            bench.run().await.unwrap();
            assert_eq!(bench.outcome(), undisturbed.outcome(), "{kind:?} {part}");
        }
    }
}

#[tokio::test]
async fn a_command_that_fails_too_often_ends_its_job_with_its_reason() {
    let prepared = Prepared::new(JobKind::EnableProtection).await;
    let bench = Bench::over(&prepared);
    for _ in 0..farshore_domain::job::MAX_STEP_FAILURES {
        bench.fault("enable-source", Fault::Fails { retryable: true });
    }
    bench.run().await.unwrap();
    let job = bench.job();
    assert!(
        job.error()
            .unwrap()
            .contains("Enable replication: failed 6 times"),
        "{job:?}"
    );
}

#[tokio::test]
async fn a_cancelled_job_is_undone_also_when_its_undoing_is_repeated_or_interrupted() {
    for (kind, undo) in [
        (JobKind::EnableProtection, "remove-source"),
        (JobKind::TestFailover, "discard-recovery"),
    ] {
        let prepared = Prepared::new(kind).await;
        let undisturbed = Bench::over(&prepared);
        undisturbed.run().await.unwrap();
        for part in undisturbed.asked_parts() {
            let at_part = prepared.cancelled_at(part).await;
            let bench = Bench::over(&at_part);
            bench.run().await.unwrap();
            let expected = bench.outcome();
            let job = bench.job();
            assert!(
                matches!(job.state, JobState::Cancelled { .. }),
                "{kind:?} {part}: {job:?}"
            );
            assert!(job.steps.iter().all(|step| step.state != StepState::Done));
            assert!(
                bench.recovered().is_empty()
                    && (kind != JobKind::EnableProtection || bench.sources().is_empty())
            );

            let repeated = Bench::over(&at_part);
            repeated.fault(undo, Fault::AnswerLost);
            repeated.run().await.unwrap();
            assert_eq!(repeated.outcome(), expected, "{kind:?} {part}");

            for deaths in 0.. {
                let dying = Bench::dying_after(&at_part, deaths);
                if dying.run().await.is_ok() {
                    break;
                }
                let successor = dying.successor();
                successor.run().await.unwrap();
                assert_eq!(
                    successor.outcome(),
                    expected,
                    "{kind:?} {part} died after {deaths} records"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_bubble_with_a_way_out_fails_the_test_and_removes_it() {
    let prepared = Prepared::new(JobKind::TestFailover).await;
    let bench = Bench::over(&prepared);
    bench.change(|world| world.ways_out = vec!["eth0".to_owned()]);
    bench.run().await.unwrap();
    assert_eq!(
        bench.job().error(),
        Some("Checking isolation: the bubble has ways out: eth0")
    );
    assert!(bench.recovered().is_empty());
}

#[tokio::test]
async fn leaks_fail_a_cleanup_unless_it_was_forced() {
    let leak = farshore_proto::v1::Leak {
        kind: "namespace".to_owned(),
        name: "bubble".to_owned(),
    };
    let prepared = Prepared::new(JobKind::TestFailoverCleanup).await;
    let bench = Bench::over(&prepared);
    bench.change(|world| world.leaks = vec![leak]);
    bench.run().await.unwrap();
    assert_eq!(
        bench.job().error(),
        Some("Checking for leaks: left behind: namespace bubble")
    );
    bench.force_cleanup().await;
    bench.run().await.unwrap();
    let test = bench.test();
    assert_eq!(test.state, farshore_domain::test_failover::TestFailover::Cleaned);
    assert_eq!(test.leaks.len(), 1, "what is left is recorded");
}

#[tokio::test]
async fn an_unplanned_failover_does_not_wait_for_a_source_that_never_answers() {
    let prepared = Prepared::new(JobKind::DisableProtection).await;
    let bench = Bench::over(&prepared);
    bench.change(|world| {
        world.away.insert("east");
    });
    bench.order_failover().await;
    bench.run().await.unwrap();
    let vm = bench.vm();
    assert_eq!(vm.failover, farshore_domain::failover::Failover::FailedOver);
    assert_eq!(bench.recovered(), ["shop-db-f1"]);
    assert!(vm.recovery.unwrap().epoch.unwrap().number > vm.tenure.unwrap().epoch.number);
}
