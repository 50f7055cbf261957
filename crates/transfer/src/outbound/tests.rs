//! The window, acknowledgements that lie, and deliveries that are cut anywhere.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn frame(seed: u8) -> Frame {
    let raw = Bytes::from(vec![seed.max(1); 4096]);
    Frame::from_raw(VolumeIndex(0), ByteOffset(u64::from(seed) * 4096), raw).unwrap()
}

fn outbound() -> Outbound {
    Outbound::new(9, 1, ByteCount(10_000))
}

#[test]
fn the_window_closes_and_opens_with_acknowledgements() {
    let mut cycle = outbound();
    let mut sent = 0;
    while cycle.has_room() {
        cycle.push(vec![frame(sent)], Vec::new());
        sent += 1;
    }
    assert_eq!(sent, 3);
    cycle.acknowledge(1).unwrap();
    assert!(cycle.has_room());
    assert!(!cycle.is_drained());
    cycle.acknowledge(3).unwrap();
    assert!(cycle.is_drained());
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_refused() {
    let mut cycle = outbound();
    cycle.push(vec![frame(1)], Vec::new());
    assert!(cycle.acknowledge(2).is_err());
    cycle.acknowledge(1).unwrap();
    assert!(
        cycle.acknowledge(0).is_err(),
        "what was durable cannot stop being it"
    );
}

#[test]
fn a_resumed_cycle_ends_with_the_digest_of_an_uninterrupted_one() {
    let mut whole = outbound();
    whole.push(vec![frame(1), frame(2)], Vec::new());
    let halfway = whole.changes();
    whole.push(vec![frame(3)], Vec::new());

    let mut resumed = Outbound::resume(9, 1, &halfway, ByteCount(10_000));
    let next = resumed.push(vec![frame(3)], Vec::new());
    assert_eq!(next.number, 2);
    assert_eq!(resumed.changes(), whole.changes());
    assert_eq!(resumed.messages(), whole.messages());
}

#[test]
fn what_the_target_takes_from_a_seed_is_kept_and_counted_like_what_travels() {
    let mut seeded = outbound();
    let mut sent = outbound();
    while sent.has_room() {
        assert!(seeded.has_room());
        sent.push(vec![frame(1)], Vec::new());
        seeded.push(vec![Change::Seeded(frame(1))], Vec::new());
    }
    assert!(!seeded.has_room());
    assert_eq!(seeded.changes(), sent.changes());
}

#[test]
fn after_a_seed_differed_only_what_is_not_durable_travels_after_all() {
    let mut cycle = outbound();
    cycle.push(vec![Change::Seeded(frame(1))], Vec::new());
    cycle.push(vec![Change::Sent(frame(2)), Change::Seeded(frame(3))], Vec::new());
    cycle.acknowledge(1).unwrap();
    assert_eq!(cycle.send_what_was_seeded(), [frame(3)]);
    let again = cycle.send_again(1).unwrap();
    assert_eq!(again[0].changes, [Change::Sent(frame(2)), Change::Sent(frame(3))]);
    assert_eq!(cycle.send_what_was_seeded(), []);
}

proptest! {
    /// Whatever is lost by cuts, the target ends with each message once, in order.
    #[test]
    fn after_any_cuts_the_target_holds_every_message_once(
        deliveries in proptest::collection::vec((0usize..4, any::<bool>()), 1..40)
    ) {
        let mut cycle = Outbound::new(1, 1, ByteCount(u64::MAX));
        let mut held: Vec<u64> = Vec::new();
        let receive = |held: &mut Vec<u64>, number: u64| {
            // The target takes only what directly follows.
            if number == held.last().copied().unwrap_or(0) + 1 {
                held.push(number);
            }
        };
        for (seed, (delivered, acknowledged)) in deliveries.into_iter().enumerate() {
            let message = cycle.push(vec![frame(u8::try_from(seed).unwrap())], Vec::new());
            let again = cycle.send_again(held.last().copied().unwrap_or(0)).unwrap();
            prop_assert_eq!(again.last(), Some(&message));
            for message in again.iter().take(delivered) {
                receive(&mut held, message.number);
            }
            if acknowledged {
                cycle.acknowledge(held.last().copied().unwrap_or(0)).unwrap();
            }
        }
        for message in cycle.send_again(held.last().copied().unwrap_or(0)).unwrap() {
            receive(&mut held, message.number);
        }
        let expected: Vec<u64> = (1..=cycle.messages()).collect();
        prop_assert_eq!(held, expected);
    }
}
