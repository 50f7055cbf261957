//! `point pin|unpin`.

use farshore_proto::v1::{PinPointRequest, PointPin, RecoveryPoint, UnpinPointRequest};
use serde_json::json;
use tonic::{Status, metadata::MetadataValue};

use crate::{farshore, script::Script};

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_point_is_shown_as_it_is_then() {
    let pinned = RecoveryPoint {
        sequence: 7,
        pin: Some(PointPin { locked_until: None }),
        ..RecoveryPoint::default()
    };
    let asked = |request: &PinPointRequest| {
        let named = request.vm == "a" && request.point == "7" && request.until.is_empty();
        named && !request.idempotency_key.is_empty()
    };
    let script = Script::default().answers("PinPoint", asked, pinned).plays().await;
    let run = farshore(&["point", "pin", "a", "7", "-o", "json", "--server", &script.server])
        .await
        .ended_with(0);
    let shown = run.json();
    assert_eq!(
        (&shown["sequence"], &shown["hold"], &shown["lockedUntil"]),
        (&json!(7), &json!("pinned"), &json!(null))
    );
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_lock_is_passed_on_as_it_was_given() {
    let asked = |request: &PinPointRequest| request.until == "2126-01-01T00:00:00Z";
    let script = Script::default()
        .answers("PinPoint", asked, RecoveryPoint::default())
        .plays()
        .await;
    let until = ["--until", "2126-01-01T00:00:00Z", "--server", &script.server];
    let arguments: Vec<_> = ["point", "pin", "a", "latest"].into_iter().chain(until).collect();
    farshore(&arguments).await.ended_with(0);
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_point_is_not_unpinned_and_the_exit_status_says_so() {
    let mut refusal = Status::failed_precondition("point 7 is locked");
    refusal
        .metadata_mut()
        .insert("farshore-reason", MetadataValue::from_static("point-locked"));
    let script = Script::default()
        .refuses::<UnpinPointRequest>("UnpinPoint", refusal)
        .plays()
        .await;
    let run = farshore(&["point", "unpin", "a", "7", "--server", &script.server])
        .await
        .ended_with(3);
    assert_eq!(
        (run.stdout.as_str(), run.stderr.contains("point-locked")),
        ("", true)
    );
    script.was_followed();
}
