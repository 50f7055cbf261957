//! Reads the transition table out of a state machine's own documentation, so that a test can hold one
//! against the other.

/// What the table says of one state and one event.
pub(crate) struct Cell {
    pub(crate) state: String,
    pub(crate) event: String,
    pub(crate) next: Next,
}

/// A cell's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// `-`
    Refused,
    /// `=`
    Same,
    /// The name of a state.
    State(String),
}

/// All cells of the one table in the source's module documentation.
pub(crate) fn read(source: &str) -> Vec<Cell> {
    let mut rows = source
        .lines()
        .filter_map(|line| line.strip_prefix("//! |"))
        .filter(|line| !line.starts_with("---"))
        .map(|line| {
            line.trim_end_matches('|')
                .split('|')
                .map(|cell| cell.trim().to_owned())
                .collect::<Vec<_>>()
        });
    let header = rows.next().expect("a header");
    rows.flat_map(|row| {
        assert_eq!(row.len(), header.len(), "{row:?}");
        let state = row[0].clone();
        header
            .iter()
            .zip(row)
            .skip(1)
            .map(move |(event, cell)| Cell {
                state: state.clone(),
                event: event.clone(),
                next: match cell.as_str() {
                    "-" => Next::Refused,
                    "=" => Next::Same,
                    other => Next::State(other.to_owned()),
                },
            })
            .collect::<Vec<_>>()
    })
    .collect()
}

/// Runs every cell and checks that the table names exactly these states and events.
pub(crate) fn check<State: Clone + PartialEq + std::fmt::Debug, Event: Clone>(
    source: &str,
    states: &[(&str, State)],
    events: &[(&str, Event)],
    name_of: impl Fn(&State) -> String,
    step: impl Fn(&State, Event) -> Option<State>,
) {
    let cells = read(source);
    assert_eq!(
        cells.len(),
        states.len() * events.len(),
        "the table is not every state x event"
    );
    for cell in cells {
        let (_, state) = states
            .iter()
            .find(|(name, _)| *name == cell.state)
            .unwrap_or_else(|| panic!("unknown state {}", cell.state));
        let (_, event) = events
            .iter()
            .find(|(name, _)| *name == cell.event)
            .unwrap_or_else(|| panic!("unknown event {}", cell.event));
        let next = step(state, event.clone());
        let place = format!("{} x {}: {next:?}", cell.state, cell.event);
        match cell.next {
            Next::Refused => assert!(next.is_none(), "{place}"),
            Next::Same => assert_eq!(next.as_ref(), Some(state), "{place}"),
            Next::State(expected) => assert_eq!(next.as_ref().map(&name_of), Some(expected), "{place}"),
        }
    }
}
