//! Disks that are declared otherwise while a VM is protected.

use super::*;

/// The VM with another disk than it had.
fn other_disks() -> String {
    let changed = MANIFEST.replace(
        "      - {name: data, device: vddata}\n",
        "      - {name: logs, device: vdlogs}\n",
    );
    assert_ne!(changed, MANIFEST);
    changed
}

#[tokio::test]
async fn a_list_of_disks_that_is_changed_while_a_vm_is_protected_reaches_its_source() {
    let scene = Scene::protecting(MANIFEST).await;
    let (world, user) = (&scene.world, &scene.user);
    let changed = other_disks();
    let applied = user.apply("", &changed).await.unwrap();
    assert_eq!(applied[3].effect(), v1::ApplyEffect::Changed);
    assert_eq!(applied[3].job, "", "no job is needed");
    let named = |world: &Scripted| -> Vec<String> {
        let world = world.world();
        let disks = world.disks.values().next().into_iter().flatten();
        disks.map(|disk| disk.name.clone()).collect()
    };
    until(|| named(world) == ["root", "logs"]).await;

    // What else the target was prepared for stays as it is.
    let refused = user
        .apply("", &changed.replace("memory: 256MiB", "memory: 512MiB"))
        .await
        .unwrap_err();
    assert!(refused.message().contains("list of disks"), "{refused:?}");
    scene.end().await;
}

fn reasons(vm: &v1::Vm) -> Vec<&str> {
    vm.health_reasons
        .iter()
        .map(|reason| reason.code.as_str())
        .collect()
}

#[tokio::test]
async fn disks_that_a_source_refuses_are_told_with_the_reason_until_it_has_what_is_declared() {
    let scene = Scene::protecting(MANIFEST).await;
    let (world, user) = (&scene.world, &scene.user);
    world.change(|world| {
        let fault = Fault::Fails { retryable: false };
        world.faults.insert("set-disks", vec![fault]);
    });
    user.apply("", &other_disks()).await.unwrap();
    let vm = user.vm_until(|vm| reasons(vm) == ["disks-refused"]).await;
    assert_eq!(vm.health(), v1::ReplicationHealth::Warning);
    let [reason] = vm.health_reasons.as_slice() else {
        panic!("{:?}", vm.health_reasons)
    };
    assert!(reason.what.contains("set-disks fails"), "{reason:?}");
    assert!(!reason.what_to_do.is_empty());
    let told = user.event("disks-refused").await;
    assert_eq!(told.severity(), v1::Severity::Warning);
    assert!(told.message.contains("set-disks fails"), "{told:?}");
    // Declared as they are, nothing is refused any more, whoever asks when.
    user.apply("", MANIFEST).await.unwrap();
    user.vm_until(|vm| reasons(vm).is_empty()).await;
    scene.end().await;
}
