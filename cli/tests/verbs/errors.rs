//! Exit statuses, and what is said when something cannot be done.

use farshore_proto::v1::{ChangeJobRequest, DeleteRequest, DeleteResponse, ListRequest, StartTestRequest};
use tokio::net::TcpListener;
use tonic::Status;

use crate::{farshore, farshore_reading, script::Script, text};

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let run = farshore(&["get", "vms", "--server", &server]).await.ended_with(4);
    assert_eq!(run.stdout, "");
    assert!(
        run.stderr.contains(&server) && run.stderr.contains("--server"),
        "{}",
        run.stderr
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_closes_the_connection_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let closing = tokio::spawn(async move {
        loop {
            drop(listener.accept().await.unwrap());
        }
    });
    farshore(&["get", "vms", "--server", &server]).await.ended_with(4);
    closing.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_a_timeout() {
    let script = Script::default()
        .stays_silent::<ListRequest>("ListVms")
        .plays()
        .await;
    let run = farshore(&["get", "vms", "--timeout", "500ms", "--server", &script.server])
        .await
        .ended_with(5);
    assert!(run.stderr.contains("within 500ms"), "{}", run.stderr);
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_tells_why_and_its_reason_code() {
    let mut status = Status::failed_precondition("vm `a` is InitialSync; Protected would be accepted");
    status
        .metadata_mut()
        .insert("farshore-reason", "wrong-state".parse().unwrap());
    let script = Script::default()
        .refuses::<StartTestRequest>("StartTest", status)
        .plays()
        .await;
    let run = farshore(&["failover", "test", "a", "--server", &script.server])
        .await
        .ended_with(3);
    assert_eq!(
        run.stderr,
        "error: refused: vm `a` is InitialSync; Protected would be accepted (wrong-state)\n"
    );
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_does_not_know_fails() {
    let script = Script::default()
        .refuses::<ChangeJobRequest>("CancelJob", Status::not_found("there is no job `j`"))
        .plays()
        .await;
    let run = farshore(&["job", "cancel", "j", "--server", &script.server])
        .await
        .ended_with(1);
    assert_eq!(run.stderr, "error: there is no job `j`\n");
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_changes_nothing() {
    for arguments in [
        &["get", "nothing"][..],
        &["get", "points"],
        &["get", "vms", "--server", "not an address"],
        &["get", "vms", "--server", "https://127.0.0.1:1"],
        &["apply", "-f", "x", "--dry-run", "--wait"],
        &["failover"],
        &["get", "vms", "--timeout", "soon"],
        &["reprotect", "a"],
    ] {
        let run = farshore(arguments).await.ended_with(2);
        assert_eq!(run.stdout, "", "{arguments:?}");
        assert!(!run.stderr.is_empty(), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_vm_says_that_its_points_stay() {
    let script = Script::default()
        .answers(
            "Delete",
            |request: &DeleteRequest| {
                request.kind == "ProtectedVm" && request.name == "a" && !request.idempotency_key.is_empty()
            },
            DeleteResponse { job: "j7".to_owned() },
        )
        .plays()
        .await;
    let run = farshore(&["delete", "vm", "a", "--server", &script.server])
        .await
        .ended_with(0);
    assert!(
        run.stdout.contains("j7") && run.stdout.contains("stay in the vault"),
        "{}",
        run.stdout
    );
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_needs_no_server() {
    let run = farshore_reading("", &["version"]).await.ended_with(0);
    assert_eq!(run.stdout, format!("farshore {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_with_a_bad_configuration_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("part.yaml");
    for (verb, content, said) in [
        (
            "orchestrator",
            "stateDirectory: /s\nlisten: 0.0.0.0:0\n",
            "insecure: true",
        ),
        ("orchestrator", "stateDirectry: /s\n", "stateDirectry"),
        ("replicator", "name: a\n", "site"),
    ] {
        std::fs::write(&path, content).unwrap();
        let run = farshore(&[verb, "--config", text(&path)]).await.ended_with(2);
        assert!(
            run.stderr.contains(said) && run.stderr.contains("part.yaml"),
            "{}",
            run.stderr
        );
        assert_eq!(run.stdout, "");
    }
    farshore(&["orchestrator", "--config", "/nowhere/at/all.yaml"])
        .await
        .ended_with(1);
}
