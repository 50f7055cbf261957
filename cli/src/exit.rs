//! How a verb ends: every error of the command line, and the exit status that scripts rely on.
//!
//! | status | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | failed |
//! | 2 | wrong usage, or invalid YAML |
//! | 3 | refused in this state |
//! | 4 | unreachable |
//! | 5 | timed out |

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use humantime::format_duration;
use tonic::{Code, Status};

/// The metadata key in which the orchestrator gives a refusal's stable reason.
const REASON_KEY: &str = "farshore-reason";

/// Why a verb did not get done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// Something declared is not valid.
    #[error("{0}")]
    InvalidManifest(String),
    /// The orchestrator does not do this now.
    #[error("refused: {message}{}", in_parentheses(reason))]
    Refused {
        /// Why, and what would be accepted.
        message: String,
        /// The stable reason code.
        reason: String,
    },
    /// Nobody answers.
    #[error(
        "the orchestrator at {server} cannot be reached: {why}; is it running, and is --server (or FARSHORE_SERVER) right?"
    )]
    Unreachable {
        /// Where it was looked for.
        server: String,
        /// What happened.
        why: String,
    },
    /// It took longer than was allowed.
    #[error("{what} did not end within {}; what was begun goes on, and --timeout allows more", format_duration(*limit))]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// Someone on this machine who had to act did not within the limit.
    #[error("{message}{}", in_parentheses(reason))]
    NoAnswer {
        /// Who, and what to do.
        message: String,
        /// The stable reason code.
        reason: String,
    },
    /// What was asked for is not there.
    #[error("{message}{}", in_parentheses(reason))]
    NotFound {
        /// What is missing.
        message: String,
        /// The stable reason code.
        reason: String,
    },
    /// The orchestrator failed at it.
    #[error("{message}{}", in_parentheses(reason))]
    Failed {
        /// How.
        message: String,
        /// The stable reason code, if there is one.
        reason: String,
    },
    /// A file of this machine could not be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The answer could not be written out.
    #[error("cannot write the answer")]
    Output(#[source] io::Error),
    /// A part of Farshore that runs in this process ended with an error.
    #[error(transparent)]
    Part(#[from] anyhow::Error),
}

impl CliError {
    /// What a gRPC status means for the person at the terminal.
    pub(crate) fn from_status(server: &str, what: &str, limit: Duration, status: &Status) -> Self {
        let reason = reason(status);
        let message = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument => Self::InvalidManifest(with_reason(message, &reason)),
            Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => {
                Self::Refused { message, reason }
            }
            Code::NotFound => Self::NotFound { message, reason },
            Code::Unavailable => Self::Unreachable {
                server: server.to_owned(),
                why: message,
            },
            Code::Unknown | Code::Cancelled if std::error::Error::source(status).is_some() => {
                Self::Unreachable {
                    server: server.to_owned(),
                    why: format!("the connection was lost ({message})"),
                }
            }
            Code::DeadlineExceeded => Self::TimedOut {
                what: what.to_owned(),
                limit,
            },
            Code::Unimplemented => Self::Failed {
                message: format!(
                    "the orchestrator at {server} does not know this request; is it of this version?"
                ),
                reason,
            },
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::OutOfRange
            | Code::Internal
            | Code::DataLoss
            | Code::Unauthenticated => Self::Failed {
                message: format!("{what} failed: {message}"),
                reason,
            },
        }
    }

    /// The exit status that scripts see.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Failed { .. }
            | Self::NotFound { .. }
            | Self::Output(_)
            | Self::Part(_)
            | Self::File { .. } => 1,
            Self::Usage(_) | Self::InvalidManifest(_) => 2,
            Self::Refused { .. } => 3,
            Self::Unreachable { .. } => 4,
            Self::TimedOut { .. } | Self::NoAnswer { .. } => 5,
        }
    }

    /// [`Self::exit_status`] as a process gives it back.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit_status())
    }

    /// True if nobody reads the answer any more (`farshore get vms | head -1`): no reason to complain.
    pub(crate) fn reader_left(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The error and its causes in one line.
    pub(crate) fn describe(&self) -> String {
        if let Self::Part(error) = self {
            return format!("{error:#}");
        }
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

fn reason(status: &Status) -> String {
    let value = status.metadata().get(REASON_KEY);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

fn with_reason(message: String, reason: &str) -> String {
    format!("{message}{}", in_parentheses(reason))
}

fn in_parentheses(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends_with(status: &Status) -> u8 {
        CliError::from_status("http://h", "the call", Duration::from_secs(1), status).exit_status()
    }

    #[test]
    fn every_status_has_the_exit_code_that_is_promised() {
        for (code, expected) in [
            (Code::InvalidArgument, 2),
            (Code::FailedPrecondition, 3),
            (Code::AlreadyExists, 3),
            (Code::Aborted, 3),
            (Code::Unavailable, 4),
            (Code::DeadlineExceeded, 5),
            (Code::NotFound, 1),
            (Code::Internal, 1),
            (Code::Unknown, 1),
            (Code::Cancelled, 1),
            (Code::Unimplemented, 1),
            (Code::PermissionDenied, 1),
            (Code::ResourceExhausted, 1),
        ] {
            assert_eq!(ends_with(&Status::new(code, "why")), expected, "{code:?}");
        }
    }

    #[test]
    fn a_lost_connection_is_unreachable_and_not_a_failure_of_the_server() {
        let lost = Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        assert_eq!(lost.code(), Code::Unknown);
        assert_eq!(ends_with(&lost), 4);
    }

    #[test]
    fn a_refusal_shows_its_reason_code() {
        let mut status = Status::failed_precondition("vm `a` is Pending; Protected would be accepted");
        status
            .metadata_mut()
            .insert(REASON_KEY, "wrong-state".parse().unwrap());
        let error = CliError::from_status("http://h", "the call", Duration::from_secs(1), &status);
        assert_eq!(
            error.describe(),
            "refused: vm `a` is Pending; Protected would be accepted (wrong-state)"
        );
    }

    #[test]
    fn causes_follow_the_error_in_one_line() {
        let error = CliError::File {
            action: "read",
            path: PathBuf::from("/x"),
            source: io::Error::from(io::ErrorKind::NotFound),
        };
        assert_eq!(error.describe(), "cannot read /x: entity not found");
    }
}
