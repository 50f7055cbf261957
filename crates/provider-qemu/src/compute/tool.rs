//! Runs one program of the host to its end, within a limit, and keeps its own words when it fails.

use std::{io, path::Path, process::Stdio, time::Duration};

use farshore_provider::{ComputeError, RecoveryId};
use tokio::{process::Command, time::timeout};

/// Everything that is run here answers within milliseconds; a loaded host gets a thousand times that.
pub(crate) const TOOL_LIMIT: Duration = Duration::from_secs(15);

/// How much of a tool's words an error carries: enough for any real message, too little to fill a log.
const WORDS_LIMIT: usize = 4096;

/// Why a tool gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    /// It could not be run at all.
    #[error("`{program}` cannot be run")]
    NotRun {
        program: String,
        #[source]
        source: io::Error,
    },
    /// It ran and said no.
    #[error("`{program}` ended with {status}: {words}")]
    Refused {
        program: String,
        status: String,
        words: String,
    },
    /// It did not end in time.
    #[error("`{program}` did not end within {} s", limit.as_secs())]
    TooSlow { program: String, limit: Duration },
}

impl ToolError {
    /// This, as it happened while `action` was done for `id`.
    pub(crate) fn during(self, id: &RecoveryId, action: impl Into<String>) -> ComputeError {
        let (id, action) = (id.clone(), action.into());
        match self {
            Self::NotRun { program, source } => ComputeError::Io {
                id,
                action: format!("{action}: running `{program}`"),
                source,
            },
            Self::Refused { .. } | Self::TooSlow { .. } => ComputeError::Tool {
                id,
                action,
                output: self.to_string(),
            },
        }
    }
}

/// Runs `program` with `arguments` and gives what it printed. A future that is dropped kills the program.
pub(crate) async fn run<A: AsRef<std::ffi::OsStr>>(
    program: &Path,
    arguments: &[A],
    limit: Duration,
) -> Result<Vec<u8>, ToolError> {
    let name = program.display().to_string();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env("LC_ALL", "C")
        // A signal to our group (a terminal's interrupt, say) is for us, not for what we start.
        .process_group(0)
        .kill_on_drop(true);
    let not_run = |source| ToolError::NotRun {
        program: name.clone(),
        source,
    };
    let running = command.spawn().map_err(not_run)?;
    let output = match timeout(limit, running.wait_with_output()).await {
        Ok(output) => output.map_err(not_run)?,
        Err(_elapsed) => return Err(ToolError::TooSlow { program: name, limit }),
    };
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(ToolError::Refused {
        program: name,
        status: output.status.to_string(),
        words: words(&output.stderr),
    })
}

fn words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let text = text.trim();
    if text.is_empty() {
        return "it said nothing".to_owned();
    }
    text.chars().take(WORDS_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_carries_the_tools_own_words() {
        let refused = run(
            Path::new("/bin/sh"),
            &["-c", "echo no such luck >&2; exit 3"],
            TOOL_LIMIT,
        )
        .await
        .unwrap_err();
        assert!(
            refused.to_string().contains("exit status: 3: no such luck"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn a_tool_that_hangs_is_given_up() {
        let slow = run(Path::new("/bin/sleep"), &["600"], Duration::from_millis(50))
            .await
            .unwrap_err();
        assert!(matches!(slow, ToolError::TooSlow { .. }), "{slow}");
    }

    #[tokio::test]
    async fn a_missing_tool_is_named() {
        let missing = run(Path::new("/nonexistent/tool"), &["x"], TOOL_LIMIT)
            .await
            .unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/tool"), "{missing}");
    }
}
