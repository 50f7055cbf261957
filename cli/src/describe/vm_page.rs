//! A protected VM on one page.

use super::section;
use crate::{
    output::{
        format::{optional_seconds, or_nothing, size},
        table::{sheet, table},
    },
    view::{AuditView, CycleTimesView, VmView},
};

/// Protection, machine, checks, health and what can be done now.
pub(super) fn page(vm: &VmView) -> String {
    let sections = [
        section("Machine", &machine(vm)),
        section("Health", &health(vm)),
        section("Prerequisites", &checks(vm)),
        section("Recovered VM", &recovered(vm)),
        section("Allowed now", &vm.allowed_operations.join("\n")),
    ];
    format!("{}{}", facts(vm), sections.concat())
}

fn facts(vm: &VmView) -> String {
    let newest = vm.newest_point.as_ref().map_or_else(String::new, |point| {
        format!(
            "{} of {}",
            point.sequence,
            point.captured_at.as_deref().unwrap_or("an unknown time")
        )
    });
    let times = vm.last_cycle_times.as_ref();
    let times = or_nothing(&times.map(CycleTimesView::in_words).unwrap_or_default());
    let audit = vm.audit.as_ref().map(AuditView::in_words).unwrap_or_default();
    sheet(vec![
        ("VM", vm.name.clone()),
        (
            "State",
            format!("{} {}", vm.state, vm.state_detail).trim_end().to_owned(),
        ),
        ("Failover", vm.failover.clone()),
        ("Health", vm.health.clone()),
        ("Sites", format!("{} -> {}", vm.source_site, vm.target_site)),
        ("Policy", vm.policy.clone()),
        ("Group", or_nothing(vm.group.as_deref().unwrap_or_default())),
        (
            "RPO",
            format!(
                "{} (target {})",
                optional_seconds(vm.rpo_seconds),
                optional_seconds(vm.rpo_target_seconds)
            ),
        ),
        ("Points", vm.points.to_string()),
        ("Newest point", or_nothing(&newest)),
        (
            "Initial sync",
            or_nothing(&vm.sync_progress().unwrap_or_default()),
        ),
        ("Backlog", size(vm.backlog_bytes)),
        ("Last cycle", optional_seconds(vm.last_cycle_seconds)),
        ("  of which", times),
        ("Last hold of writes", optional_seconds(vm.last_hold_seconds)),
        ("Audit", or_nothing(&audit)),
        (
            "Source",
            format!("{} {}", vm.source_phase, vm.source_detail)
                .trim_end()
                .to_owned(),
        ),
        ("Job", or_nothing(vm.active_job.as_deref().unwrap_or_default())),
    ])
}

fn machine(vm: &VmView) -> String {
    let Some(machine) = &vm.machine else {
        return String::new();
    };
    let disks = machine.disks.iter().map(|disk| {
        let volume = vm.volumes.iter().find(|volume| volume.name == disk.name);
        let bytes = volume.map_or_else(|| "size unknown".to_owned(), |volume| size(volume.size_bytes));
        format!("{} ({}, {}, {bytes})", disk.name, disk.device, disk.bus)
    });
    let nics: Vec<&str> = machine.nics.iter().map(|nic| nic.mac.as_str()).collect();
    sheet(vec![
        ("Type", format!("{}, {}", machine.machine_type, machine.firmware)),
        ("Processors", machine.processors.to_string()),
        ("Memory", size(machine.memory_bytes)),
        ("Disks", disks.collect::<Vec<_>>().join(", ")),
        ("Network cards", or_nothing(&nics.join(", "))),
        ("UUID", or_nothing(machine.uuid.as_deref().unwrap_or_default())),
    ])
}

fn health(vm: &VmView) -> String {
    let reasons = vm.health_reasons.iter().map(|reason| {
        format!(
            "{}: {}\n  possible cause: {}\n  what to do: {}",
            reason.code, reason.what, reason.possible_cause, reason.what_to_do
        )
    });
    reasons.collect::<Vec<_>>().join("\n")
}

fn checks(vm: &VmView) -> String {
    if vm.checks.is_empty() {
        return String::new();
    }
    let rows = vm.checks.iter().map(|check| {
        vec![
            check.code.clone(),
            check.outcome.clone(),
            check.found.clone(),
            or_nothing(&check.remedy),
        ]
    });
    table(&["check", "outcome", "found", "remedy"], rows.collect())
}

fn recovered(vm: &VmView) -> String {
    vm.recovered.as_ref().map_or_else(String::new, |recovered| {
        sheet(vec![
            ("Identifier", recovered.recovery_id.clone()),
            ("Condition", recovered.condition.clone()),
            ("Point", recovered.point.to_string()),
            (
                "Order to running",
                optional_seconds(recovered.order_to_running_seconds),
            ),
            ("Monitor", or_nothing(&recovered.monitor)),
            ("Process", recovered.pid.to_string()),
        ])
    })
}
