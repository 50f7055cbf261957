//! `get` and `describe`.

use std::time::{Duration, SystemTime};

use farshore_proto::v1::{
    Event, GetJobRequest, GetVmRequest, Job, JobState, LinkHours, LinkLimit, ListEventsRequest,
    ListEventsResponse, ListPoliciesResponse, ListRequest, ListSitesResponse, ListVmPointsRequest,
    ListVmPointsResponse, ListVmsResponse, PointKind, PointPin, Policy, ProtectionState, RecoveryPoint,
    Retention, Severity, Site, SiteNetwork, Step, StepState, Vm,
};
use serde_json::json;

use crate::{farshore, script::Script};

fn moment(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn vm(name: &str) -> Vm {
    Vm {
        name: name.to_owned(),
        policy: "gold".to_owned(),
        source_site: "east".to_owned(),
        target_site: "west".to_owned(),
        state: ProtectionState::Protected.into(),
        rpo: Some(Duration::from_millis(2500).try_into().unwrap()),
        points: 7,
        ..Vm::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_fetched_page_after_page() {
    let first = ListVmsResponse {
        vms: vec![vm("a")],
        next_page_token: "more".to_owned(),
    };
    let second = ListVmsResponse {
        vms: vec![vm("b")],
        next_page_token: String::new(),
    };
    let script = Script::default()
        .answers(
            "ListVms",
            |request: &ListRequest| request.page_token.is_empty(),
            first,
        )
        .answers(
            "ListVms",
            |request: &ListRequest| request.page_token == "more",
            second,
        )
        .plays()
        .await;
    let run = farshore(&["get", "vms", "--server", &script.server])
        .await
        .ended_with(0);
    assert_eq!(
        run.stdout,
        "NAME  STATE      HEALTH   FAILOVER  RPO    POINTS  SITES\n\
         a     Protected  Unknown  Unknown   2.5 s  7       east -> west\n\
         b     Protected  Unknown  Unknown   2.5 s  7       east -> west\n"
    );
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_as_json_has_the_promised_keys() {
    let script = Script::default()
        .answers("GetVm", |request: &GetVmRequest| request.name == "a", vm("a"))
        .plays()
        .await;
    let run = farshore(&["get", "vm", "a", "-o", "json", "--server", &script.server])
        .await
        .ended_with(0);
    assert_eq!(
        run.json(),
        json!({
            "name": "a", "policy": "gold", "group": null, "sourceSite": "east", "targetSite": "west", "state": "Protected",
            "stateDetail": "", "failover": "Unknown", "health": "Unknown", "healthReasons": [],
            "rpoSeconds": 2.5, "rpoTargetSeconds": null, "syncDoneBytes": 0, "syncTotalBytes": 0,
            "syncBytesPerSecond": 0.0, "backlogBytes": 0, "points": 7, "newestPoint": null,
            "allowedOperations": [], "checks": [], "volumes": [], "machine": null, "sourcePhase": "Unknown",
            "sourceDetail": "", "activeJob": null, "recovered": null, "lastCycleSeconds": null,
            "lastHoldSeconds": null, "lastCycleTimes": null, "audit": null,
        })
    );
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn points_as_json_are_items_with_digests_in_hexadecimal_and_times_in_utc() {
    let point = RecoveryPoint {
        sequence: 3,
        digest: vec![0xab, 0x01].into(),
        captured_at: Some(moment(1_700_000_000).into()),
        sealed_at: Some(moment(1_700_000_001).into()),
        kind: PointKind::CrashConsistent.into(),
        changed_bytes: 8192,
        instant: 0xbeef,
        pin: Some(PointPin {
            locked_until: Some(moment(1_800_000_000).into()),
        }),
    };
    let answer = ListVmPointsResponse {
        points: vec![point],
        next_page_token: String::new(),
    };
    let script = Script::default()
        .answers(
            "ListPoints",
            |request: &ListVmPointsRequest| request.vm == "a",
            answer,
        )
        .plays()
        .await;
    let run = farshore(&["get", "points", "a", "-o", "json", "--server", &script.server])
        .await
        .ended_with(0);
    assert_eq!(
        run.json(),
        json!({"items": [{
            "sequence": 3, "digest": "ab01", "capturedAt": "2023-11-14T22:13:20.000Z",
            "sealedAt": "2023-11-14T22:13:21.000Z", "kind": "CrashConsistent", "changedBytes": 8192, "instant": "000000000000beef", "hold": "locked",
            "lockedUntil": "2027-01-15T08:00:00.000Z",
        }]})
    );
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_of_no_such_name_fails_and_the_known_ones_are_told() {
    let networks = vec![SiteNetwork {
        name: "production".to_owned(),
        bridge: "prod0".to_owned(),
    }];
    let site = Site {
        name: "west".to_owned(),
        provider: "qemu".to_owned(),
        networks,
        links: Vec::new(),
    };
    let answer = ListSitesResponse {
        sites: vec![site],
        next_page_token: String::new(),
    };
    let script = Script::default()
        .answers("ListSites", |_: &ListRequest| true, answer)
        .plays()
        .await;
    let run = farshore(&["get", "site", "north", "--server", &script.server])
        .await
        .ended_with(1);
    assert_eq!(run.stdout, "");
    assert_eq!(
        run.stderr,
        "error: there is no site `north`; there are west (not-found)\n"
    );
    script.was_followed();
}

fn site_with_a_link() -> ListSitesResponse {
    let hours = LinkHours {
        days: vec![0, 4],
        from_minute: 8 * 60,
        to_minute: 18 * 60 + 30,
        bytes_per_second: 10 << 20,
    };
    let link = LinkLimit {
        to: "west".to_owned(),
        bytes_per_second: 50 << 20,
        hours: vec![hours],
        connections: 0,
    };
    let site = Site {
        name: "east".to_owned(),
        provider: "qemu".to_owned(),
        networks: Vec::new(),
        links: vec![link],
    };
    ListSitesResponse {
        sites: vec![site],
        next_page_token: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_shows_how_much_of_its_links_may_be_taken() {
    let script = Script::default()
        .answers("ListSites", |_: &ListRequest| true, site_with_a_link())
        .answers("ListSites", |_: &ListRequest| true, site_with_a_link())
        .plays()
        .await;
    let run = farshore(&["get", "sites", "-o", "wide", "--server", &script.server])
        .await
        .ended_with(0);
    assert!(
        run.stdout.contains("west: 50.0 MiB/s, scheduled"),
        "{}",
        run.stdout
    );
    let run = farshore(&["get", "site", "east", "-o", "json", "--server", &script.server])
        .await
        .ended_with(0);
    let shown: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        shown["links"],
        json!([{"to": "west", "bandwidthLimitBytesPerSecond": 52_428_800, "schedule": [{
            "days": ["mon", "fri"], "from": "08:00", "to": "18:30", "limitBytesPerSecond": 10_485_760,
        }]}])
    );
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_subject_read_as_yaml() {
    let event = Event {
        number: 9,
        at: Some(moment(1_700_000_000).into()),
        severity: Severity::Critical.into(),
        subject: "vm/a".to_owned(),
        code: "fenced".to_owned(),
        message: "the source is fenced".to_owned(),
    };
    let answer = ListEventsResponse {
        events: vec![event],
        next_page_token: String::new(),
    };
    let script = Script::default()
        .answers(
            "ListEvents",
            |request: &ListEventsRequest| request.subject == "vm/a",
            answer,
        )
        .plays()
        .await;
    let run = farshore(&["get", "events", "vm/a", "-o", "yaml", "--server", &script.server])
        .await
        .ended_with(0);
    assert_eq!(
        run.stdout,
        "items:\n- number: 9\n  at: 2023-11-14T22:13:20.000Z\n  severity: Critical\n  subject: vm/a\n  \
         code: fenced\n  message: the source is fenced\n"
    );
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_each_change_once_until_its_time_is_up() {
    let answer = |points| ListVmsResponse {
        vms: vec![Vm { points, ..vm("a") }],
        next_page_token: String::new(),
    };
    let script = Script::default()
        .answers("ListVms", |_: &ListRequest| true, answer(1))
        .answers("ListVms", |_: &ListRequest| true, answer(1))
        .answers("ListVms", |_: &ListRequest| true, answer(2))
        .stays_silent::<ListRequest>("ListVms")
        .plays()
        .await;
    let arguments = [
        "get",
        "vms",
        "--watch",
        "-o",
        "json",
        "--timeout",
        "4s",
        "--server",
        &script.server,
    ];
    let run = farshore(&arguments).await.ended_with(5);
    let points: Vec<u64> = run
        .stdout
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["points"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(points, [1, 2]);
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_described_with_its_steps() {
    let step = Step {
        name: "Prerequisites check".to_owned(),
        state: StepState::Failed.into(),
        attempts: 2,
        detail: "monitor-reachable".to_owned(),
        ..Step::default()
    };
    let job = Job {
        id: "j1".to_owned(),
        kind: "enable-protection".to_owned(),
        subject: "vm/a".to_owned(),
        state: JobState::Failed.into(),
        steps: vec![step],
        error: "no monitor".to_owned(),
        ..Job::default()
    };
    let script = Script::default()
        .answers("GetJob", |request: &GetJobRequest| request.id == "j1", job)
        .plays()
        .await;
    let run = farshore(&["describe", "job", "j1", "--server", &script.server])
        .await
        .ended_with(0);
    assert!(
        run.stdout.contains("Prerequisites check  Failed  2"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("no monitor"), "{}", run.stdout);
    script.was_followed();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_is_empty_json_and_no_table() {
    let script = Script::default()
        .answers("ListVms", |_: &ListRequest| true, ListVmsResponse::default())
        .answers("ListVms", |_: &ListRequest| true, ListVmsResponse::default())
        .plays()
        .await;
    let run = farshore(&["get", "vms", "-o", "json", "--server", &script.server])
        .await
        .ended_with(0);
    assert_eq!(run.json(), json!({"items": []}));
    let run = farshore(&["get", "vms", "--server", &script.server])
        .await
        .ended_with(0);
    assert_eq!(
        (run.stdout.as_str(), run.stderr.as_str()),
        ("", "nothing found\n")
    );
    script.was_followed();
}

fn policies() -> ListPoliciesResponse {
    let seconds = |seconds| Some(Duration::from_secs(seconds).try_into().unwrap());
    let gold = Policy {
        name: "gold".to_owned(),
        interval: seconds(2),
        rpo_target: seconds(15),
        bandwidth_bytes_per_second: 50 << 20,
        audit_bytes_per_second: 4 << 20,
        guest_cost_limit_percent: 0,
        app_consistent_every: None,
        freeze_limit: None,
        retention: Some(Retention {
            keep_all: seconds(24 * 3600),
            daily: 7,
            weekly: 4,
            limit_bytes: 500 << 30,
            ..Retention::default()
        }),
    };
    ListPoliciesResponse {
        policies: vec![gold],
        next_page_token: String::new(),
    }
}

async fn policies_by(arguments: &[&str]) -> crate::Run {
    let script = Script::default()
        .answers("ListPolicies", |_: &ListRequest| true, policies())
        .plays()
        .await;
    let run = farshore(&[arguments, &["--server", &script.server]].concat())
        .await
        .ended_with(0);
    script.was_followed();
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_shows_what_it_keeps() {
    let wide = policies_by(&["get", "policies", "-o", "wide"]).await;
    assert_eq!(
        wide.stdout,
        "NAME  INTERVAL  RPO TARGET  BANDWIDTH LIMIT  RETENTION\n\
         gold  2.0 s     15.0 s      50.0 MiB/s       all of 1 d 0 h, 7 daily, 4 weekly, at most 500.0 GiB\n"
    );
    let expected = json!({
        "name": "gold", "intervalSeconds": 2.0, "rpoTargetSeconds": 15.0, "bandwidthLimitBytesPerSecond": 52_428_800,
        "auditBytesPerSecond": 4_194_304, "guestCostLimitPercent": null, "appConsistentEverySeconds": null, "freezeLimitSeconds": null,
        "retention": {
            "keepAllSeconds": 86_400.0, "hourly": 0, "daily": 7, "weekly": 4, "monthly": 0, "yearly": 0,
            "limitBytes": 536_870_912_000_u64,
        },
    });
    assert_eq!(
        policies_by(&["get", "policy", "gold", "-o", "json"]).await.json(),
        expected
    );
    assert_eq!(
        policies_by(&["describe", "policy", "gold", "-o", "json"])
            .await
            .json(),
        expected
    );
    let yaml = policies_by(&["get", "policy", "gold", "-o", "yaml"]).await;
    assert!(
        yaml.stdout.contains("  keepAllSeconds: 86400.0\n"),
        "{}",
        yaml.stdout
    );
    let page = policies_by(&["describe", "policy", "gold"]).await;
    for line in [
        "All points of:  1 d 0 h",
        "Daily:          one of each of the last 7 days before",
        "500.0 GiB a VM",
    ] {
        assert!(page.stdout.contains(line), "{line}: {}", page.stdout);
    }
}
