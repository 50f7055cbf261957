//! The teller of the story: chapters, and lines with the time since it began.

use tokio::time::Instant;

use crate::output::{self, progress::Progress};

/// Tells on stdout, or on stderr where stdout belongs to the JSON answer.
#[derive(Debug, Clone)]
pub(super) struct Narrator {
    begun: Instant,
    progress: Progress,
}

impl Narrator {
    /// Begins to count the time.
    pub(super) fn new(json: bool) -> Self {
        let tell: fn(&str) = if json { output::talk } else { tell_on_stdout };
        Self {
            begun: Instant::now(),
            progress: Progress::telling_outcomes(tell),
        }
    }

    /// A new part of the story.
    pub(super) fn chapter(&self, title: &str) {
        self.progress.line(&format!("\n{title}"));
    }

    /// Something that happened.
    pub(super) fn tell(&self, text: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        self.progress.line(&format!("  {seconds:>5.1} s  {text}"));
    }

    /// Something without a time.
    pub(super) fn plain(&self, text: &str) {
        self.progress.line(text);
    }

    /// How long the story has been told.
    pub(super) fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// For those who follow jobs and syncs; their lines get the time too.
    pub(super) fn progress(&self) -> Progress {
        let begun = self.begun;
        self.progress.clone().with_stamp(begun)
    }
}

fn tell_on_stdout(text: &str) {
    // A reader that left ends the talk, not the story: what was made must be removed.
    let _ = output::answer(text);
}
