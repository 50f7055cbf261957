//! Sources that cannot replicate for a while: what keeps them is told, and that they go on.

use super::*;

#[tokio::test]
async fn what_keeps_a_source_from_replicating_is_told_once_and_so_is_its_end() {
    let scene = Scene::protecting(MANIFEST).await;
    let (world, user) = (&scene.world, &scene.user);
    let turn = |phase, detail: &str| {
        world.change(|world| {
            detail.clone_into(&mut world.detail);
            world.sources.values_mut().for_each(|source| source.1 = phase);
        });
    };
    turn(
        v1::SourcePhase::Connecting,
        "disk `data` is in the hands of another tool's job",
    );
    let told = user.event("source-interrupted").await;
    assert_eq!(told.severity(), v1::Severity::Warning);
    assert!(told.message.contains("another tool's job"), "{told:?}");
    let vm = user.vm().await.unwrap();
    assert_eq!(vm.health(), v1::ReplicationHealth::Warning);
    assert!(
        vm.health_reasons
            .iter()
            .any(|reason| reason.code == "source-waits")
    );
    turn(v1::SourcePhase::Replicating, "");
    user.event("source-goes-on").await;
    // A link that comes and goes fills no log.
    for _ in 0..3 {
        turn(v1::SourcePhase::Connecting, "the link was cut");
        user.vm_until(|vm| vm.health() == v1::ReplicationHealth::Warning)
            .await;
        turn(v1::SourcePhase::Replicating, "");
        user.vm_until(|vm| vm.health() == v1::ReplicationHealth::Normal)
            .await;
    }
    let events = user.events("vm/shop-db").await;
    let told = events.iter().filter(|event| event.code.starts_with("source-"));
    assert_eq!(told.count(), 2, "{events:?}");
    scene.end().await;
}
