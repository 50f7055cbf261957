//! The order of a source's messages, as the target enforces it.
//!
//! | phase | hello | begin | changes | seal | abandon | still valid |
//! |---|---|---|---|---|---|---|
//! | AwaitingHello | Idle | refused | refused | refused | refused | refused |
//! | Idle | refused | InCycle | refused | refused | Idle | Idle |
//! | InCycle | refused | InCycle | InCycle | Idle | Idle | refused |
//!
//! Abandoning is admitted while idle because a source that lost its memory abandons the cycle that it was
//! welcomed with. A cycle may be begun again in the middle, with volumes that have grown. In a cycle, all of these must
//! name that very cycle.

/// Where a stream stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has been said yet.
    AwaitingHello,
    /// Welcomed, no cycle begun or resumed in this stream.
    Idle,
    /// In this cycle.
    InCycle(u64),
}

/// What came, as far as order is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// A hello.
    Hello,
    /// The begin, or the resumption, of a cycle.
    Begin(u64),
    /// Changes of a cycle.
    Changes(u64),
    /// The seal of a cycle.
    Seal(u64),
    /// The end of a cycle without a seal.
    Abandon(u64),
    /// The news that nothing has changed.
    StillValid,
}

/// A message that may not come now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Not in this phase.
    #[error("{received:?} is refused while the stream is {phase:?}")]
    OutOfOrder {
        /// Where the stream stands.
        phase: Phase,
        /// What came.
        received: Received,
    },
    /// It names another cycle than the open one.
    #[error("cycle {named:#018x} is named where {open:#018x} is open")]
    WrongCycle {
        /// The open one.
        open: u64,
        /// The named one.
        named: u64,
    },
}

/// The phase after `received`.
///
/// # Errors
/// When it may not come in this phase, or names another cycle than the open one.
pub fn admit(phase: Phase, received: Received) -> Result<Phase, Violation> {
    let same_cycle = |named: u64, open: u64, next: Phase| {
        if named == open {
            Ok(next)
        } else {
            Err(Violation::WrongCycle { open, named })
        }
    };
    match (phase, received) {
        (Phase::AwaitingHello, Received::Hello)
        | (Phase::Idle, Received::Abandon(_) | Received::StillValid) => Ok(Phase::Idle),
        (Phase::Idle, Received::Begin(cycle)) => Ok(Phase::InCycle(cycle)),
        (Phase::InCycle(open), Received::Begin(named) | Received::Changes(named)) => {
            same_cycle(named, open, phase)
        }
        (Phase::InCycle(open), Received::Seal(named) | Received::Abandon(named)) => {
            same_cycle(named, open, Phase::Idle)
        }
        (
            Phase::AwaitingHello,
            Received::Begin(_)
            | Received::Changes(_)
            | Received::Seal(_)
            | Received::Abandon(_)
            | Received::StillValid,
        )
        | (Phase::Idle, Received::Hello | Received::Changes(_) | Received::Seal(_))
        | (Phase::InCycle(_), Received::Hello | Received::StillValid) => {
            Err(Violation::OutOfOrder { phase, received })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHASES: [(&str, Phase); 3] = [
        ("AwaitingHello", Phase::AwaitingHello),
        ("Idle", Phase::Idle),
        ("InCycle", Phase::InCycle(7)),
    ];
    const RECEIVED: [(&str, Received); 6] = [
        ("hello", Received::Hello),
        ("begin", Received::Begin(7)),
        ("changes", Received::Changes(7)),
        ("seal", Received::Seal(7)),
        ("abandon", Received::Abandon(7)),
        ("still valid", Received::StillValid),
    ];

    fn table() -> Vec<Vec<String>> {
        include_str!("order.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! |"))
            .map(|line| {
                line.trim_end_matches('|')
                    .split('|')
                    .map(|cell| cell.trim().to_owned())
                    .collect()
            })
            .collect()
    }

    #[test]
    fn the_documented_table_is_what_the_code_does() {
        let table = table();
        for (row, (name, phase)) in table.iter().skip(2).zip(PHASES) {
            assert_eq!(row[0], name);
            for (column, (heading, received)) in RECEIVED.into_iter().enumerate() {
                assert_eq!(table[0][column + 1], heading);
                let shown = match admit(phase, received) {
                    Ok(Phase::AwaitingHello) => "AwaitingHello",
                    Ok(Phase::Idle) => "Idle",
                    Ok(Phase::InCycle(_)) => "InCycle",
                    Err(_) => "refused",
                };
                assert_eq!(row[column + 1], shown, "{name} x {heading}");
            }
        }
        assert_eq!(table.len(), PHASES.len() + 2);
    }

    #[test]
    fn another_cycle_than_the_open_one_is_refused() {
        for received in [
            Received::Begin(8),
            Received::Changes(8),
            Received::Seal(8),
            Received::Abandon(8),
        ] {
            let refused = admit(Phase::InCycle(7), received).unwrap_err();
            assert_eq!(refused, Violation::WrongCycle { open: 7, named: 8 });
        }
    }
}
