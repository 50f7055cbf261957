//! Decides how records are shown: sites, policies, jobs, tests, events and replicators.

use farshore_domain::{
    declaration::{ReplicationPolicy, Site},
    job::{Job, JobState, Step, StepState},
    test_failover::TestFailover,
};
use farshore_proto::v1;

use crate::{
    fleet::{FleetView, ReplicatorView, timestamp},
    machine::{duration, guest_cost_limit_percent, link_to_wire, retention_to_wire},
    records::{AppliedEffect, CheckOutcome, CheckRecord, EventRecord, Severity, Started, TestRecord},
    replicators::recovered_condition,
};

pub(super) fn site(site: &Site) -> v1::Site {
    v1::Site {
        name: site.name().to_string(),
        provider: site.provider().as_str().to_owned(),
        networks: site
            .networks()
            .iter()
            .map(|network| v1::SiteNetwork {
                name: network.name.to_string(),
                bridge: network.bridge.to_string(),
            })
            .collect(),
        links: site.links().iter().map(link_to_wire).collect(),
    }
}

pub(super) fn policy(policy: &ReplicationPolicy) -> v1::Policy {
    v1::Policy {
        name: policy.name().to_string(),
        interval: Some(duration(policy.interval())),
        rpo_target: Some(duration(policy.rpo_target())),
        bandwidth_bytes_per_second: policy.bandwidth_limit().map_or(0, |limit| limit.0),
        retention: Some(retention_to_wire(policy.retention())),
        audit_bytes_per_second: policy.audit_rate().0,
        guest_cost_limit_percent: guest_cost_limit_percent(policy),
        app_consistent_every: policy.app_consistent().map(|wanted| duration(wanted.every())),
        freeze_limit: policy
            .app_consistent()
            .map(|wanted| duration(wanted.freeze_limit())),
    }
}

pub(super) fn effect(effect: AppliedEffect) -> v1::ApplyEffect {
    match effect {
        AppliedEffect::Created => v1::ApplyEffect::Created,
        AppliedEffect::Changed => v1::ApplyEffect::Changed,
        AppliedEffect::Unchanged => v1::ApplyEffect::Unchanged,
    }
}

/// A job that is being undone still runs for its users.
pub(crate) fn job_state(job: &Job) -> v1::JobState {
    match job.state {
        JobState::Queued => v1::JobState::Queued,
        JobState::Running | JobState::Unwinding { .. } => v1::JobState::Running,
        JobState::Succeeded => v1::JobState::Succeeded,
        JobState::Failed { .. } => v1::JobState::Failed,
        JobState::Cancelled { .. } => v1::JobState::Cancelled,
    }
}

pub(super) fn job(job: &Job) -> v1::Job {
    v1::Job {
        id: job.id.to_string(),
        kind: job.kind.name().to_owned(),
        subject: job.subject(),
        state: job_state(job).into(),
        steps: job.steps.iter().map(step).collect(),
        error: job.error().unwrap_or_default().to_owned(),
        created_at: Some(timestamp(job.created_at)),
        ended_at: job.ended_at.map(timestamp),
    }
}

fn step(step: &Step) -> v1::Step {
    let state = match step.state {
        StepState::Waiting => v1::StepState::Waiting,
        StepState::Running => v1::StepState::Running,
        StepState::Done => v1::StepState::Done,
        StepState::Failed => v1::StepState::Failed,
        StepState::Undone => v1::StepState::Undone,
    };
    v1::Step {
        name: step.kind.title().to_owned(),
        state: state.into(),
        attempts: step.attempts,
        detail: step.detail.clone(),
        started_at: step.started_at.map(timestamp),
        ended_at: step.ended_at.map(timestamp),
    }
}

pub(super) fn test(test: &TestRecord, view: &FleetView) -> v1::TestFailover {
    let (state, detail) = match &test.state {
        TestFailover::Starting => (v1::TestFailoverState::Starting, ""),
        TestFailover::Running => (v1::TestFailoverState::Running, ""),
        TestFailover::CleaningUp => (v1::TestFailoverState::CleaningUp, ""),
        TestFailover::Cleaned => (v1::TestFailoverState::Cleaned, ""),
        TestFailover::Failed { reason } => (v1::TestFailoverState::Failed, reason.as_str()),
    };
    let point = test.point.map_or(0, |point| point.0);
    let leaks = test.leaks.iter().map(|leak| v1::Leak {
        kind: leak.kind.clone(),
        name: leak.name.clone(),
    });
    v1::TestFailover {
        name: test.name.clone(),
        vm: test.vm.clone(),
        state: state.into(),
        detail: detail.to_owned(),
        point,
        recovered: test.started.as_ref().map(|started| {
            recovered(
                started,
                &test.name,
                point,
                recovered_condition(view, &test.site, &test.name),
            )
        }),
        job: test.job.to_string(),
        notes: test.notes.clone(),
        leaks: leaks.collect(),
        started_at: Some(timestamp(test.started_at)),
        ended_at: test.ended_at.map(timestamp),
    }
}

pub(super) fn recovered(
    started: &Started,
    recovery: &str,
    point: u64,
    condition: Option<v1::RecoveredVmCondition>,
) -> v1::RecoveredVm {
    v1::RecoveredVm {
        recovery_id: recovery.to_owned(),
        condition: condition.unwrap_or(v1::RecoveredVmCondition::Unspecified).into(),
        point,
        pid: started.pid,
        monitor: started.monitor.clone(),
        namespace: started.namespace.clone(),
        order_to_running: Some(duration(started.order_to_running)),
        ways_out: started.ways_out.clone(),
    }
}

pub(super) fn check(check: &CheckRecord) -> v1::Check {
    let outcome = match check.outcome {
        CheckOutcome::Passed => v1::CheckOutcome::Passed,
        CheckOutcome::Warning => v1::CheckOutcome::Warning,
        CheckOutcome::Failed => v1::CheckOutcome::Failed,
    };
    v1::Check {
        code: check.code.clone(),
        outcome: outcome.into(),
        found: check.found.clone(),
        remedy: check.remedy.clone(),
    }
}

pub(super) fn event(number: u64, event: EventRecord) -> v1::Event {
    let severity = match event.severity {
        Severity::Information => v1::Severity::Information,
        Severity::Warning => v1::Severity::Warning,
        Severity::Critical => v1::Severity::Critical,
    };
    v1::Event {
        number,
        at: Some(timestamp(event.at)),
        severity: severity.into(),
        subject: event.subject,
        code: event.code,
        message: event.message,
    }
}

pub(super) fn replicator(replicator: &ReplicatorView) -> v1::Replicator {
    let register = &replicator.register;
    v1::Replicator {
        name: register.name.clone(),
        site: register.site.clone(),
        up: replicator.up,
        software_version: register.software_version.clone(),
        last_seen: Some(timestamp(replicator.last_seen)),
        replication_endpoint: register.replication_endpoint.clone(),
        vault: replicator.report.as_ref().and_then(|report| report.vault),
    }
}
