//! Prepare, start, probe, stop, discard, each of them once and again.

use std::process::{Command, Stdio};

use farshore_provider::{CheckOutcome, Compute, ComputeError, Firmware, RecoveryId, VmCondition};

use crate::site::{Site, output, processes_naming};

#[tokio::test]
async fn a_vm_goes_from_absent_to_running_to_gone_and_leaves_nothing() {
    let mut site = Site::new();
    let request = site.request("vm");
    assert_eq!(
        site.compute.probe(&request.id).await.unwrap(),
        VmCondition::Absent
    );
    site.compute.prepare(&request).await.unwrap();
    assert_eq!(
        site.compute.probe(&request.id).await.unwrap(),
        VmCondition::Prepared
    );
    assert_eq!(processes_naming(&site.recovered()), [0_u32; 0]);

    let vm = site.compute.start(&request.id).await.unwrap();
    assert_eq!(
        site.compute.probe(&request.id).await.unwrap(),
        VmCondition::Running
    );
    assert_eq!(processes_naming(&site.recovered()), [vm.pid]);
    assert_eq!(vm.namespace, Some(site.namespace()));
    assert_eq!(
        site.compute.list().await.unwrap(),
        std::slice::from_ref(&request.id)
    );

    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
    assert_eq!(
        site.compute.probe(&request.id).await.unwrap(),
        VmCondition::Absent
    );
    assert_eq!(site.compute.list().await.unwrap(), []);
}

#[tokio::test]
async fn what_is_unknown_is_discarded_without_complaint_and_not_started() {
    let site = Site::new();
    let id = RecoveryId::new("nobody").unwrap();
    assert_eq!(site.compute.discard(&id).await.unwrap(), []);
    assert_eq!(site.compute.discard(&id).await.unwrap(), []);
    assert!(matches!(
        site.compute.start(&id).await,
        Err(ComputeError::Unknown(_))
    ));
    assert!(matches!(
        site.compute.stop(&id).await,
        Err(ComputeError::Unknown(_))
    ));
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn a_vm_that_was_stopped_or_killed_has_ended_and_starts_again() {
    let mut site = Site::new();
    let request = site.running("vm").await;
    site.compute.stop(&request.id).await.unwrap();
    site.compute.stop(&request.id).await.unwrap();
    assert_eq!(site.compute.probe(&request.id).await.unwrap(), VmCondition::Ended);

    let again = site.compute.start(&request.id).await.unwrap();
    output("kill", &["-9", &again.pid.to_string()]);
    crate::site::eventually("the process is gone", || {
        processes_naming(&site.recovered()).is_empty()
    });
    assert_eq!(site.compute.probe(&request.id).await.unwrap(), VmCondition::Ended);

    site.compute.start(&request.id).await.unwrap();
    assert_eq!(
        site.compute.probe(&request.id).await.unwrap(),
        VmCondition::Running
    );
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn preparing_again_is_fine_and_preparing_something_else_is_refused() {
    let mut site = Site::new();
    let request = site.request("vm");
    site.compute.prepare(&request).await.unwrap();
    site.compute.prepare(&request).await.unwrap();
    let mut other = request.clone();
    other.machine.processors = 2;
    let refused = site.compute.prepare(&other).await.unwrap_err();
    assert!(refused.to_string().contains("discard it first"), "{refused}");
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_anything_is_made() {
    let mut site = Site::new();
    let mut request = site.request("vm");
    request.machine.firmware = Firmware::Uefi;
    let refused = site.compute.prepare(&request).await.unwrap_err();
    assert!(
        refused.to_string().contains("firmware uefi is not supported"),
        "{refused}"
    );
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn a_paused_vm_is_suspended_and_nobody_ends_its_pause() {
    let mut site = Site::new();
    let request = site.running("vm").await;
    let spare = site.compute.spare_monitor(&request.id);
    let operator = farshore_qmp::Monitor::connect(&spare, farshore_qmp::ConnectOptions::default())
        .await
        .unwrap();
    operator.execute("stop", serde_json::Value::Null).await.unwrap();
    assert_eq!(
        site.compute.probe(&request.id).await.unwrap(),
        VmCondition::Suspended
    );
    let refused = site.compute.start(&request.id).await.unwrap_err();
    assert!(refused.to_string().contains("paused"), "{refused}");
    assert_eq!(
        site.compute.probe(&request.id).await.unwrap(),
        VmCondition::Suspended
    );
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
}

#[tokio::test]
async fn a_hung_hypervisor_is_an_error_in_time_and_is_discarded_all_the_same() {
    let mut site = Site::new();
    let request = site.request("vm");
    site.compute.prepare(&request).await.unwrap();
    let vm = site.compute.start(&request.id).await.unwrap();
    output("kill", &["-STOP", &vm.pid.to_string()]);
    let hung = site.compute.probe(&request.id).await.unwrap_err();
    assert!(matches!(hung, ComputeError::Monitor { .. }), "{hung}");
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn a_launch_that_fails_says_why_in_qemus_words_and_can_be_repeated() {
    let mut site = Site::new();
    let request = site.request("vm");
    site.compute.prepare(&request).await.unwrap();
    site.exports[0].fall_silent();
    let failed = site.compute.start(&request.id).await.unwrap_err();
    assert!(failed.to_string().contains("Failed to connect"), "{failed}");
    assert_eq!(
        site.compute.probe(&request.id).await.unwrap(),
        VmCondition::Prepared
    );
    site.exports[0].serve();
    site.compute.start(&request.id).await.unwrap();
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
}

#[tokio::test]
async fn what_is_still_there_after_a_discard_is_said_and_a_repetition_finds_it_gone() {
    let mut site = Site::new();
    let request = site.running("vm").await;
    let mut reader = Command::new("tail")
        .arg("-f")
        .arg(site.compute.console(&request.id))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let namespace = site.namespace();
    let mut inhabitant = Command::new("ip")
        .args(["netns", "exec", &namespace, "sleep", "600"])
        .spawn()
        .unwrap();
    crate::site::eventually("the namespace is inhabited", || {
        output("ip", &["netns", "pids", &namespace]).contains(&inhabitant.id().to_string())
    });
    let leaks = site.compute.discard(&request.id).await.unwrap();
    let kinds: Vec<_> = leaks.iter().map(|leak| leak.kind.as_str()).collect();
    assert_eq!(kinds, ["process", "namespace", "process"], "{leaks:?}");
    assert!(leaks[0].name.contains(&reader.id().to_string()), "{leaks:?}");
    assert!(leaks[2].name.contains(&inhabitant.id().to_string()), "{leaks:?}");
    for process in [&mut reader, &mut inhabitant] {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    assert_eq!(site.compute.discard(&request.id).await.unwrap(), []);
    site.assert_nothing_is_left();
}

#[tokio::test]
async fn every_check_is_listed_with_its_result() {
    let mut site = Site::new();
    let mut request = site.request("vm");
    let checks = site.compute.checks(&request.machine, &request.network).await;
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| check.outcome == CheckOutcome::Failed)
        .collect();
    assert_eq!(failed.len(), 0, "{failed:?}");

    request.machine.firmware = Firmware::Uefi;
    request.machine.machine_type = "virt".to_owned();
    request.machine.memory.0 = 1 << 50;
    request.network = farshore_provider::NetworkAttachment::Bridge {
        bridge: "no-such-bridge".to_owned(),
    };
    let checks = site.compute.checks(&request.machine, &request.network).await;
    let failed: Vec<_> = checks
        .iter()
        .filter(|check| check.outcome == CheckOutcome::Failed)
        .map(|check| check.code.as_str())
        .collect();
    assert_eq!(
        failed,
        [
            "machine-supported",
            "machine-type-known",
            "memory-available",
            "bridge-exists"
        ]
    );
    assert!(
        checks
            .iter()
            .all(|check| check.outcome == CheckOutcome::Passed || !check.remedy.is_empty())
    );
}
