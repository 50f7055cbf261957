//! How long work is told to people: bars on a terminal, plain lines elsewhere.

use std::{
    collections::HashMap,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::{format, talk};
use crate::view::{JobView, StepView, VmView};

/// Plain lines tell of a sync at every tenth of it.
const TELLING_PERCENT: u64 = 10;

/// Where progress is told.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    /// A terminal: bars that redraw themselves, on stderr.
    Terminal(MultiProgress),
    /// A log: lines that stay.
    Lines,
}

impl Progress {
    /// As stderr is.
    pub(crate) fn for_people() -> Self {
        if io::stderr().is_terminal() {
            Self::Terminal(MultiProgress::new())
        } else {
            Self::Lines
        }
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        match self {
            // It prints above the bars; if the terminal is gone, nobody reads it.
            Self::Terminal(bars) => drop(bars.println(text)),
            Self::Lines => talk(text),
        }
    }
}

/// Tells a job's steps as they change.
#[derive(Debug)]
pub(crate) struct StepLines {
    progress: Progress,
    told: HashMap<String, StepView>,
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
        for step in &job.steps {
            if step.state != "Waiting" && self.told.get(&step.name) != Some(step) {
                if self
                    .told
                    .get(&step.name)
                    .is_none_or(|told| step_line(told) != step_line(step))
                {
                    self.progress
                        .line(&format!("{}: {}", job.subject, step_line(step)));
                }
                self.told.insert(step.name.clone(), step.clone());
            }
        }
    }
}

fn step_line(step: &StepView) -> String {
    let attempt = if step.attempts > 1 {
        format!(", attempt {}", step.attempts)
    } else {
        String::new()
    };
    let detail = if step.detail.is_empty() {
        String::new()
    } else {
        format!(": {}", step.detail)
    };
    format!("{} [{}{attempt}]{detail}", step.name, step.state.to_lowercase())
}

/// Tells a VM's way to protection: its states, and how far its initial sync is.
#[derive(Debug)]
pub(crate) struct SyncProgress {
    progress: Progress,
    name: String,
    told_state: String,
    told_percent: u64,
    bar: Option<ProgressBar>,
}

impl SyncProgress {
    /// Nothing was told yet.
    pub(crate) fn new(progress: Progress, name: &str) -> Self {
        Self {
            progress,
            name: name.to_owned(),
            told_state: String::new(),
            told_percent: 0,
            bar: None,
        }
    }

    /// Tells what changed.
    pub(crate) fn show(&mut self, vm: &VmView) {
        let syncing =
            matches!(vm.state.as_str(), "InitialSync" | "Resynchronizing") && vm.sync_total_bytes > 0;
        if syncing {
            self.show_sync(vm);
        } else if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
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
    }

    fn show_sync(&mut self, vm: &VmView) {
        let told = sync_line(vm);
        match &self.progress {
            Progress::Terminal(bars) => {
                let bar = self.bar.get_or_insert_with(|| {
                    bars.add(
                        ProgressBar::new(vm.sync_total_bytes)
                            .with_style(style())
                            .with_prefix(self.name.clone()),
                    )
                });
                bar.set_length(vm.sync_total_bytes);
                bar.set_position(vm.sync_done_bytes.min(vm.sync_total_bytes));
                bar.set_message(told);
            }
            Progress::Lines => {
                let percent = percent(vm);
                if percent >= self.told_percent.saturating_add(TELLING_PERCENT) || self.told_percent == 0 {
                    self.told_percent = percent.max(1);
                    talk(&format!("{}: synchronized {percent} %, {told}", self.name));
                }
            }
        }
    }
}

impl Drop for SyncProgress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix} [{bar:32}] {percent:>3} %  {msg}")
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
    if let Some(whole_seconds) = left.checked_div(rate) {
        let seconds_left = Duration::from_secs(whole_seconds).as_secs_f64();
        line.push_str(&format!(
            ", {}/s, {} left",
            format::size(rate),
            format::seconds(seconds_left)
        ));
    }
    line
}
