//! A consistency group reaches its members' source, and what that reports of it reaches users.

use super::*;

const GROUP: &str = "---\napiVersion: farshore/v1\nkind: ConsistencyGroup\nmetadata: {name: shop}\n\
                     spec: {members: [shop-db], holdLimit: 500ms}\n";

#[tokio::test]
async fn a_vm_joins_and_leaves_a_group_while_it_is_protected() {
    let directory = tempfile::tempdir().unwrap();
    let plane = Running::start(directory.path()).await;
    let world = Scripted::new();
    let replicators = attach(plane.address, &world);
    let user = User::connect(plane.address).await;
    let job = user.apply("", MANIFEST).await.unwrap()[3].job.clone();
    user.watch_job(&job).await;
    let told = |seen: fn(Option<&v1::Membership>) -> bool| {
        let world = world.clone();
        move || seen(world.world().memberships.values().next())
    };
    assert!(told(|membership| membership.is_none())());

    // The second monitor is declared only now, too.
    let second = "monitor: /run/vms/shop-db.qmp, watchdogMonitor: /run/vms/shop-db.watch";
    let joined = MANIFEST.replace("monitor: /run/vms/shop-db.qmp", second) + GROUP;
    let applied = user.apply("", &joined).await.unwrap();
    assert_eq!(applied[4].effect(), v1::ApplyEffect::Created);
    until(told(|membership| {
        membership.is_some_and(|membership| {
            (membership.group.as_str(), membership.members.as_slice()) == ("shop", &["shop-db".to_owned()])
                && membership.watchdog_monitor == "/run/vms/shop-db.watch"
                && membership
                    .hold_limit
                    .is_some_and(|limit| limit.nanos == 500_000_000)
        })
    }))
    .await;
    assert_eq!(user.vm().await.unwrap().group, "shop");
    let groups = user.groups().await;
    assert_eq!((groups.len(), groups[0].name.as_str()), (1, "shop"));
    assert_eq!(groups[0].members[0].vm, "shop-db");

    let refused = user.delete("ProtectedVm", "shop-db").await.unwrap_err();
    assert!(refused.message().contains("in use by shop"), "{refused:?}");
    user.delete("ConsistencyGroup", "shop").await.unwrap();
    until(told(|membership| membership.is_none())).await;
    assert_eq!(user.vm().await.unwrap().group, "");
    assert_eq!(user.groups().await, []);
    user.delete("ProtectedVm", "shop-db").await.unwrap();
    drop(replicators);
    plane.stop().await;
}
