//! Groups over several replicators on a simulated site: whatever is late, lost, cut or hangs at whichever stage, whoever says that its
//! instant is one with the others stood still at a moment at which all others did, and took what it had then.

mod network;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use farshore_provider::{Accord, Participant};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::*;
use network::{Fate, Fates, KEEPALIVE, Kind, World, name, site};

const LIMIT: Duration = Duration::from_secs(1);
/// Who is silent for so long is given up by its watchdog.
const SILENCE: Duration = Duration::from_millis(300);
const INTERVAL: Duration = Duration::from_millis(200);
const WAIT: Duration = Duration::from_secs(1);
/// Longer than anything goes on that a fault began, and then some cycles.
const LONG: Duration = Duration::from_secs(30);

/// The order in which things happen, of which many have the same time.
#[derive(Debug, Default)]
struct Moments(AtomicU64);

impl Moments {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// A guest that stands still, and who lets it go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stood {
    from: u64,
    until: Option<u64>,
    /// When what it has was taken.
    taken: Option<u64>,
    together: bool,
}

/// By instant and VM.
type Ledger = Arc<Mutex<BTreeMap<(InstantId, String), Stood>>>;

/// What can go wrong in a member itself, in per mille of its rounds.
#[derive(Debug, Clone, Copy, Default)]
struct Mishaps {
    per_mille: u64,
}

#[derive(Clone)]
struct Scene {
    world: Arc<World>,
    groups: Vec<Groups>,
    members: Vec<String>,
    moments: Arc<Moments>,
    ledger: Ledger,
    held: Arc<Mutex<Duration>>,
}

#[derive(Debug, Clone)]
struct Dice(Arc<Mutex<u64>>);

impl Dice {
    fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)))
    }

    fn below(&self, bound: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state % bound
    }

    fn milliseconds(&self, bound: u64) -> Duration {
        Duration::from_millis(self.below(bound))
    }
}

impl Scene {
    fn of(members: usize, replicators: usize, fates: Fates) -> Self {
        let (world, groups) = site(replicators, fates);
        Self {
            world,
            groups,
            members: (0..members).map(|number| format!("vm{number}")).collect(),
            moments: Arc::default(),
            ledger: Arc::default(),
            held: Arc::default(),
        }
    }

    fn seat(&self, member: usize) -> Seat {
        let replicator = member % self.groups.len();
        let membership = Membership {
            group: "shop".to_owned(),
            members: self.members.clone(),
            hold_limit: LIMIT,
            watchdog_monitor: None,
            leader: Some(GroupLeader {
                replicator: name(0),
                endpoint: "simulated".to_owned(),
            }),
        };
        self.groups[replicator]
            .place(&membership, &self.members[member])
            .sit()
    }

    /// A member's engine until `end`; how many instants it had with the others.
    async fn replicate(self, member: usize, (dice, mishaps): (Dice, Mishaps), end: Instant) -> usize {
        let replicator = member % self.groups.len();
        let mut seat = self.seat(member);
        let mut together = 0;
        while Instant::now() < end {
            self.world.awake(replicator).await;
            let meeting = seat.meet(Wants::Instant, Instant::now() + WAIT).await;
            if let Meeting::Together(participant) = meeting {
                let id = participant.id();
                if self.take(member, participant, (&dice, mishaps)).await {
                    together += 1;
                    let at = WallTime(id.0);
                    seat.sealed(GroupInstant { id, at });
                }
            }
            sleep(INTERVAL).await;
        }
        together
    }

    /// As a provider does it; whether it is one instant with the others.
    async fn take(&self, member: usize, participant: Participant, (dice, mishaps): (&Dice, Mishaps)) -> bool {
        let replicator = member % self.groups.len();
        let mishap = |stage: u64| dice.below(1000) < mishaps.per_mille && dice.below(5) == stage;
        sleep(dice.milliseconds(20)).await;
        if mishap(0) {
            participant.give_up("its watchdog cannot be started");
            return false;
        }
        if participant.prepared().await.is_err() {
            return false;
        }
        self.world.awake(replicator).await;
        if mishap(1) {
            // Its engine is ended.
            return false;
        }
        let key = (participant.id(), self.members[member].clone());
        let armed_at = Instant::now();
        sleep(if mishap(2) { LIMIT } else { dice.milliseconds(20) }).await;
        let slept = self.world.awake(replicator).await;
        if slept >= SILENCE || armed_at.elapsed() >= LIMIT {
            // The watchdog let it go before we saw it stand.
            return self.end(participant, Err("let go".to_owned())).await;
        }
        let stood = Stood {
            from: self.moments.next(),
            until: None,
            taken: None,
            together: false,
        };
        self.ledger.lock().unwrap().insert(key.clone(), stood);
        let watchdog = tokio::spawn(self.clone().watch(key.clone(), armed_at, replicator));
        if mishap(4) {
            // Its process dies while it stands.
            return false;
        }
        let met = participant.standing(armed_at + LIMIT).await;
        self.world.awake(replicator).await;
        if mishap(3) {
            self.world.freeze(replicator, SILENCE * 2);
            self.world.awake(replicator).await;
        }
        let taken = self.moments.next();
        let undisturbed = self.let_go(&key, Some(taken));
        watchdog.abort();
        self.was_held(armed_at.elapsed());
        let stood = met.and(if undisturbed {
            Ok(())
        } else {
            Err("let go".to_owned())
        });
        let together = self.end(participant, stood).await;
        if let Some(stood) = self.ledger.lock().unwrap().get_mut(&key) {
            stood.together = together;
        }
        together
    }

    fn was_held(&self, for_: Duration) {
        let mut longest = self.held.lock().unwrap();
        *longest = (*longest).max(for_);
    }

    async fn end(&self, participant: Participant, stood: Result<(), String>) -> bool {
        let id = participant.id();
        participant.taken(stood).await == Accord::Together(id)
    }

    /// The watchdog of a guest whose process may hang.
    async fn watch(self, key: (InstantId, String), armed_at: Instant, replicator: usize) {
        let end = armed_at + LIMIT;
        loop {
            let hangs = tokio::time::timeout(SILENCE, self.world.awake(replicator))
                .await
                .is_err();
            if hangs || Instant::now() >= end {
                break;
            }
            sleep_until(end.min(Instant::now() + SILENCE / 4)).await;
        }
        self.let_go(&key, None);
    }

    /// Whether it stood until now.
    fn let_go(&self, key: &(InstantId, String), taken: Option<u64>) -> bool {
        let mut ledger = self.ledger.lock().unwrap();
        let stood = ledger.get_mut(key).unwrap();
        stood.taken = taken;
        let undisturbed = stood.until.is_none();
        stood.until = stood.until.or_else(|| Some(self.moments.next()));
        undisturbed
    }

    /// How many of the instants were said to be of all.
    fn judge(&self, seed: u64) -> usize {
        let ledger = self.ledger.lock().unwrap();
        let mut claimed: Vec<_> = ledger
            .iter()
            .filter(|(_, stood)| stood.together)
            .map(|((id, _), _)| *id)
            .collect();
        claimed.dedup();
        for id in &claimed {
            let all: Vec<_> = self
                .members
                .iter()
                .map(|vm| {
                    ledger
                        .get(&(*id, vm.clone()))
                        .unwrap_or_else(|| panic!("seed {seed}: {vm} never stood for {id}"))
                })
                .collect();
            let last_stood = all.iter().map(|stood| stood.from).max().unwrap();
            let first_went = all.iter().filter_map(|stood| stood.until).min().unwrap();
            assert!(
                last_stood < first_went,
                "seed {seed}: there is no moment of {id} at which all stood still: {all:?}"
            );
            for stood in all.iter().filter(|stood| stood.together) {
                let taken = stood.taken.unwrap();
                assert!(
                    last_stood < taken && taken < stood.until.unwrap(),
                    "seed {seed}: {stood:?} was not taken while it stood with the others"
                );
            }
        }
        claimed.len()
    }

    async fn run(&self, (dice, mishaps): (&Dice, Mishaps), for_: Duration) -> Vec<usize> {
        let end = Instant::now() + for_;
        let mut engines = JoinSet::new();
        for member in 0..self.members.len() {
            let scene = self.clone();
            let dice = dice.clone();
            engines.spawn(async move { (member, scene.replicate(member, (dice, mishaps), end).await) });
        }
        let mut together = engines.join_all().await;
        together.sort_unstable();
        together.into_iter().map(|(_, count)| count).collect()
    }
}

fn promptly() -> Fates {
    Box::new(|_, _| Fate::Arrives {
        after: Duration::from_millis(1),
    })
}

#[tokio::test(start_paused = true)]
async fn sixty_four_vms_of_four_replicators_have_one_instant_in_every_cycle() {
    let scene = Scene::of(64, 4, promptly());
    let together = scene
        .run((&Dice::seeded(1), Mishaps::default()), Duration::from_secs(10))
        .await;
    let instants = scene.judge(1);
    // The first meeting may be before all are seated.
    assert!(instants >= 10, "{instants}");
    assert!(
        together.iter().all(|count| count + 1 >= instants),
        "{together:?} of {instants}"
    );
    assert!(*scene.held.lock().unwrap() < LIMIT / 4);
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_to_any_word_costs_an_instant_at_most_and_the_next_ones_are_right() {
    const LATE: [Duration; 3] = [
        Duration::from_millis(990),
        Duration::from_millis(1010),
        Duration::from_secs(5),
    ];
    let words = [
        Kind::Sit,
        Kind::Seated,
        Kind::Come,
        Kind::Told,
        Kind::Prepared,
        Kind::PreparedSettled,
        Kind::Standing,
        Kind::StandingSettled,
        Kind::Taken,
        Kind::TakenSettled,
    ];
    let mut fates = vec![Fate::Stuck, Fate::Cut];
    fates.extend(LATE.map(|after| Fate::Arrives { after }));
    fates.extend(LATE.map(|for_| Fate::ReceiverHangs { for_ }));
    for word in words {
        for fate in &fates {
            let (mut left, fate) = (2, *fate);
            // Of one replicator's line the first two words of this kind.
            let once: Fates = Box::new(move |line, kind| {
                if kind == word && line == 1 && left > 0 {
                    left -= 1;
                    return fate;
                }
                Fate::Arrives {
                    after: Duration::from_millis(1),
                }
            });
            let scene = Scene::of(5, 3, once);
            let dice = Dice::seeded(7);
            let together = scene.run((&dice, Mishaps::default()), LONG).await;
            let instants = scene.judge(0);
            assert!(instants > 8, "{word:?} {fate:?}: only {instants} instants");
            assert!(
                together.iter().all(|count| count + 4 > instants),
                "{word:?} {fate:?}: {together:?} of {instants}"
            );
            let held = *scene.held.lock().unwrap();
            let hangs = matches!(fate, Fate::ReceiverHangs { .. });
            assert!(hangs || held <= LIMIT, "{word:?} {fate:?}: held for {held:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_says_that_its_instant_is_of_all_stood_still_with_all_whatever_the_dice_say() {
    let mut instants = 0;
    for seed in 1..=5 {
        let dice = Dice::seeded(seed);
        let scene = Scene::of(64, 4, promptly());
        let thrown = dice.clone();
        // Each line carries hundreds of words in a round.
        let troubled: Fates = Box::new(move |_, _| match thrown.below(4000) {
            0 => Fate::Stuck,
            1 => Fate::Cut,
            2 => Fate::ReceiverHangs {
                for_: thrown.milliseconds(3000),
            },
            3 | 4 => Fate::Arrives {
                after: thrown.milliseconds(3000),
            },
            _ => Fate::Arrives {
                after: thrown.milliseconds(4),
            },
        });
        scene.world.set_fates(troubled);
        let mishaps = Mishaps { per_mille: 3 };
        let _ = scene.run((&dice, mishaps), Duration::from_secs(25)).await;
        let among_trouble = scene.judge(seed);
        // Then all is well again.
        scene.world.set_fates(promptly());
        sleep(KEEPALIVE * 3).await;
        let after = Scene {
            ledger: Arc::default(),
            ..scene.clone()
        };
        let _ = after
            .run((&dice, Mishaps::default()), Duration::from_secs(10))
            .await;
        let in_peace = after.judge(seed);
        assert!(in_peace >= 5, "seed {seed}: {in_peace} after the trouble");
        println!("seed {seed}: {among_trouble} instants in trouble, {in_peace} after it");
        instants += among_trouble;
    }
    assert!(
        instants > 15,
        "there was so much trouble that nothing was shown: {instants}"
    );
}
