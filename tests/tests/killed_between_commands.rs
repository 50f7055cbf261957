//! The source's replicator is killed at each single command that it gives a VM's monitor in a cycle; then the target's is, and the
//! orchestrator.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::time::Duration;

use farshore_guest::judge::Judgement;
use farshore_tests::{
    Lab, eventually,
    guests::GuestOrder,
    lab::{LabOptions, SYNC, vm_document},
    monitor_proxy::killer::{Fate, Moment, MonitorKiller, Order, Victim, is_whole},
    replica::judge_point,
    spare_monitor::SpareMonitor,
};

const SOON: Duration = Duration::from_secs(60);
const KILL: i32 = 9;
/// A cycle is shorter when it finds less to do; one that short does not say that a cycle has no more commands.
const SHORT_CYCLES: usize = 2;
/// How many of the source's commands may belong together, as far as others are concerned.
const BETWEEN_PHASES: usize = 3;

/// A protected guest whose monitor is reached through one who kills.
struct Doomed {
    lab: Lab,
    killer: MonitorKiller,
    spare: SpareMonitor,
    /// What lies at the VM between two cycles.
    at_rest: Vec<String>,
}

/// What was under way when the replicator was killed.
struct Killed {
    commands: Vec<String>,
}

impl Doomed {
    fn start() -> Self {
        let mut lab = Lab::start(LabOptions::default());
        lab.start_guest(GuestOrder::small("db", 11));
        let (order, vm) = lab.guest("db");
        let [monitor, spare] = vm.request().monitors.as_slice() else {
            panic!("a guest has two monitors");
        };
        let spare = SpareMonitor(spare.clone());
        let killer = MonitorKiller::start(lab.path("killer.qmp"), monitor);
        let path = killer.path().to_str().unwrap();
        let _ = lab.apply(&vm_document("db", path, &order.mac())).done();
        lab.cli.vm_in("db", "Protected", SYNC);
        let mut doomed = Self {
            lab,
            killer,
            spare,
            at_rest: Vec::new(),
        };
        doomed.at_rest = doomed.least_of_a_cycle();
        doomed
    }

    /// The fewest things of ours that are seen at the VM over a few cycles, without the numbers in their names.
    fn least_of_a_cycle(&self) -> Vec<String> {
        let until = self.lab.cli.points("db") + 4;
        let mut least: Option<Vec<String>> = None;
        eventually(SOON, "a few cycles", || {
            let seen = self.lies_there();
            if least.as_ref().is_none_or(|least| seen.len() < least.len()) {
                least = Some(seen);
            }
            (self.lab.cli.points("db") >= until).then_some(())
        });
        least.unwrap()
    }

    fn lies_there(&self) -> Vec<String> {
        let found = self.spare.nodes_and_bitmaps().into_iter();
        let mut found: Vec<String> = found
            .map(|name| name.replace(|digit: char| digit.is_ascii_digit(), ""))
            .collect();
        found.sort();
        found
    }

    /// Kills a replicator at a command of the source's next cycle; `None` if that cycle has fewer.
    fn kill_at(&mut self, at: usize, moment: Moment, victim: Victim) -> Option<Killed> {
        let daemon = match victim {
            Victim::Client => &mut self.lab.east,
            Victim::Another => &mut self.lab.west,
        };
        let pid = daemon.pid().unwrap();
        self.killer.order(Order {
            pid,
            victim,
            at,
            moment,
        });
        match eventually(SOON, "the cycle gets there or ends", || self.killer.fate()) {
            Fate::TooShort { commands } => {
                assert!(commands.len() < at && is_whole(&commands), "{at}: {commands:?}");
                None
            }
            Fate::Killed { commands } => {
                assert_eq!(daemon.ended_by(), Some(KILL), "{at}");
                assert_eq!(commands.len(), at, "{commands:?}");
                Some(Killed { commands })
            }
        }
    }

    /// The next point is right, and the guest has noticed nothing.
    fn goes_on_rightly(&self, after: &str) {
        let guest = &self.lab.guest("db").1;
        let acknowledged = guest.testimony().unwrap().acknowledged;
        let point = self.lab.cli.point_after_now("db", SOON);
        let judgement = judge_point(&self.lab.vault(), "db", &point, &self.lab.path(""), acknowledged);
        assert!(is_right(&judgement), "{after}: {}", judgement.describe());
        let testimony = self.lab.guest("db").1.testimony().unwrap();
        assert!(testimony.errors.is_empty(), "{after}: {:?}", testimony.errors);
    }

    /// Kills at every command that a cycle has, one after the other, and gives the last cycle's commands.
    fn kill_at_each(&mut self, moment: Moment) -> Vec<String> {
        let mut last = Vec::new();
        let (mut at, mut too_short) = (1, 0);
        while too_short < SHORT_CYCLES {
            let Some(killed) = self.kill_at(at, moment, Victim::Client) else {
                too_short += 1;
                continue;
            };
            self.lab.east.restart();
            self.goes_on_rightly(&format!("{moment:?} {at}, {}", killed.commands[at - 1]));
            last = killed.commands;
            (at, too_short) = (at + 1, 0);
        }
        last
    }

    /// Kills the target in each phase of a cycle, told by the commands that the source gives, and the orchestrator with it every other
    /// time.
    fn kill_the_others_in_each_phase(&mut self) {
        let (mut at, mut too_short) = (1, 0);
        while too_short < SHORT_CYCLES {
            let Some(killed) = self.kill_at(at, Moment::Sent, Victim::Another) else {
                too_short += 1;
                continue;
            };
            if killed.commands.len() % 2 == 0 {
                self.lab.orchestrator.kill9();
                self.lab.orchestrator.restart();
            }
            self.lab.west.restart();
            self.goes_on_rightly(&format!("the target at {at}, {}", killed.commands[at - 1]));
            (at, too_short) = (at + BETWEEN_PHASES, 0);
        }
        assert!(at > 5, "a cycle has more commands than {at}");
    }
}

fn is_right(judgement: &Judgement) -> bool {
    judgement.is_exact_instant() && judgement.lost_nothing()
}

#[test]
fn a_guest_never_notices_who_is_killed_at_any_command_of_a_cycle() {
    let mut doomed = Doomed::start();
    let answered = doomed.kill_at_each(Moment::Answered);
    assert!(is_whole(&answered), "each command of a whole cycle: {answered:?}");
    let sent = doomed.kill_at_each(Moment::Sent);
    assert!(is_whole(&sent), "each command of a whole cycle: {sent:?}");
    doomed.kill_the_others_in_each_phase();

    eventually(SOON, "nothing is left beside what a cycle needs", || {
        (doomed.lies_there() == doomed.at_rest).then_some(())
    });
    doomed.lab.delete_vm("db");
    assert_eq!(doomed.spare.traces(), [""; 0]);
    let testimony = doomed.lab.guest("db").1.testimony().unwrap();
    assert!(testimony.errors.is_empty(), "{:?}", testimony.errors);
}
