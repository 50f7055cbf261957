//! How long work is told to people: bars on a terminal, plain lines elsewhere.

use std::{
    collections::HashMap,
    fmt::Write,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::{format, talk};
use crate::view::{JobView, StepView, VmView};

/// Plain lines tell of a sync at every tenth of it.
const TELLING_PERCENT: u64 = 10;

/// Which changes of a step are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    EveryChange,
    /// Only how it ended.
    Outcomes,
}

impl Detail {
    fn tells(self, step: &StepView) -> bool {
        match self {
            Self::EveryChange => step.state != "Waiting",
            Self::Outcomes => step.state != "Waiting" && step.state != "Running",
        }
    }
}

/// Where progress is told.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// Bars that redraw themselves, if stderr is a terminal.
    bars: Option<MultiProgress>,
    /// Where lines that stay go.
    tell: fn(&str),
    detail: Detail,
    /// Lines of followers begin with the time since then.
    stamp: Option<Instant>,
}

impl Progress {
    /// For someone at a terminal or a log: everything, on stderr.
    pub(crate) fn for_people() -> Self {
        Self {
            detail: Detail::EveryChange,
            ..Self::telling_outcomes(talk)
        }
    }

    /// For a story: only what came out, on `tell`.
    pub(crate) fn telling_outcomes(tell: fn(&str)) -> Self {
        let bars = io::stderr().is_terminal().then(MultiProgress::new);
        Self {
            bars,
            tell,
            detail: Detail::Outcomes,
            stamp: None,
        }
    }

    /// Followers' lines begin with the time since `begun`.
    pub(crate) fn with_stamp(mut self, begun: Instant) -> Self {
        self.stamp = Some(begun);
        self
    }

    /// A bar among the others, if bars are shown.
    pub(crate) fn add(&self, bar: ProgressBar) -> Option<ProgressBar> {
        self.bars.as_ref().map(|bars| bars.add(bar))
    }

    /// A line that stays, above the bars.
    pub(crate) fn line(&self, text: &str) {
        let text = match self.stamp {
            Some(begun) => format!("  {:>5.1} s  {text}", begun.elapsed().as_secs_f64()),
            None => text.to_owned(),
        };
        match &self.bars {
            Some(bars) => bars.suspend(|| (self.tell)(&text)),
            None => (self.tell)(&text),
        }
    }
}

/// Tells a job's steps as they change.
#[derive(Debug)]
pub(crate) struct StepLines {
    progress: Progress,
    told: HashMap<String, String>,
}

impl StepLines {
    /// Nothing was told yet.
    pub(crate) fn new(progress: Progress) -> Self {
        Self {
            progress,
            told: HashMap::new(),
        }
    }

    /// Tells what changed.
    pub(crate) fn show(&mut self, job: &JobView) {
        let detail = self.progress.detail;
        for step in job.steps.iter().filter(|step| detail.tells(step)) {
            let line = step_line(step);
            if self.told.get(&step.name) != Some(&line) {
                self.progress.line(&format!("{}: {line}", job.subject));
                self.told.insert(step.name.clone(), line);
            }
        }
    }
}

fn step_line(step: &StepView) -> String {
    let mut line = format!("{} [{}", step.name, step.state.to_lowercase());
    if step.attempts > 1 {
        // Writing to a string cannot fail.
        let _ = write!(line, ", attempt {}", step.attempts);
    }
    line.push(']');
    if !step.detail.is_empty() {
        line.push_str(": ");
        line.push_str(&step.detail);
    }
    line
}

/// Tells a VM's way to protection: its states, and how far its initial sync is.
#[derive(Debug)]
pub(crate) struct SyncProgress {
    progress: Progress,
    name: String,
    told_state: String,
    told_percent: Option<u64>,
    bar: Option<ProgressBar>,
}

impl SyncProgress {
    /// Nothing was told yet.
    pub(crate) fn new(progress: Progress, name: &str) -> Self {
        Self {
            progress,
            name: name.to_owned(),
            told_state: String::new(),
            told_percent: None,
            bar: None,
        }
    }

    /// Tells what changed.
    pub(crate) fn show(&mut self, vm: &VmView) {
        let detail = if vm.source_detail.is_empty() {
            String::new()
        } else {
            format!(": {}", vm.source_detail)
        };
        let state = format!("{}{detail}", vm.state);
        if state != self.told_state {
            self.progress.line(&format!("{}: {state}", self.name));
            self.told_state = state;
        }
        if matches!(vm.state.as_str(), "InitialSync" | "Resynchronizing") && vm.sync_total_bytes > 0 {
            self.show_sync(vm);
        } else {
            self.end_bar();
        }
    }

    fn show_sync(&mut self, vm: &VmView) {
        if let Some(bars) = &self.progress.bars {
            let bar = self.bar.get_or_insert_with(|| {
                let bar = ProgressBar::new(vm.sync_total_bytes).with_style(style());
                bars.add(bar.with_prefix(self.name.clone()))
            });
            bar.set_length(vm.sync_total_bytes);
            bar.set_position(vm.sync_done_bytes.min(vm.sync_total_bytes));
            bar.set_message(sync_line(vm));
            return;
        }
        let percent = percent(vm);
        if self
            .told_percent
            .is_none_or(|told| percent >= told.saturating_add(TELLING_PERCENT))
        {
            self.told_percent = Some(percent);
            self.progress.line(&format!(
                "{}: synchronized {percent} %, {}",
                self.name,
                sync_line(vm)
            ));
        }
    }

    fn end_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for SyncProgress {
    fn drop(&mut self) {
        self.end_bar();
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("  {prefix:<10} [{bar:32}] {percent:>3} %  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// How much of the sync is done, in percent.
fn percent(vm: &VmView) -> u64 {
    let done = u128::from(vm.sync_done_bytes.min(vm.sync_total_bytes)) * 100;
    u64::try_from(done.checked_div(u128::from(vm.sync_total_bytes)).unwrap_or(0)).unwrap_or(100)
}

/// `120 MiB of 1.2 GiB, 80 MiB/s, 13.0 s left`
fn sync_line(vm: &VmView) -> String {
    let mut line = vm.sync_progress().unwrap_or_default();
    let rate = Duration::try_from_secs_f64(vm.sync_bytes_per_second).map_or(0, |rate| rate.as_secs());
    let left = vm.sync_total_bytes.saturating_sub(vm.sync_done_bytes);
    if let Some(whole_seconds) = left.checked_div(rate).filter(|seconds| *seconds > 0) {
        let seconds_left = format::seconds(Duration::from_secs(whole_seconds).as_secs_f64());
        let _ = write!(line, ", {}/s, {seconds_left} left", format::size(rate));
    }
    line
}
