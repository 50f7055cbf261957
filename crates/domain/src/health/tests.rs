//! The RPO is never better than the truth, and every reason has its health.

use super::*;
use crate::protection::Stage;

const SECOND: u64 = 1_000_000_000;

fn known(valid_through_seconds: u64, offset_seconds: i64, uncertainty_seconds: u64) -> KnownInstant {
    KnownInstant {
        valid_through: WallTime(valid_through_seconds * SECOND),
        clock_offset_nanoseconds: offset_seconds * 1_000_000_000,
        uncertainty: Duration::from_secs(uncertainty_seconds),
    }
}

fn seen<'a>(protection: &'a Protection, failover: &'a Failover) -> Observation<'a> {
    Observation {
        protection,
        failover,
        source: Attachment::Attached,
        target: Attachment::Attached,
        source_detail: "",
        fencing: Fencing::NotFenced,
        rpo: Some(Duration::from_secs(3)),
        rpo_target: Duration::from_secs(15),
        damage: None,
        audit: None,
        last_cycle: None,
        app_consistency_missed: "",
        group_instant_missed: "",
        disks_refused: "",
    }
}

#[test]
fn the_age_is_corrected_by_the_offset_and_never_better_than_the_truth() {
    let now = WallTime(1000 * SECOND);
    // The target's clock is ahead by 60 s, so what it calls 1050 was 990 here.
    assert_eq!(
        recovery_point_age(now, known(1050, 60, 2)),
        Duration::from_secs(12)
    );
    assert_eq!(
        recovery_point_age(now, known(930, -60, 2)),
        Duration::from_secs(12)
    );
    // An instant that seems to lie in the future is as old as the clocks may be wrong.
    assert_eq!(recovery_point_age(now, known(1005, 0, 2)), Duration::from_secs(2));
}

#[test]
fn the_age_is_at_least_the_true_one_for_every_error_within_the_uncertainty() {
    let now = WallTime(1000 * SECOND);
    for true_offset in -5i64..=5 {
        for error in -2i64..=2 {
            let captured_here = 990;
            let valid_through = u64::try_from(captured_here + true_offset).unwrap();
            let shown = recovery_point_age(now, known(valid_through, true_offset + error, 2));
            assert!(
                shown >= Duration::from_secs(10),
                "{true_offset} {error}: {shown:?}"
            );
        }
    }
}

#[test]
fn a_vm_that_does_as_declared_is_normal() {
    let (health, reasons) = health(&seen(&Protection::Protected, &Failover::None));
    assert_eq!((health, reasons), (Health::Normal, vec![]));
}

#[test]
fn every_reason_is_told_and_the_worst_decides() {
    let failed = Protection::Failed {
        at: Stage::InitialSync,
        reason: "why".into(),
    };
    let codes = |observation: &Observation<'_>| {
        let (worst, reasons) = health(observation);
        (
            worst,
            reasons.into_iter().map(|reason| reason.code).collect::<Vec<_>>(),
        )
    };
    let protected = Protection::Protected;
    let base = seen(&protected, &Failover::None);
    let late = Observation {
        rpo: Some(Duration::from_secs(20)),
        source: Attachment::Lost,
        ..base
    };
    assert_eq!(
        codes(&late),
        (Health::Warning, vec!["rpo-exceeded", "source-replicator-lost"])
    );
    let very_late = Observation {
        rpo: Some(Duration::from_secs(31)),
        source_detail: "the target is full",
        ..base
    };
    assert_eq!(
        codes(&very_late),
        (Health::Critical, vec!["rpo-exceeded", "source-waits"])
    );
    let fenced = Observation {
        fencing: Fencing::Fenced,
        target: Attachment::Lost,
        ..base
    };
    assert_eq!(
        codes(&fenced),
        (Health::Critical, vec!["source-fenced", "target-replicator-lost"])
    );
    assert_eq!(
        codes(&seen(&failed, &Failover::None)),
        (Health::Critical, vec!["protection-failed"])
    );
}

#[test]
fn after_a_failover_the_old_source_is_not_judged() {
    let observation = Observation {
        fencing: Fencing::Fenced,
        source: Attachment::Lost,
        ..seen(&Protection::Protected, &Failover::FailedOver)
    };
    assert_eq!(health(&observation).0, Health::Normal);
}

#[test]
fn damage_of_the_vault_is_critical_and_names_the_points_that_are_hit() {
    let damage = VaultDamage {
        places: 3,
        first: Sequence(4),
        last: Sequence(9),
        newest: NewestPoint::Sound,
    };
    let observation = Observation {
        damage: Some(damage),
        ..seen(&Protection::Protected, &Failover::None)
    };
    let (worst, reasons) = health(&observation);
    assert_eq!(worst, Health::Critical);
    let shown: Vec<_> = reasons
        .iter()
        .map(|reason| (reason.code, reason.what.as_str()))
        .collect();
    assert_eq!(
        shown,
        [(
            "vault-damaged",
            "3 places of the vault cannot be read as written; hit: points from 4 to 9"
        )]
    );
    let one = VaultDamage {
        places: 1,
        first: Sequence(9),
        ..damage
    };
    let (_, reasons) = health(&Observation {
        damage: Some(one),
        ..observation
    });
    assert_eq!(
        reasons[0].what,
        "1 place of the vault cannot be read as written; hit: point 9"
    );
}

#[test]
fn a_damaged_newest_point_is_told_as_long_as_one_could_fail_over_to_it() {
    let damage = VaultDamage {
        places: 1,
        first: Sequence(4),
        last: Sequence(9),
        newest: NewestPoint::Hit,
    };
    let codes = |failover: &Failover| {
        let (worst, reasons) = health(&Observation {
            damage: Some(damage),
            ..seen(&Protection::Protected, failover)
        });
        (
            worst,
            reasons.iter().map(|reason| reason.code).collect::<Vec<_>>(),
        )
    };
    assert_eq!(
        codes(&Failover::None),
        (Health::Critical, vec!["newest-point-damaged", "vault-damaged"])
    );
    // The recovered VM reads from the vault.
    assert_eq!(
        codes(&Failover::FailedOver),
        (Health::Critical, vec!["vault-damaged"])
    );
}

#[test]
fn every_reason_is_documented() {
    let document = include_str!("../../../../docs/reason-codes.md");
    let sources = [include_str!("../health.rs"), include_str!("damage.rs")];
    let codes: Vec<_> = sources
        .iter()
        .flat_map(|source| source.split("code: \"").skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(codes.len() >= 10, "{codes:?}");
    for code in codes {
        assert!(document.contains(&format!("| `{code}` |")), "{code}");
    }
}

#[test]
fn a_cycle_that_takes_too_long_says_where_its_time_went() {
    let milliseconds = Duration::from_millis;
    let times = CycleTimes {
        interval: milliseconds(1000),
        took: milliseconds(3250),
        begin: milliseconds(40),
        read: milliseconds(200),
        send: milliseconds(2900),
        seal: milliseconds(100),
    };
    let judged = |times| {
        health(&Observation {
            last_cycle: Some(times),
            ..seen(&Protection::Protected, &Failover::None)
        })
        .1
    };
    let reasons = judged(times);
    assert_eq!(reasons[0].code, "cycle-too-long");
    assert_eq!(
        reasons[0].what,
        "the last cycle took 3.2 s, the interval is 1.0 s: begin 0.0 s, read 0.2 s, send 2.9 s, seal 0.1 s"
    );
    assert!(reasons[0].possible_cause.contains("link"));
    let slow_disk = CycleTimes {
        read: milliseconds(2900),
        send: milliseconds(200),
        ..times
    };
    assert!(judged(slow_disk)[0].possible_cause.contains("disks were slow"));
    let in_time = CycleTimes {
        took: milliseconds(900),
        ..times
    };
    assert_eq!(judged(in_time), []);
}

#[test]
fn a_difference_that_the_audit_found_is_critical_until_a_clean_pass() {
    let finding = AuditFinding {
        blocks: 2,
        point: Sequence(7),
    };
    let (worst, reasons) = health(&Observation {
        audit: Some(finding),
        ..seen(&Protection::Protected, &Failover::None)
    });
    assert_eq!((worst, reasons[0].code), (Health::Critical, "audit-mismatch"));
    assert!(reasons[0].what.contains("2 blocks") && reasons[0].what.contains("point 7"));
}
