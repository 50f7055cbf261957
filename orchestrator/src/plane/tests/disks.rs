//! Disks that are declared otherwise while a VM is protected.

use super::*;

#[tokio::test]
async fn a_list_of_disks_that_is_changed_while_a_vm_is_protected_reaches_its_source() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let world = Scripted::new();
    let _replicators = attach(plane.address, &world);
    let user = User::connect(plane.address).await;
    let job = user.apply("", MANIFEST).await.unwrap()[3].job.clone();
    user.watch_job(&job).await;
    let changed = MANIFEST.replace(
        "      - {name: data, device: vddata}\n",
        "      - {name: logs, device: vdlogs}\n",
    );
    assert_ne!(changed, MANIFEST);
    let applied = user.apply("", &changed).await.unwrap();
    assert_eq!(applied[3].effect(), v1::ApplyEffect::Changed);
    assert_eq!(applied[3].job, "", "no job is needed");
    let named = |world: &Scripted| -> Vec<String> {
        let world = world.world();
        let disks = world.disks.values().next().into_iter().flatten();
        disks.map(|disk| disk.name.clone()).collect()
    };
    until(|| named(&world) == ["root", "logs"]).await;

    // What else the target was prepared for stays as it is.
    let refused = user
        .apply("", &changed.replace("memory: 256MiB", "memory: 512MiB"))
        .await
        .unwrap_err();
    assert!(refused.message().contains("list of disks"), "{refused:?}");
    plane.stop().await;
}
