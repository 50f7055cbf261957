//! `failover` and `job`, with and without `--wait`.

use std::time::Duration;

use farshore_proto::v1::{
    CleanupTestRequest, GetJobRequest, GetTestRequest, GetVmRequest, Job, JobState, Leak, RecoveredVm,
    RecoveredVmCondition, StartTestRequest, StartUnplannedRequest, Step, StepState, TestFailover,
    TestFailoverState, Vm,
};
use serde_json::json;
use tonic::Status;

use crate::{farshore, script::Script};

fn job(state: JobState, step: StepState) -> Job {
    let step = Step {
        name: "Fencing the source".to_owned(),
        state: step.into(),
        attempts: 1,
        ..Step::default()
    };
    Job {
        id: "j1".to_owned(),
        kind: "unplanned-failover".to_owned(),
        subject: "vm/a".to_owned(),
        state: state.into(),
        steps: vec![step],
        ..Job::default()
    }
}

fn test_failover(state: TestFailoverState) -> TestFailover {
    TestFailover {
        name: "a-t1".to_owned(),
        vm: "a".to_owned(),
        state: state.into(),
        point: 12,
        job: "j1".to_owned(),
        ..TestFailover::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_failover_is_waited_for_until_it_runs() {
    let recovered = RecoveredVm {
        recovery_id: "a-t1".to_owned(),
        condition: RecoveredVmCondition::Running.into(),
        point: 12,
        pid: 77,
        monitor: "/run/a-t1.qmp".to_owned(),
        namespace: "fs-a-t1".to_owned(),
        order_to_running: Some(Duration::from_millis(850).try_into().unwrap()),
        ways_out: Vec::new(),
    };
    let running = TestFailover {
        recovered: Some(recovered),
        ..test_failover(TestFailoverState::Running)
    };
    let told = vec![
        Ok(job(JobState::Running, StepState::Running)),
        Ok(job(JobState::Succeeded, StepState::Done)),
    ];
    let script = Script::default()
        .answers(
            "StartTest",
            |request: &StartTestRequest| request.vm == "a" && request.point == "12",
            test_failover(TestFailoverState::Starting),
        )
        .tells("WatchJob", |request: &GetJobRequest| request.id == "j1", told)
        .answers(
            "GetTest",
            |request: &GetTestRequest| request.name == "a-t1",
            running,
        )
        .plays()
        .await;
    let arguments = [
        "failover",
        "test",
        "a",
        "--point",
        "12",
        "--wait",
        "-o",
        "json",
        "--server",
        &script.server,
    ];
    let run = farshore(&arguments).await.ended_with(0);
    let answer = run.json();
    assert_eq!(answer["state"], "Running");
    assert_eq!(
        answer["recovered"],
        json!({
            "recoveryId": "a-t1", "condition": "Running", "point": 12, "pid": 77, "monitor": "/run/a-t1.qmp",
            "namespace": "fs-a-t1", "orderToRunningSeconds": 0.85, "waysOut": [],
        })
    );
    assert!(
        run.stderr
            .contains("vm/a: Fencing the source [running]\nvm/a: Fencing the source [done]"),
        "{}",
        run.stderr
    );
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_while_waiting_is_made_again() {
    let broken = vec![
        Ok(job(JobState::Running, StepState::Running)),
        Err(Status::unavailable("going down")),
    ];
    let told = vec![Ok(job(JobState::Succeeded, StepState::Done))];
    let script = Script::default()
        .answers(
            "StartUnplanned",
            |request: &StartUnplannedRequest| request.vm == "a" && request.point == "latest",
            job(JobState::Queued, StepState::Waiting),
        )
        .tells("WatchJob", |_: &GetJobRequest| true, broken)
        .tells("WatchJob", |_: &GetJobRequest| true, told)
        .answers(
            "GetVm",
            |_: &GetVmRequest| true,
            Vm {
                name: "a".to_owned(),
                ..Vm::default()
            },
        )
        .plays()
        .await;
    let run = farshore(&["failover", "unplanned", "a", "--wait", "--server", &script.server])
        .await
        .ended_with(0);
    assert!(run.stderr.contains("trying again"), "{}", run.stderr);
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_fails_whoever_waits_for_it() {
    let failed = Job {
        error: "no vault".to_owned(),
        ..job(JobState::Failed, StepState::Failed)
    };
    let script = Script::default()
        .tells("WatchJob", |_: &GetJobRequest| true, vec![Ok(failed)])
        .plays()
        .await;
    let run = farshore(&["job", "watch", "j1", "-o", "json", "--server", &script.server])
        .await
        .ended_with(1);
    assert_eq!(run.json()["state"], "Failed");
    assert!(
        run.stderr.contains("no vault") && run.stderr.contains("job retry j1"),
        "{}",
        run.stderr
    );
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_longer_than_allowed_is_a_timeout() {
    let script = Script::default()
        .stays_silent::<GetJobRequest>("WatchJob")
        .plays()
        .await;
    let run = farshore(&[
        "job",
        "watch",
        "j1",
        "--timeout",
        "500ms",
        "--server",
        &script.server,
    ])
    .await;
    run.ended_with(5);
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleanup_shows_what_was_left_behind() {
    let leak = Leak {
        kind: "process".to_owned(),
        name: "77".to_owned(),
    };
    let cleaned = TestFailover {
        leaks: vec![leak],
        ..test_failover(TestFailoverState::Cleaned)
    };
    let script = Script::default()
        .answers(
            "CleanupTest",
            |request: &CleanupTestRequest| {
                request.name == "a-t1" && request.notes == "went well" && request.force
            },
            cleaned,
        )
        .plays()
        .await;
    let arguments = [
        "failover",
        "cleanup",
        "a-t1",
        "--notes",
        "went well",
        "--force",
        "-o",
        "json",
        "--server",
        &script.server,
    ];
    let run = farshore(&arguments).await.ended_with(0);
    assert_eq!(run.json()["leaks"], json!([{"kind": "process", "name": "77"}]));
    script.was_followed();
}
