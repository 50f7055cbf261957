//! Peers that send what they should not, or do not read what they should.

use super::*;

#[tokio::test]
async fn a_stream_that_does_not_begin_well_is_refused_with_the_reason() {
    let served = patient().await;
    let with = |change: fn(&mut v1::Register)| {
        let mut register = register("e", "east");
        change(&mut register);
        replicator_message::Body::Register(register)
    };
    let cases = [
        (
            replicator_message::Body::Report(report()),
            "a stream begins with `register`",
        ),
        (
            with(|register| register.name = "E".to_owned()),
            "`register.name`: `E` is not a name",
        ),
        (
            with(|register| register.site = String::new()),
            "`register.site`: `` is not a name",
        ),
        (
            with(|register| register.instance = String::new()),
            "`register.instance` is missing",
        ),
        (
            with(|register| register.instance = "x".repeat(100_000)),
            "`register.instance` is too long",
        ),
        (
            with(|register| register.vault_incarnation = vec![1; 15].into()),
            "`register.vault_incarnation` has 15 bytes",
        ),
        (
            with(|register| register.replication_endpoint = "west:1".to_owned()),
            "`register.replication_endpoint` is not",
        ),
        (
            with(|register| {
                register.sent_at = Some(prost_types::Timestamp {
                    seconds: -1,
                    nanos: 0,
                })
            }),
            "`register.sent_at` is not a possible value",
        ),
    ];
    for (first, expected) in cases {
        let refused = Peer::open(&served, first).await.err().unwrap();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(expected), "{}", refused.message());
    }
    assert!(served.fleet.views().borrow().replicators.is_empty());
}

#[tokio::test]
async fn a_stream_that_says_nothing_is_not_kept() {
    let served = serve(FleetOptions {
        register_within: Duration::from_millis(50),
        ..FleetOptions::default()
    })
    .await;
    let mut client = FleetClient::connect(served.url.clone()).await.unwrap();
    let (_outbound, messages) = mpsc::channel::<v1::ReplicatorMessage>(1);
    let refused = within(client.attach(ReceiverStream::new(messages))).await;
    assert_eq!(refused.err().unwrap().code(), Code::InvalidArgument);
}

fn of_source(change: fn(&mut v1::SourceStatus)) -> v1::Report {
    let mut report = report();
    change(&mut report.sources[0]);
    report
}

fn of_target(change: fn(&mut v1::TargetStatus)) -> v1::Report {
    let epoch = v1::Epoch {
        number: 1,
        holder: vec![1; 16].into(),
    };
    let mut target = v1::TargetStatus {
        vm: "shop-db".to_owned(),
        chain: vec![1; 16].into(),
        epoch: Some(epoch),
        ..v1::TargetStatus::default()
    };
    change(&mut target);
    v1::Report {
        targets: vec![target],
        ..v1::Report::default()
    }
}

fn hostile_reports() -> Vec<(v1::Report, &'static str)> {
    let negative = prost_types::Duration {
        seconds: -5,
        nanos: 0,
    };
    let never = prost_types::Timestamp {
        seconds: i64::MAX,
        nanos: 0,
    };
    let mut twice = report();
    twice.sources.push(twice.sources[0].clone());
    let mut slow = report();
    slow.sources[0].last_cycle = Some(negative);
    let mut eternal = of_target(|_| {});
    eternal.targets[0].valid_through = Some(never);
    vec![
        (
            of_target(|target| target.damaged_places = 1),
            "`report.targets.damaged_places` is not a possible value",
        ),
        (
            of_target(|target| {
                target.damaged_places = 1;
                target.damage = vec![v1::VaultDamage {
                    first_point: 3,
                    last_point: 2,
                    ..v1::VaultDamage::default()
                }];
            }),
            "`report.targets.damage.first_point` is not a possible value",
        ),
        (
            of_source(|source| source.chain = vec![1; 17].into()),
            "`report.sources.chain` has 17 bytes instead of 16",
        ),
        (
            of_source(|source| source.vm = String::new()),
            "`report.sources.vm` is missing",
        ),
        (
            of_source(|source| source.phase = 99),
            "`report.sources.phase` is not a possible value",
        ),
        (
            of_source(|source| source.sync_bytes_per_second = f64::NAN),
            "`report.sources.sync_bytes_per_second` is not",
        ),
        (
            of_source(|source| source.newest = Some(v1::PointHead::default())),
            "`report.sources.newest` has 0 bytes",
        ),
        (slow, "`report.sources.last_cycle` is not a possible value"),
        (twice, "`report.sources` has an entry twice"),
        (
            of_target(|target| target.epoch = Some(v1::Epoch::default())),
            "`report.targets.epoch` has 0 bytes instead of 16",
        ),
        (
            of_target(|target| target.newest = Some(v1::RecoveryPoint::default())),
            "`point.sequence` is not",
        ),
        (eternal, "`report.targets.valid_through` is not a possible value"),
    ]
}

#[tokio::test]
async fn a_malformed_report_ends_the_stream_with_the_reason_and_changes_nothing() {
    let served = patient().await;
    for (hostile, expected) in hostile_reports() {
        let mut east = Peer::attach(&served, "e", "east").await;
        east.send(replicator_message::Body::Report(hostile)).await;
        let refused = east.end().await;
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(expected), "{}", refused.message());
    }
    assert_eq!(served.fleet.views().borrow().replicators["e"].report, None);
}

#[tokio::test]
async fn what_a_vault_may_hold_does_not_lock_its_replicator_out() {
    let served = patient().await;
    let east = Peer::attach(&served, "e", "east").await;
    let mut odd = of_target(|target| {
        target.vm = "Made by hand".to_owned();
        target.epoch = None;
    });
    odd.recovered.push(v1::RecoveredVmStatus {
        recovery_id: "left-over-".to_owned(),
        condition: v1::RecoveredVmCondition::Unspecified.into(),
    });
    east.send(replicator_message::Body::Report(odd.clone())).await;
    until(&served.fleet, |view| {
        view.replicators["e"].report.as_ref() == Some(&odd)
    })
    .await;
}

#[tokio::test]
async fn a_message_without_a_body_and_a_second_registration_end_the_stream() {
    let served = patient().await;
    let mut east = Peer::attach(&served, "e", "east").await;
    east.outbound
        .send(v1::ReplicatorMessage { body: None })
        .await
        .unwrap();
    assert_eq!(east.end().await.message(), "a message without a known body");
    let mut east = Peer::attach(&served, "e", "east").await;
    east.send(replicator_message::Body::Register(register("e", "east")))
        .await;
    assert_eq!(east.end().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn what_is_no_answer_to_the_command_fails_it_and_ends_the_stream() {
    let served = patient().await;
    let bad_epoch = v1::FenceRaised { epoch: None };
    let cases = [
        (enabled(), Malformed::OtherAnswer),
        (
            Outcome::FenceRaised(bad_epoch),
            Malformed::Missing {
                field: "fence_raised.epoch",
            },
        ),
    ];
    for (outcome, expected) in cases {
        let mut east = Peer::attach(&served, "e", "east").await;
        let fence = Body::Fence(v1::Fence {
            chain: vec![1; 16].into(),
            holder: vec![2; 16].into(),
        });
        let asked = served.fleet.command(EAST, "job/1".to_owned(), fence, LONG);
        let (answered, ()) = tokio::join!(asked, async {
            let command = east.command().await;
            east.answer(&command.id, outcome).await;
            assert_eq!(east.end().await.message(), expected.to_string());
        });
        assert!(
            matches!(&answered, Err(FleetError::WrongAnswer { malformed, .. }) if *malformed == expected),
            "{answered:?}"
        );
    }
}

#[tokio::test]
async fn a_replicator_that_does_not_read_delays_only_its_own_callers() {
    let served = patient().await;
    let _deaf = Peer::attach(&served, "e", "east").await;
    let mut west = Peer::attach(&served, "w", "west").await;
    // Far more than the queue and the connection's windows hold.
    let large = Body::CheckSource(v1::CheckSource {
        machine: None,
        monitor: "m".repeat(100_000),
        watchdog_monitor: String::new(),
        disk_paths: Vec::new(),
    });
    let callers: Vec<_> = (0..200)
        .map(|number| {
            let (fleet, large) = (served.fleet.clone(), large.clone());
            let id = format!("deaf/{number}");
            let deadline = Duration::from_millis(500);
            tokio::spawn(async move { fleet.command(EAST, id, large, deadline).await })
        })
        .collect();
    let asked = served
        .fleet
        .command(("west", Duty::Vault), "job/1".to_owned(), enable(), LONG);
    let (outcome, ()) = tokio::join!(asked, async {
        let command = west.command().await;
        west.answer(&command.id, enabled()).await;
    });
    assert_eq!(outcome, Ok(enabled()));
    for caller in callers {
        let missed = within(caller).await.unwrap();
        assert!(matches!(missed, Err(FleetError::NoAnswer { .. })), "{missed:?}");
    }
}
