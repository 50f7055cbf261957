//! Decides how long a failed step waits before it is begun again, and when it is given up.

use std::time::Duration;

/// How often a step may fail before its job does.
pub const MAX_STEP_FAILURES: u32 = 6;

/// How often undoing a step may fail before what is left behind is recorded and the job ends.
pub const MAX_UNDO_FAILURES: u32 = 4;

const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(15);

/// The wait after so many failures in a row: it doubles, up to a limit.
#[must_use]
pub fn delay_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST_DELAY.saturating_mul(1 << doublings).min(LONGEST_DELAY)
}
