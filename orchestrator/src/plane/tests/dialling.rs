//! Who dials whom, by what the sites say of themselves.

use super::*;

const CLOSED_WEST: &str = "apiVersion: farshore/v1\nkind: Site\nmetadata: {name: west}\nspec:\n  provider: qemu\n  inbound: closed\n  networks:\n  \
     - {name: production, bridge: br0}\n";

#[tokio::test]
async fn a_target_that_nobody_can_dial_is_told_where_its_source_is_until_the_vm_is_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let world = Scripted::new();
    let _replicators = attach(plane.address, &world);
    let user = User::connect(plane.address).await;
    let vm = MANIFEST.split("---\n").collect::<Vec<_>>();
    let others = vm.iter().filter(|document| !document.contains("name: west"));
    let closed = others
        .copied()
        .chain([CLOSED_WEST])
        .collect::<Vec<_>>()
        .join("---\n");
    user.apply("", &closed).await.unwrap();
    user.vm_in(ProtectionState::Protected).await;
    // The scripted source checks that it is not told to dial.
    assert_eq!(world.world().dialled.len(), 1);
    let job = user.delete("ProtectedVm", "shop-db").await.unwrap();
    assert_eq!(user.watch_job(&job).await.state(), JobState::Succeeded);
    assert!(world.world().dialled.is_empty());
    plane.stop().await;
}
