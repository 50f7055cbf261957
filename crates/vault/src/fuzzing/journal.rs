//! Records of the journal, their bodies, and a journal with its mirror.

use std::path::Path;

use farshore_blocks::Incarnation;

use super::field;
use crate::{
    edit::Edit,
    format::{
        fields::Fields,
        record::{RecordPlace, decode_record, encode_record},
    },
    journal::{Copies, Presence, Replayed, replay},
    layout::VaultLayout,
    state::VaultState,
};

/// A record with its envelope.
pub fn journal_record(bytes: &[u8]) {
    let place = place_in(bytes);
    let Ok(record) = decode_record(bytes, place) else {
        return;
    };
    let written = encode_record(place, record.kind, record.in_batch, record.body);
    assert!(
        bytes.get(..record.length) == Some(written.as_slice()),
        "more than one form of a record is accepted"
    );
    take(record.kind, record.body);
}

/// The body of a record, behind one byte that says its kind.
pub fn edit(bytes: &[u8]) {
    if let Some((kind, body)) = bytes.split_first() {
        take(u32::from(*kind), body);
    }
}

fn take(kind: u32, body: &[u8]) {
    let Ok(edit) = Edit::decode(kind, body) else {
        return;
    };
    assert!(edit.kind() == kind, "a record says what it is");
    assert!(
        edit.encode() == body,
        "more than one form of a record's body is accepted"
    );
    let mut state = VaultState::default();
    if let Edit::Chain { chain, .. } = edit {
        let description = crate::ChainDescription {
            vm: "vm".to_owned(),
            volumes: Vec::new(),
        };
        let created = crate::edit::ChainEdit::Created(description);
        let _ = state.apply(Edit::from((chain, created)));
    }
    let before = state.clone();
    match state.apply(edit) {
        Ok(()) => drop(state.as_edits()),
        Err(_) => assert!(state == before, "a refused edit changes nothing"),
    }
}

/// A length, a journal of that length, and its mirror: what counts of them, and what the next writer makes of them.
pub fn journal_pair(bytes: &[u8]) {
    let mut fields = Fields::new(bytes);
    let Ok(primary) = fields.byte_string() else {
        return;
    };
    let mirror = bytes.get(primary.len().saturating_add(4)..).unwrap_or_default();
    let named = if primary.len() < 64 { mirror } else { primary };
    let RecordPlace {
        vault, generation, ..
    } = place_in(named);
    let layout = VaultLayout::new(Path::new("/vault"));
    let place = (&layout, vault, generation);
    let copies = Copies {
        from: 0,
        primary: primary.to_vec(),
        mirror: mirror.to_vec(),
    };
    let confirmed = replay(Replayed::nothing(), &copies, place, Presence::Confirmed);
    let Ok(written) = replay(Replayed::nothing(), &copies, place, Presence::Written) else {
        return;
    };
    if let Ok(confirmed) = confirmed {
        assert!(confirmed.bytes <= written.bytes, "what is confirmed was written");
    }
    let whole = copies.best(&written);
    let differs = copies.differ_at(&whole);
    assert!(
        differs <= u64::try_from(whole.len()).unwrap_or(0),
        "copies differ within what counts"
    );
    let mended = Copies {
        from: 0,
        primary: whole.clone(),
        mirror: whole,
    };
    let again = replay(Replayed::nothing(), &mended, place, Presence::Confirmed);
    let again = again.expect("a journal that was put in order can be read");
    assert!(again.mended.is_empty(), "nothing is wrong with it any more");
    assert!(
        (again.bytes, again.next_ordinal) == (written.bytes, written.next_ordinal),
        "putting a journal in order loses nothing"
    );
    assert!(
        again.state == written.state,
        "putting a journal in order changes nothing"
    );
    begin_anew(&written.state);
}

/// What a new journal would begin with adds up to the same state, if that is one that can be.
fn begin_anew(state: &VaultState) {
    let mut again = VaultState::default();
    let sound = state.chains().all(|(_, chain)| chain.check().is_ok());
    let taken = state
        .as_edits()
        .into_iter()
        .try_for_each(|edit| again.apply(edit));
    if sound && state.incarnation.is_some() {
        assert!(taken.is_ok(), "a state can be written down: {taken:?}");
        assert!(
            again.as_edits() == state.as_edits(),
            "a checkpoint changes nothing"
        );
    }
}

fn place_in(bytes: &[u8]) -> RecordPlace {
    RecordPlace {
        vault: Incarnation::from_bytes(field(bytes, 16)),
        generation: u64::from_le_bytes(field(bytes, 32)),
        ordinal: u64::from_le_bytes(field(bytes, 40)),
    }
}
