//! Decides what a job does next and what an outcome makes of it.

use farshore_blocks::clock::WallTime;

use super::{
    Job, JobState, MAX_STEP_FAILURES, MAX_UNDO_FAILURES, Step, StepState, UnwoundTo, delay_after,
    plan::{AfterFailure, Return},
};

/// What is to be done about a job now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Run the step of this index, after [`Job::begin_step`] was written.
    Run(usize),
    /// Undo the step of this index.
    Undo(usize),
    /// Nothing before this time.
    Wait(WallTime),
    /// Write [`Job::begin_cancellation`].
    Cancel,
    /// Write [`Job::finish`].
    Finish,
    /// It has ended.
    Nothing,
}

/// What came of running a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepOutcome {
    /// It is done; what it found, for people.
    Done {
        /// What it found.
        detail: String,
    },
    /// It failed in a way that may pass, or its outcome is unknown.
    TryAgain {
        /// Why.
        reason: String,
        /// A command was answered, so the next attempt sends a new one.
        answered: bool,
    },
    /// It failed in a way that only a person can change.
    GiveUp {
        /// Why.
        reason: String,
    },
}

/// What came of undoing a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UndoOutcome {
    /// Nothing of it is left.
    Undone,
    /// It may still be there.
    Failed {
        /// Why.
        reason: String,
    },
}

/// A job that cannot be cancelled any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCancellable {
    /// It has ended.
    #[error("it has ended already")]
    Ended,
    /// Its point of no return was passed.
    #[error("`{step}` was begun, from which there is no way back")]
    PastNoReturn {
        /// The step's title.
        step: &'static str,
    },
}

/// A job that cannot be retried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("only a job that failed can be retried, and this one did not")]
pub struct NotRetryable;

impl Job {
    /// What is to be done about it now.
    #[must_use]
    pub fn next(&self, now: WallTime) -> Next {
        match &self.state {
            JobState::Succeeded | JobState::Failed { .. } | JobState::Cancelled { .. } => Next::Nothing,
            JobState::Unwinding { .. } => self.next_undo(now),
            JobState::Queued | JobState::Running => {
                if self.cancellation.is_some() && self.check_cancellable().is_ok() {
                    return Next::Cancel;
                }
                self.next_step(now)
            }
        }
    }

    fn next_step(&self, now: WallTime) -> Next {
        let found = self
            .steps
            .iter()
            .enumerate()
            .find(|(_, step)| step.state != StepState::Done);
        match found {
            None => Next::Finish,
            Some((_, step)) if step.not_before > now => Next::Wait(step.not_before),
            Some((index, _)) => Next::Run(index),
        }
    }

    fn next_undo(&self, now: WallTime) -> Next {
        let found = self
            .steps
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, step)| step.attempts > 0 && step.state != StepState::Undone)
            .find(|(_, step)| step.undo_failures < MAX_UNDO_FAILURES);
        match found {
            None => Next::Finish,
            Some((_, step)) if step.not_before > now => Next::Wait(step.not_before),
            Some((index, _)) => Next::Undo(index),
        }
    }

    /// Marks the step as begun. To be written before it runs.
    pub fn begin_step(&mut self, index: usize, now: WallTime) {
        self.state = JobState::Running;
        if let Some(step) = self.steps.get_mut(index) {
            step.state = StepState::Running;
            step.attempts = step.attempts.saturating_add(1);
            step.started_at.get_or_insert(now);
            step.ended_at = None;
        }
    }

    /// Takes in what came of a step.
    pub fn record_step(&mut self, index: usize, outcome: StepOutcome, now: WallTime) {
        let Some(step) = self.steps.get_mut(index) else {
            return;
        };
        match outcome {
            StepOutcome::Done { detail } => {
                step.state = StepState::Done;
                step.detail = detail;
                step.ended_at = Some(now);
            }
            StepOutcome::TryAgain { reason, answered } => {
                step.failures = step.failures.saturating_add(1);
                step.refusals = step.refusals.saturating_add(u32::from(answered));
                if step.failures >= MAX_STEP_FAILURES {
                    let reason = format!("failed {} times, last: {reason}", step.failures);
                    self.give_up(index, &reason, now);
                } else {
                    step.state = StepState::Waiting;
                    step.not_before = after(now, step.failures);
                    step.detail = reason;
                }
            }
            StepOutcome::GiveUp { reason } => self.give_up(index, &reason, now),
        }
    }

    fn give_up(&mut self, index: usize, reason: &str, now: WallTime) {
        let Some(step) = self.steps.get_mut(index) else {
            return;
        };
        step.state = StepState::Failed;
        step.detail = reason.to_owned();
        step.ended_at = Some(now);
        step.not_before = now;
        let reason = format!("{}: {reason}", step.kind.title());
        match self.kind.after_failure() {
            AfterFailure::Keep => {
                self.state = JobState::Failed { reason };
                self.ended_at = Some(now);
            }
            AfterFailure::Undo => {
                self.state = JobState::Unwinding {
                    end: UnwoundTo::Failed,
                    reason,
                };
            }
        }
    }

    /// Whether it may still be cancelled.
    ///
    /// # Errors
    /// When it has ended or its point of no return was begun.
    pub fn check_cancellable(&self) -> Result<(), NotCancellable> {
        if self.state.has_ended() {
            return Err(NotCancellable::Ended);
        }
        let passed = self
            .steps
            .iter()
            .find(|step| step.attempts > 0 && step.kind.way_back() == Return::Impossible);
        match passed {
            Some(step) => Err(NotCancellable::PastNoReturn {
                step: step.kind.title(),
            }),
            None => Ok(()),
        }
    }

    /// Asks for its end. Whoever works on it sees the wish in its record.
    ///
    /// # Errors
    /// When it has ended or its point of no return was begun.
    pub fn request_cancellation(&mut self, reason: &str) -> Result<(), NotCancellable> {
        self.check_cancellable()?;
        self.cancellation.get_or_insert_with(|| reason.to_owned());
        Ok(())
    }

    /// Turns a job whose cancellation was asked for to undoing what it did.
    pub fn begin_cancellation(&mut self, now: WallTime) {
        for step in self
            .steps
            .iter_mut()
            .filter(|step| step.state != StepState::Undone)
        {
            step.not_before = now;
        }
        self.state = JobState::Unwinding {
            end: UnwoundTo::Cancelled,
            reason: self.cancellation.clone().unwrap_or_default(),
        };
    }

    /// Takes in what came of undoing a step.
    pub fn record_undo(&mut self, index: usize, outcome: UndoOutcome, now: WallTime) {
        let Some(step) = self.steps.get_mut(index) else {
            return;
        };
        match outcome {
            UndoOutcome::Undone => {
                step.state = StepState::Undone;
                step.ended_at = Some(now);
            }
            UndoOutcome::Failed { reason } => {
                step.undo_failures = step.undo_failures.saturating_add(1);
                step.not_before = after(now, step.undo_failures);
                step.detail = format!("could not be undone: {reason}");
            }
        }
    }

    /// Ends a job whose steps are all done, or all undone as far as that was possible.
    pub fn finish(&mut self, now: WallTime) {
        let left: Vec<String> = self.steps.iter().filter_map(left_behind).collect();
        let with_leftovers = |reason: &str| match left.is_empty() {
            true => reason.to_owned(),
            false => format!("{reason}; {}", left.join("; ")),
        };
        self.state = match &self.state {
            JobState::Unwinding { end, reason } => match end {
                UnwoundTo::Failed => JobState::Failed {
                    reason: with_leftovers(reason),
                },
                UnwoundTo::Cancelled => JobState::Cancelled {
                    reason: with_leftovers(reason),
                },
            },
            JobState::Queued | JobState::Running => JobState::Succeeded,
            ended @ (JobState::Succeeded | JobState::Failed { .. } | JobState::Cancelled { .. }) => {
                ended.clone()
            }
        };
        self.ended_at.get_or_insert(now);
    }

    /// Puts a failed job back into its lane: at the step that failed, or at the first if its steps were undone.
    ///
    /// # Errors
    /// When it did not fail.
    pub fn retry(&mut self) -> Result<(), NotRetryable> {
        match &self.state {
            JobState::Failed { .. } => {}
            JobState::Queued
            | JobState::Running
            | JobState::Unwinding { .. }
            | JobState::Succeeded
            | JobState::Cancelled { .. } => return Err(NotRetryable),
        }
        let starts_over = self.kind.after_failure() == AfterFailure::Undo;
        for step in &mut self.steps {
            if starts_over || step.state != StepState::Done {
                let attempts = step.attempts;
                *step = Step::new(step.kind);
                step.attempts = attempts;
            }
        }
        self.state = JobState::Queued;
        self.cancellation = None;
        self.ended_at = None;
        self.round = self.round.saturating_add(1);
        Ok(())
    }
}

fn left_behind(step: &Step) -> Option<String> {
    (step.undo_failures >= MAX_UNDO_FAILURES && step.state != StepState::Undone)
        .then(|| format!("`{}` {}", step.kind.title(), step.detail))
}

fn after(now: WallTime, failures: u32) -> WallTime {
    let delay = u64::try_from(delay_after(failures).as_nanos()).unwrap_or(u64::MAX);
    WallTime(now.0.saturating_add(delay))
}
