//! `apply` and `validate`.

use std::{fs, io};

use farshore_proto::v1::{
    Applied, ApplyEffect, ApplyRequest, ApplyResponse, GetJobRequest, GetVmRequest, Job, JobState,
    ProtectionState, Vm,
};
use serde_json::json;
use tonic::Status;

use crate::{farshore, farshore_reading, script::Script, text};

const SITE: &str = "apiVersion: farshore/v1\nkind: Site\nmetadata: {name: west}\nspec: {provider: qemu}\n";
const POLICY: &str = "apiVersion: farshore/v1\nkind: ReplicationPolicy\nmetadata: {name: gold}\n\
                      spec: {interval: 2s, rpoTarget: 15s}\n";

fn applied(kind: &str, name: &str, job: &str) -> Applied {
    Applied {
        kind: kind.to_owned(),
        name: name.to_owned(),
        effect: ApplyEffect::Created.into(),
        job: job.to_owned(),
    }
}

fn synchronizing(done: u64) -> Vm {
    Vm {
        name: "a".to_owned(),
        state: ProtectionState::InitialSync.into(),
        sync_done_bytes: done,
        sync_total_bytes: 100 << 20,
        sync_bytes_per_second: 10_485_760.0,
        ..Vm::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_directory_are_one_apply() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("1.yaml"), SITE)?;
    fs::write(directory.path().join("2.yml"), POLICY)?;
    let answer = ApplyResponse {
        applied: vec![
            applied("Site", "west", ""),
            applied("ReplicationPolicy", "gold", ""),
        ],
    };
    let script = Script::default()
        .answers(
            "Apply",
            |request: &ApplyRequest| {
                request.manifest == format!("{}\n---\n{}", SITE.trim_end(), POLICY.trim_end())
                    && request.dry_run
            },
            answer,
        )
        .plays()
        .await;
    let path = directory.path();
    let run = farshore(&[
        "apply",
        "-f",
        text(path),
        "--dry-run",
        "-o",
        "json",
        "--server",
        &script.server,
    ])
    .await;
    assert_eq!(
        run.ended_with(0).json(),
        json!({"items": [
            {"kind": "Site", "name": "west", "effect": "Created", "job": null},
            {"kind": "ReplicationPolicy", "name": "gold", "effect": "Created", "job": null},
        ]})
    );
    script.was_followed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_tells_the_sync_in_plain_lines_and_ends_when_protected() {
    let job = Job {
        id: "j1".to_owned(),
        state: JobState::Succeeded.into(),
        ..Job::default()
    };
    let protected = Vm {
        state: ProtectionState::Protected.into(),
        ..synchronizing(100 << 20)
    };
    let told = vec![
        Ok(synchronizing(0)),
        Ok(synchronizing(1 << 20)),
        Ok(synchronizing(50 << 20)),
        Ok(protected),
    ];
    let script = Script::default()
        .answers(
            "Apply",
            |request: &ApplyRequest| request.manifest == SITE.trim_end() && !request.dry_run,
            ApplyResponse {
                applied: vec![applied("ProtectedVm", "a", "j1")],
            },
        )
        .tells(
            "WatchJob",
            |request: &GetJobRequest| request.id == "j1",
            vec![Ok(job)],
        )
        .tells("WatchVm", |request: &GetVmRequest| request.name == "a", told)
        .plays()
        .await;
    let run = farshore_reading(SITE, &["apply", "-f", "-", "--wait", "--server", &script.server]).await;
    let run = run.ended_with(0);
    assert_eq!(
        run.stdout,
        "KIND         NAME  EFFECT   JOB\nProtectedVm  a     Created  j1\n"
    );
    assert!(
        run.stderr
            .contains("a: synchronized 50 %, 50.0 MiB of 100.0 MiB, 10.0 MiB/s, 5.0 s left"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.ends_with("a: Protected\n"), "{}", run.stderr);
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_fails_to_become_protected_fails_the_wait() {
    let failed = Vm {
        name: "a".to_owned(),
        state: ProtectionState::Failed.into(),
        state_detail: "at CheckingPrerequisites: monitor-reachable".to_owned(),
        ..Vm::default()
    };
    let script = Script::default()
        .answers(
            "Apply",
            |_: &ApplyRequest| true,
            ApplyResponse {
                applied: vec![applied("ProtectedVm", "a", "")],
            },
        )
        .tells("WatchVm", |_: &GetVmRequest| true, vec![Ok(failed)])
        .plays()
        .await;
    let run = farshore_reading(SITE, &["apply", "-f", "-", "--wait", "--server", &script.server]).await;
    let run = run.ended_with(1);
    assert!(run.stderr.contains("monitor-reachable"), "{}", run.stderr);
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_yaml_is_told_with_its_place_and_never_sent() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("bad.yaml");
    fs::write(&path, SITE.replace("provider", "provder"))?;
    let script = Script::default().plays().await;
    for arguments in [
        &["apply", "--server", &script.server, "-f"][..],
        &["validate", "-f"],
    ] {
        let arguments: Vec<&str> = arguments.iter().copied().chain([text(&path)]).collect();
        let run = farshore(&arguments).await.ended_with(2);
        assert_eq!(run.stdout, "");
        assert!(run.stderr.contains("bad.yaml:4:"), "{}", run.stderr);
        assert!(
            run.stderr.contains("provder") && run.stderr.contains("provider"),
            "{}",
            run.stderr
        );
    }
    script.was_followed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_orchestrator_finds_invalid_is_invalid_here() {
    let refused = Status::invalid_argument("ProtectedVm a: policy `gold` is not declared");
    let script = Script::default()
        .refuses::<ApplyRequest>("Apply", refused)
        .plays()
        .await;
    let run = farshore_reading(SITE, &["apply", "-f", "-", "--server", &script.server])
        .await
        .ended_with(2);
    assert!(
        run.stderr.contains("policy `gold` is not declared"),
        "{}",
        run.stderr
    );
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_declarations_are_counted() -> io::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("good.yaml");
    fs::write(&path, format!("{SITE}---\n{POLICY}"))?;
    let run = farshore(&["validate", "-f", text(&path)]).await.ended_with(0);
    assert_eq!(run.stdout, format!("{}: valid, 2 documents\n", text(&path)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_fails() {
    let run = farshore(&["validate", "-f", "/nowhere/at/all.yaml"])
        .await
        .ended_with(1);
    assert!(run.stderr.contains("/nowhere/at/all.yaml"), "{}", run.stderr);
}
