//! What is shown of consistency groups, and deleting one.

use std::time::{Duration, SystemTime};

use farshore_proto::v1::{
    DeleteRequest, DeleteResponse, Group, GroupMember, ListGroupsResponse, ListRequest,
};
use serde_json::json;

use crate::{farshore, script::Script};

fn groups() -> ListGroupsResponse {
    let hold = |milliseconds| Some(Duration::from_millis(milliseconds).try_into().unwrap());
    let member = |vm: &str, missed: &str| GroupMember {
        vm: vm.to_owned(),
        missed: missed.to_owned(),
        longest_hold: hold(12),
        instants: 7,
        replicator: format!("east-{vm}"),
    };
    let shop = Group {
        name: "shop".to_owned(),
        members: vec![member("db", ""), member("web", "db is still at its last cycle")],
        hold_limit: hold(1000),
        instant: 0xbeef,
        instant_at: Some((SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).into()),
        longest_hold: hold(12),
        leader: "east-db".to_owned(),
    };
    ListGroupsResponse {
        groups: vec![shop],
        next_page_token: String::new(),
    }
}

async fn groups_by(arguments: &[&str]) -> crate::Run {
    let script = Script::default()
        .answers("ListGroups", |_: &ListRequest| true, groups())
        .plays()
        .await;
    let run = farshore(&[arguments, &["--server", &script.server]].concat())
        .await
        .ended_with(0);
    script.was_followed();
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_shows_its_newest_instant_and_who_missed_it() {
    let expected = json!({
        "name": "shop", "holdLimitSeconds": 1.0, "instant": "000000000000beef",
        "instantAt": "2023-11-14T22:13:20.000Z", "longestHoldSeconds": 0.012, "leader": "east-db",
        "members": [
            {"vm": "db", "missed": null, "longestHoldSeconds": 0.012, "instants": 7, "replicator": "east-db"},
            {"vm": "web", "missed": "db is still at its last cycle", "longestHoldSeconds": 0.012, "instants": 7, "replicator": "east-web"},
        ],
    });
    assert_eq!(
        groups_by(&["get", "group", "shop", "-o", "json"]).await.json(),
        expected
    );
    assert_eq!(
        groups_by(&["describe", "group", "shop", "-o", "json"])
            .await
            .json(),
        expected
    );
    let table = groups_by(&["get", "groups"]).await.stdout;
    assert!(table.starts_with("NAME  MEMBERS  NEWEST INSTANT"), "{table}");
    assert!(
        table.contains("shop  db,web   2023-11-14T22:13:20.000Z"),
        "{table}"
    );
    let page = groups_by(&["describe", "group", "shop"]).await.stdout;
    for words in ["Hold limit:", "000000000000beef", "db is still at its last cycle"] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_deleted_at_once() {
    let script = Script::default()
        .answers(
            "Delete",
            |request: &DeleteRequest| {
                (request.kind.as_str(), request.name.as_str()) == ("ConsistencyGroup", "shop")
            },
            DeleteResponse::default(),
        )
        .plays()
        .await;
    let run = farshore(&["delete", "group", "shop", "--server", &script.server])
        .await
        .ended_with(0);
    assert_eq!(run.stdout, "ConsistencyGroup shop: deleted\n");
    script.was_followed();
}
