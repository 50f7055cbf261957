//! Source and target in one process, on a wire that is cut anywhere, with restarts of both: what is sealed equals what was
//! captured, or is refused.
//!
//! The source is the crate's own code in a shell as small as can be; the target keeps the rules of the vault over a disk whose
//! unsynced messages a restart loses. All chance comes from a seed, which a failure prints.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a simulation fails by panicking, with its seed"
)]

#[path = "simulation/chance.rs"]
mod chance;
#[path = "simulation/source.rs"]
mod source;
#[path = "simulation/target.rs"]
mod target;
#[path = "simulation/wire.rs"]
mod wire;

use chance::Chance;
use source::Source;
use target::Target;
use wire::Session;

/// How many blocks the simulated disk has.
const BLOCKS: u64 = 12;
const STEPS: u32 = 3000;

/// What goes wrong beside cuts and restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// Nothing: then nothing is ever refused.
    Calm,
    /// Messages come twice or in the wrong order, and the target loses what it had acknowledged.
    Rough,
}

/// All of it.
struct World {
    weather: Weather,
    chance: Chance,
    source: Source,
    target: Target,
    session: Option<Session>,
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        Self {
            weather,
            chance: Chance::new(seed),
            source: Source::default(),
            target: Target::default(),
            session: None,
        }
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..20 => self.source.guest_writes(&mut self.chance),
            20..62 => {
                self.source.acts(&mut self.session, &mut self.chance);
                let believed = self.source.believed.last();
                assert!(believed.is_none_or(|point| self.target.holds(*point)));
            }
            62..93 => {
                if let Some(session) = &mut self.session {
                    if self.weather == Weather::Rough {
                        session.is_disturbed(&mut self.chance);
                    }
                    self.target.acts(session, &self.source, &mut self.chance);
                }
            }
            93..96 => self.cut(),
            96..98 => {
                self.cut();
                self.source.restarts();
            }
            98 if self.weather == Weather::Rough => {
                self.session = None;
                self.target.is_put_back(&mut self.chance);
            }
            _ => {
                self.session = None;
                self.target.restarts();
            }
        }
    }

    /// Some of what was under way still arrives, in order; the rest and all answers are gone.
    fn cut(&mut self) {
        if let Some(mut session) = self.session.take() {
            let arrives = self.chance.below(1 + session.to_target.len() as u64);
            for _ in 0..arrives {
                self.target.acts(&mut session, &self.source, &mut self.chance);
            }
        }
    }
}

fn run(seed: u64, weather: Weather) -> (usize, u64) {
    let mut world = World::new(seed, weather);
    for _ in 0..STEPS {
        world.step();
    }
    let refused = &world.source.refused;
    assert!(weather == Weather::Rough || refused.is_empty(), "{refused:?}");
    (world.target.points(), world.source.resumed)
}

#[test]
fn what_is_sealed_equals_what_was_captured() {
    let (mut points, mut resumed) = (0, 0);
    for seed in 0..400 {
        let weather = if seed % 2 == 0 {
            Weather::Calm
        } else {
            Weather::Rough
        };
        let ended = std::panic::catch_unwind(|| run(seed, weather));
        let (sealed, went_on) = ended.unwrap_or_else(|_| panic!("seed {seed}, {weather:?}"));
        points += sealed;
        resumed += went_on;
    }
    // Nothing was proven if nothing happened.
    assert!(points > 2000, "{points} points");
    assert!(resumed > 1000, "{resumed} cycles went on after a cut");
}
