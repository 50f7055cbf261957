//! What users see and order of the vault: damage that its scrub found, and pins of points.

use super::*;

#[tokio::test]
async fn damage_of_the_vault_is_critical_and_told_once_when_it_comes_and_when_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let world = Scripted::new();
    let replicators = attach(plane.address, &world);
    let user = User::connect(plane.address).await;
    let job = user.apply("", MANIFEST).await.unwrap()[3].job.clone();
    user.watch_job(&job).await;
    let codes = |vm: &v1::Vm| -> Vec<String> {
        vm.health_reasons
            .iter()
            .map(|reason| reason.code.clone())
            .collect()
    };
    let sound = user.vm_in(ProtectionState::Protected).await;
    assert!(
        !codes(&sound).iter().any(|code| code.ends_with("damaged")),
        "{sound:?}"
    );

    world.change(|world| {
        world.damage = vec![v1::VaultDamage {
            volume: "root".to_owned(),
            offset_bytes: 4096,
            first_point: 1,
            last_point: 1,
            points: 1,
            newest: true,
            ..v1::VaultDamage::default()
        }];
    });
    let hit = user.vm_until(|vm| codes(vm).len() == 2).await;
    assert_eq!(codes(&hit), ["newest-point-damaged", "vault-damaged"]);
    assert_eq!(hit.health(), v1::ReplicationHealth::Critical);
    user.event("vault-damaged").await;
    // That it is reported again, and otherwise, is no news.
    world.change(|world| {
        world.damage[0].newest = false;
    });
    user.vm_until(|vm| codes(vm) == ["vault-damaged"]).await;
    world.change(|world| world.damage.clear());
    user.vm_until(|vm| codes(vm).is_empty()).await;
    user.event("vault-sound-again").await;
    let told: Vec<_> = user
        .events("vm/shop-db")
        .await
        .into_iter()
        .filter(|event| event.code.starts_with("vault-"))
        .map(|event| event.code)
        .collect();
    assert_eq!(told, ["vault-sound-again", "vault-damaged"]);
    drop(replicators);
    plane.stop().await;
}

#[tokio::test]
async fn a_point_is_pinned_once_under_one_key_and_a_refusal_of_the_vault_is_passed_on() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let world = Scripted::new();
    let replicators = attach(plane.address, &world);
    let user = User::connect(plane.address).await;
    let job = user.apply("", MANIFEST).await.unwrap()[3].job.clone();
    user.watch_job(&job).await;
    user.vm_in(ProtectionState::Protected).await;
    let pin = |until: &str| v1::PinPointRequest {
        idempotency_key: format!("key{until}"),
        vm: "shop-db".to_owned(),
        point: "latest".to_owned(),
        until: until.to_owned(),
    };
    for _ in 0..2 {
        let pinned = user.protection().pin_point(pin("")).await.unwrap().into_inner();
        assert_eq!(pinned.pin, Some(v1::PointPin { locked_until: None }));
    }
    let locked = user.protection().pin_point(pin("2126-01-01T00:00:00Z")).await;
    let end = locked.unwrap().into_inner().pin.unwrap().locked_until.unwrap();
    assert_eq!(end.seconds, 4_922_899_200);
    let past = user.protection().pin_point(pin("2020-01-01T00:00:00Z")).await;
    assert_eq!(reason(&past.unwrap_err()), "invalid-field");
    let missing = v1::PinPointRequest {
        point: "77".to_owned(),
        ..pin("2127-01-01T00:00:00Z")
    };
    let missing = user.protection().pin_point(missing).await.unwrap_err();
    assert_eq!(reason(&missing), "no-such-point");
    let unpin = v1::UnpinPointRequest {
        idempotency_key: "unpin".to_owned(),
        vm: "shop-db".to_owned(),
        point: "1".to_owned(),
    };
    world.change(|world| {
        let locked = Fault::Fails { retryable: false };
        world.faults.insert("set-pin", vec![locked]);
    });
    let refused = user.protection().unpin_point(unpin.clone()).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused).as_str()),
        (Code::FailedPrecondition, "scripted")
    );
    // What was refused may be asked again under its key.
    assert_eq!(
        user.protection()
            .unpin_point(unpin)
            .await
            .unwrap()
            .into_inner()
            .pin,
        None
    );
    let told: Vec<_> = user
        .events("vm/shop-db")
        .await
        .into_iter()
        .map(|event| event.code)
        .collect();
    assert_eq!(told[..3], ["point-unpinned", "point-locked", "point-pinned"]);
    drop(replicators);
    plane.stop().await;
}
