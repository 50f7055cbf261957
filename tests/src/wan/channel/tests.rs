//! One way of a line, on a clock of the tests' own.

use super::*;

const PACKET: [u8; 1000] = [7; 1000];
const MS: Duration = Duration::from_millis(1);

/// A packet takes a millisecond to send, and twenty to arrive; ten may wait.
fn conditions() -> Conditions {
    Conditions {
        delay: 20 * MS,
        bytes_per_second: NonZeroU64::new(1_000_000).unwrap(),
        queue_bytes: 10_000,
        lost_per_million: 0,
    }
}

fn line(conditions: Conditions) -> (Channel, Instant) {
    let now = Instant::now();
    (Channel::new(conditions, 1, now), now)
}

#[test]
fn a_packet_arrives_after_it_was_sent_and_the_delay() {
    let (mut channel, start) = line(conditions());
    assert_eq!(channel.offer(&PACKET, start), Fate::Sent);
    assert_eq!(channel.next_arrival(), Some(start + 21 * MS));
    assert_eq!(channel.arrived(start + 20 * MS), None);
    assert_eq!(channel.arrived(start + 21 * MS), Some(PACKET.to_vec()));
    assert_eq!(channel.arrived(start + 99 * MS), None);
    assert_eq!(channel.counts().bytes, 1000);
}

#[test]
fn packets_wait_for_their_turn_and_the_queue_is_bounded() {
    let (mut channel, start) = line(conditions());
    let sent = (0..20)
        .filter(|_| channel.offer(&PACKET, start) == Fate::Sent)
        .count();
    assert_eq!(sent, 10, "as many as the queue holds");
    assert_eq!(channel.counts().overflowed, 10);
    for turn in 1..=10 {
        assert_eq!(channel.next_arrival(), Some(start + (20 + turn) * MS));
        assert!(channel.arrived(start + (20 + turn) * MS).is_some());
    }
    assert_eq!(channel.offer(&PACKET, start + 10 * MS), Fate::Sent);
}

#[test]
fn a_cut_loses_what_is_on_its_way_and_all_that_is_offered_until_it_heals() {
    let (mut channel, start) = line(conditions());
    assert_eq!(channel.offer(&PACKET, start), Fate::Sent);
    channel.cut();
    assert_eq!(channel.offer(&PACKET, start), Fate::Cut);
    channel.heal();
    assert_eq!(channel.arrived(start + 99 * MS), None);
    assert_eq!(channel.offer(&PACKET, start + 99 * MS), Fate::Sent);
    assert!(channel.arrived(start + 120 * MS).is_some());
    assert_eq!(channel.counts().cut, 2);
}

#[test]
fn as_many_are_lost_by_chance_as_are_to_be() {
    let (mut channel, start) = line(Conditions {
        bytes_per_second: NonZeroU64::MAX,
        lost_per_million: 10_000,
        ..conditions()
    });
    for _ in 0..100_000 {
        channel.offer(&[0; 40], start);
    }
    let lost = channel.counts().lost;
    assert!((900..1100).contains(&lost), "{lost} of 100,000 at 1 %");
}

#[test]
fn no_packet_overtakes_another_when_the_delay_becomes_shorter() {
    let (mut channel, start) = line(conditions());
    channel.offer(&[1; 1000], start);
    channel.set(Conditions {
        delay: Duration::ZERO,
        ..conditions()
    });
    channel.offer(&[2; 1000], start);
    assert_eq!(channel.arrived(start + 20 * MS), None);
    assert_eq!(channel.arrived(start + 21 * MS).map(|packet| packet[0]), Some(1));
    assert_eq!(channel.arrived(start + 21 * MS).map(|packet| packet[0]), Some(2));
}
