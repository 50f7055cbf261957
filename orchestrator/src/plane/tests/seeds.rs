//! Older copies at the target: who is told of them, and until when they may be changed.

use super::*;

fn with_seed(seed: &str) -> String {
    MANIFEST.replace(
        "{site: west, network: production}",
        &format!("{{site: west, network: production, seed: {{{seed}}}}}"),
    )
}

#[tokio::test]
async fn a_target_is_told_of_seeds_when_it_is_prepared_and_forgets_them_with_the_vm() {
    let world = Scripted::new();
    world.change(|world| world.enabled_phase = Some(v1::SourcePhase::InitialSync));
    let scene = Scene::of(world).await;
    let (world, user) = (&scene.world, &scene.user);
    user.apply("", &with_seed("data: /dev/vg0/old")).await.unwrap();
    user.vm_in(ProtectionState::InitialSync).await;
    let told: Vec<_> = world.world().seeds.values().flatten().cloned().collect();
    let expected = v1::SeedPath {
        volume: "data".to_owned(),
        path: "/dev/vg0/old".to_owned(),
    };
    assert_eq!(told, [expected]);
    for changed in [with_seed("data: /dev/vg0/other"), MANIFEST.to_owned()] {
        let refused = user.apply("", &changed).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("spec.target.seed"), "{refused}");
    }
    let job = user.delete("ProtectedVm", "shop-db").await.unwrap();
    assert_eq!(user.watch_job(&job).await.state(), JobState::Succeeded);
    assert!(world.world().seeds.is_empty());
    scene.end().await;
}

#[tokio::test]
async fn once_there_is_a_point_the_seed_may_be_left_out() {
    let seeded = with_seed("root: /images/old.raw");
    let scene = Scene::protecting(&seeded).await;
    let user = &scene.user;
    let applied = user.apply("", MANIFEST).await.unwrap();
    assert_eq!(applied[3].effect(), v1::ApplyEffect::Changed);
    let refused = user.apply("", &seeded).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    scene.end().await;
}

#[tokio::test]
async fn a_target_that_does_not_forget_holds_no_deletion_up() {
    let scene = Scene::protecting(&with_seed("root: /images/old.raw")).await;
    let (world, user) = (&scene.world, &scene.user);
    world.change(|world| {
        let fault = Fault::Fails { retryable: true };
        world.faults.insert("forget-seeds", vec![fault]);
    });
    let job = user.delete("ProtectedVm", "shop-db").await.unwrap();
    let ended = user.watch_job(&job).await;
    assert_eq!(ended.state(), JobState::Succeeded, "{ended:?}");
    let asked = world
        .world()
        .asked
        .iter()
        .filter(|(_, part)| *part == "forget-seeds")
        .count();
    assert_eq!(asked, 1);
    scene.end().await;
}
