//! How far work on bytes has come and how fast it is: a bar on a terminal, a line now and then elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::{format, progress::Progress};

/// Plain lines come at most this often; short work is told by its result alone.
const TELLING_INTERVAL: Duration = Duration::from_secs(5);

/// Tells how far one piece of work has come.
#[derive(Debug)]
pub(crate) struct BytesProgress {
    progress: Progress,
    /// What happens to the bytes, as a participle.
    done: &'static str,
    total: Option<u64>,
    began: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl BytesProgress {
    /// Work that begins now; its total may not be known.
    pub(crate) fn new(progress: &Progress, done: &'static str, total: Option<u64>) -> Self {
        let began = Instant::now();
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style("  [{bar:32}] {percent:>3} %  {msg}")),
            None => ProgressBar::new_spinner().with_style(style("  {spinner} {msg}")),
        };
        Self {
            bar: progress.add(bar),
            progress: progress.clone(),
            done,
            total,
            began,
            told: began,
        }
    }

    /// So many bytes are done in all; `note` says what is being done.
    pub(crate) fn show(&mut self, bytes: u64, note: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            bar.set_message(self.line(bytes, note, self.began.elapsed()));
        } else if self.told.elapsed() >= TELLING_INTERVAL {
            self.told = Instant::now();
            self.progress.line(&self.line(bytes, note, self.began.elapsed()));
        }
    }

    fn line(&self, bytes: u64, note: &str, elapsed: Duration) -> String {
        let of_total = self
            .total
            .map_or_else(String::new, |total| format!(" of {}", format::size(total)));
        let rate = format::size(per_second(bytes, elapsed));
        format!(
            "{note}: {} {}{of_total}, {rate}/s",
            format::size(bytes),
            self.done
        )
    }
}

impl Drop for BytesProgress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    let rate = u128::from(bytes).saturating_mul(1000) / elapsed.as_millis().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_bytes_by_time_and_never_a_division_by_zero() {
        assert_eq!(per_second(1000, Duration::from_secs(4)), 250);
        assert_eq!(per_second(7, Duration::ZERO), 7000);
    }

    #[test]
    fn a_line_says_how_much_of_what_and_how_fast() {
        let progress = BytesProgress::new(&Progress::for_people(), "written", Some(4 << 20));
        assert_eq!(
            progress.line(2 << 20, "volume `root`", Duration::from_secs(2)),
            "volume `root`: 2.0 MiB written of 4.0 MiB, 1.0 MiB/s"
        );
    }
}
