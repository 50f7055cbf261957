//! The tables of the cycle benchmark.

use std::path::Path;

use crate::{CYCLE, Measured, figures::Table, references::LONG_COMMAND_BYTES};

/// Whole cycles, and where their time goes.
pub(crate) fn cycle_table(directory: &Path, measured: &[Measured]) {
    let title = "cycle: two disks (qcow2, raw) of a guest with little to send; from looking for changes to the sealed point and back";
    let head = [
        "cache",
        "cycles",
        "failed",
        "changed KiB",
        "p50 ms",
        "p99 ms",
        "max ms",
        "target p50",
        "",
    ];
    let mut table = Table::new(title, &head);
    for mode in measured {
        table.row(&[
            mode.shown,
            &mode.cycles.count().to_string(),
            &format!("{:.0}", mode.phases.failed),
            &format!("{:.0}", mode.changed_kib.median()),
            &format!("{:.1}", mode.cycles.median()),
            &format!("{:.1}", mode.cycles.percentile(99)),
            &format!("{:.1}", mode.cycles.percentile(100)),
            &format!("< {:.0}", CYCLE.0),
            CYCLE.verdict(mode.cycles.median()),
        ]);
    }
    let notes: Vec<String> = measured.iter().flat_map(notes).collect();
    table.print(directory, &notes.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Where the time goes, and what it cannot be less than on this machine now.
fn notes(mode: &Measured) -> [String; 3] {
    let tapped = &mode.tapped;
    [
        format!(
            "{}: mean {:.1} ms to read, send and have it durable, {:.1} ms to seal; a replicator had at most {} MiB.",
            mode.shown, mode.phases.send, mode.phases.seal, mode.peak_mib,
        ),
        format!(
            "  {:.0} monitor commands of {:.0} bytes take {:.1} ms (medians, with the tap); most of it: {}.",
            tapped.commands.median(),
            tapped.bytes.median(),
            tapped.together.median(),
            tapped.costliest,
        ),
        format!(
            "  Beside it: a monitor command that does nothing {:.2} ms, with {LONG_COMMAND_BYTES} bytes more {:.2} ms; \
             4 KiB written and synced {:.2} ms (max {:.1}).",
            tapped.empty.short.median(),
            tapped.empty.long.median(),
            mode.small_sync.median(),
            mode.small_sync.percentile(100),
        ),
    ]
}

/// Holds of the guest's writes.
pub(crate) fn hold_table(directory: &Path, measured: &[Measured]) {
    let title = "hold: how long a cycle holds the guest's writes";
    let head = [
        "what",
        "cache",
        "cycles",
        "p50 ms",
        "p99 ms",
        "max ms",
        "target p50",
        "",
    ];
    let mut table = Table::new(title, &head);
    for mode in measured {
        let target = mode
            .hold_target
            .map_or(String::new(), |target| format!("< {:.0}", target.0));
        for (what, samples) in [
            ("the instant, by the replicator", &mode.holds),
            ("longest monitor command, by the tap", &mode.tapped.longest),
        ] {
            let verdict = mode
                .hold_target
                .map_or("", |target| target.verdict(samples.median()));
            table.row(&[
                what,
                mode.shown,
                &samples.count().to_string(),
                &format!("{:.1}", samples.median()),
                &format!("{:.1}", samples.percentile(99)),
                &format!("{:.1}", samples.percentile(100)),
                &target,
                verdict,
            ]);
        }
    }
    let notes: Vec<String> = measured
        .iter()
        .map(|mode| {
            format!(
                "{}: the longest command of all was {}.",
                mode.shown, mode.tapped.slowest
            )
        })
        .collect();
    table.print(directory, &notes.iter().map(String::as_str).collect::<Vec<_>>());
}
