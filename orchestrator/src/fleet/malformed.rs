//! Why a replicator's message is refused.

use farshore_domain::declaration::TextRefused;

/// Why a replicator's message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A stream began with something else, with nothing, or with nothing in time.
    #[error("a stream begins with `register`, within the time given")]
    NotRegistered,
    /// A stream says who it is once.
    #[error("`register` was sent already; attach again to register anew")]
    RegisteredTwice,
    /// A message of a kind that is not known.
    #[error("a message without a known body")]
    NoBody,
    /// A result of a kind that is not known.
    #[error("a result without a known outcome")]
    NoOutcome,
    /// The result of another kind of command.
    #[error("a result that belongs to another kind of command")]
    OtherAnswer,
    /// A field that must be there is not.
    #[error("`{field}` is missing")]
    Missing {
        /// Which.
        field: &'static str,
    },
    /// An identity or a digest of the wrong length.
    #[error("`{field}` has {found} bytes instead of {expected}")]
    WrongLength {
        /// Which.
        field: &'static str,
        /// Its length.
        found: usize,
        /// What would be accepted.
        expected: usize,
    },
    /// A name that is none.
    #[error("`{field}`: {refused}")]
    BadName {
        /// Which.
        field: &'static str,
        /// Why.
        #[source]
        refused: Box<TextRefused>,
    },
    /// A text or a list that is too long.
    #[error("`{field}` is too long: {found}, at most {most}")]
    TooLong {
        /// Which.
        field: &'static str,
        /// Its length.
        found: usize,
        /// What would be accepted.
        most: usize,
    },
    /// A number, a time or a choice that cannot be.
    #[error("`{field}` is not a possible value")]
    OutOfRange {
        /// Which.
        field: &'static str,
    },
    /// The same chain or name twice in one list.
    #[error("`{field}` has an entry twice")]
    Repeated {
        /// Which.
        field: &'static str,
    },
}
