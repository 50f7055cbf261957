//! Plans, outcomes of steps, lanes and pre-emption, as values.

use super::*;

fn job(kind: JobKind) -> Job {
    named("1", kind, "db")
}

fn named(id: &str, kind: JobKind, vm: &str) -> Job {
    Job::plan(JobId(id.into()), kind, vm, None, WallTime(1))
}

fn done() -> StepOutcome {
    StepOutcome::Done {
        detail: String::new(),
    }
}

fn try_again() -> StepOutcome {
    StepOutcome::TryAgain {
        reason: "not now".into(),
        answered: true,
    }
}

fn far_later() -> WallTime {
    WallTime(u64::MAX / 2)
}

#[test]
fn a_job_whose_steps_succeed_runs_each_once_and_in_order() {
    for kind in JobKind::ALL {
        let mut job = job(kind);
        for index in 0..job.steps.len() {
            assert_eq!(job.next(WallTime(2)), Next::Run(index));
            job.begin_step(index, WallTime(2));
            job.record_step(index, done(), WallTime(3));
        }
        assert_eq!(job.next(WallTime(4)), Next::Finish);
        job.finish(WallTime(4));
        assert_eq!(
            (&job.state, job.next(WallTime(5))),
            (&JobState::Succeeded, Next::Nothing)
        );
    }
}

#[test]
fn a_step_that_was_begun_and_not_recorded_is_run_again() {
    let mut job = job(JobKind::EnableProtection);
    job.begin_step(0, WallTime(2));
    assert_eq!(job.next(WallTime(2)), Next::Run(0));
}

#[test]
fn a_failed_step_waits_longer_each_time_and_then_fails_its_job() {
    let mut job = job(JobKind::EnableProtection);
    let mut now = WallTime(0);
    for failures in 1..MAX_STEP_FAILURES {
        job.begin_step(0, now);
        job.record_step(0, try_again(), now);
        let Next::Wait(until) = job.next(now) else {
            panic!("{:?}", job.next(now))
        };
        assert_eq!(until.since(now), delay_after(failures));
        now = until;
        assert_eq!(job.next(now), Next::Run(0));
    }
    job.begin_step(0, now);
    job.record_step(0, try_again(), now);
    let error = job.error().unwrap();
    assert!(
        error.contains("Prerequisites check") && error.contains("not now"),
        "{error}"
    );
    assert_eq!(job.next(far_later()), Next::Nothing);
}

#[test]
fn a_retry_goes_on_at_the_step_that_failed() {
    let mut job = job(JobKind::EnableProtection);
    assert_eq!(job.retry(), Err(NotRetryable));
    job.begin_step(0, WallTime(1));
    job.record_step(0, done(), WallTime(1));
    job.begin_step(1, WallTime(1));
    job.record_step(1, StepOutcome::GiveUp { reason: "no".into() }, WallTime(1));
    job.retry().unwrap();
    assert_eq!((job.next(WallTime(1)), job.round), (Next::Run(1), 1));
}

#[test]
fn a_test_failover_that_fails_is_undone_before_it_ends_and_then_starts_over() {
    let mut job = job(JobKind::TestFailover);
    for index in 0..2 {
        job.begin_step(index, WallTime(1));
        job.record_step(index, done(), WallTime(1));
    }
    job.begin_step(2, WallTime(1));
    job.record_step(
        2,
        StepOutcome::GiveUp {
            reason: "a way out".into(),
        },
        WallTime(1),
    );
    for index in [2, 1, 0] {
        assert_eq!(job.next(WallTime(1)), Next::Undo(index));
        job.record_undo(index, UndoOutcome::Undone, WallTime(1));
    }
    assert_eq!(job.next(WallTime(1)), Next::Finish);
    job.finish(WallTime(2));
    assert_eq!(job.error(), Some("Checking isolation: a way out"));
    job.retry().unwrap();
    assert_eq!(job.next(WallTime(2)), Next::Run(0));
}

#[test]
fn what_could_not_be_undone_is_told() {
    let mut job = job(JobKind::EnableProtection);
    for index in 0..2 {
        job.begin_step(index, WallTime(1));
        job.record_step(index, done(), WallTime(1));
    }
    job.request_cancellation("a user asked").unwrap();
    assert_eq!(job.next(WallTime(1)), Next::Cancel);
    job.begin_cancellation(WallTime(1));
    let mut now = WallTime(1);
    for _ in 0..MAX_UNDO_FAILURES {
        assert_eq!(job.next(now), Next::Undo(1));
        job.record_undo(
            1,
            UndoOutcome::Failed {
                reason: "gone".into(),
            },
            now,
        );
        now = WallTime(now.0 + 100_000_000_000);
    }
    assert_eq!(job.next(now), Next::Undo(0), "the others are undone nevertheless");
    job.record_undo(0, UndoOutcome::Undone, now);
    job.finish(now);
    let error = job.error().unwrap();
    assert!(
        error.starts_with("a user asked") && error.contains("could not be undone: gone"),
        "{error}"
    );
}

#[test]
fn past_the_point_of_no_return_nothing_is_cancelled() {
    let mut job = job(JobKind::UnplannedFailover);
    assert_eq!(job.check_cancellable(), Ok(()));
    job.begin_step(0, WallTime(1));
    assert_eq!(
        job.request_cancellation("no"),
        Err(NotCancellable::PastNoReturn {
            step: "Fencing the source"
        })
    );
    assert_eq!(job.next(WallTime(1)), Next::Run(0));
}

#[test]
fn the_exclusive_lane_is_first_in_first_out_and_the_shared_one_side_by_side() {
    let jobs = [
        named("1", JobKind::EnableProtection, "db"),
        named("2", JobKind::DisableProtection, "db"),
        named("3", JobKind::TestFailover, "db"),
        named("4", JobKind::TestFailover, "db"),
        named("5", JobKind::EnableProtection, "web"),
    ];
    let ids = |jobs: &[Job]| runnable(jobs).into_iter().map(|id| id.0).collect::<Vec<_>>();
    assert_eq!(ids(&jobs), ["1", "3", "4", "5"]);
    let mut jobs = jobs;
    jobs[0].state = JobState::Succeeded;
    assert_eq!(ids(&jobs), ["2", "3", "4", "5"]);
}

#[test]
fn an_unplanned_failover_stops_what_can_be_stopped_and_does_not_wait_for_its_undoing() {
    let mut jobs = vec![
        named("1", JobKind::EnableProtection, "db"),
        named("2", JobKind::TestFailover, "db"),
        named("3", JobKind::TestFailover, "web"),
    ];
    jobs[0].begin_step(0, WallTime(1));
    let preempted = preempted_by("db", &jobs);
    assert_eq!(preempted, [JobId("1".into()), JobId("2".into())]);
    jobs.push(named("4", JobKind::UnplannedFailover, "db"));
    assert!(!runnable(&jobs).contains(&JobId("4".into())));
    jobs[0].request_cancellation("disaster").unwrap();
    assert!(runnable(&jobs).contains(&JobId("4".into())));
    jobs[0].begin_cancellation(WallTime(2));
    assert!(runnable(&jobs).contains(&JobId("4".into())));
}

#[test]
fn a_job_reads_back_from_its_record() {
    for kind in JobKind::ALL {
        let job = job(kind);
        let text = serde_json::to_string(&job).unwrap();
        assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
    }
}
