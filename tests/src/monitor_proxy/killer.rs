//! Kills a process, most often the one at the other end of a monitor's line, with SIGKILL, at a given command of a cycle.
//!
//! What a cycle is can be seen on the wire, however many commands it has: every cycle adds bitmaps, and removes others
//! once it is settled. So a cycle begins with the first `block-dirty-bitmap-add` of a connection, and then with each
//! that comes after a `block-dirty-bitmap-remove`; whatever is asked between two cycles counts for the first of them.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Heard, MonitorProxy, Next, Onlooker};

const BEGINS: &str = "block-dirty-bitmap-add";
const SETTLES: &str = "block-dirty-bitmap-remove";

/// When the process is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// QEMU has answered the command; the answer does not arrive.
    Answered,
    /// The command is on its way to QEMU: it may or may not have run by then.
    Sent,
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The one who gives the commands: the line ends.
    Client,
    /// Somebody else: the line goes on.
    Another,
}

/// Where a process is to be killed: in the first cycle that begins after the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Of the process.
    pub pid: u32,
    /// Who that is.
    pub victim: Victim,
    /// The number of the command in its cycle, from 1.
    pub at: usize,
    /// Before or after its answer.
    pub moment: Moment,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The process was sent SIGKILL. QEMU had got these commands of the cycle by then, in this order; if the client was killed, no more.
    Killed {
        /// What each of them does.
        commands: Vec<String>,
    },
    /// The cycle had fewer commands; nobody was killed.
    TooShort {
        /// What each of them does.
        commands: Vec<String>,
    },
}

/// Whether these commands of a cycle are those of a whole one: it began, and was settled.
#[must_use]
pub fn is_whole(commands: &[String]) -> bool {
    [BEGINS, SETTLES]
        .iter()
        .all(|wanted| commands.iter().any(|command| command.contains(wanted)))
}

/// A proxy that kills.
#[derive(Debug)]
pub struct MonitorKiller {
    proxy: MonitorProxy,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    order: Option<Order>,
    /// What the cycle that the order is about has asked so far.
    cycle: Option<Vec<String>>,
    /// The answer that the order waits for.
    awaited: Option<String>,
    fate: Option<Fate>,
}

/// How far the present cycle is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Settled,
    Begun,
}

impl MonitorKiller {
    /// Listens at `path` for clients of `monitor`.
    ///
    /// # Panics
    /// When it cannot listen there.
    #[must_use]
    pub fn start(path: PathBuf, monitor: &Path) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let proxy = MonitorProxy::start(path, monitor, Watching(Arc::clone(&state))).unwrap();
        Self { proxy, state }
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.proxy.path()
    }

    /// Gives an order; the one before it is forgotten.
    pub fn order(&self, order: Order) {
        let mut state = locked(&self.state);
        state.order = Some(order);
        (state.cycle, state.awaited, state.fate) = (None, None, None);
    }

    /// What became of the order, once that is known.
    #[must_use]
    pub fn fate(&self) -> Option<Fate> {
        locked(&self.state).fate.clone()
    }
}

struct Watching(Arc<Mutex<State>>);

impl Onlooker for Watching {
    fn connected(&mut self) {
        let mut state = locked(&self.0);
        // Part of a cycle is no cycle: another one will do.
        (state.stage, state.cycle, state.awaited) = (Stage::Settled, None, None);
    }

    fn asked(&mut self, command: &Heard) -> Next {
        locked(&self.0).asked(command)
    }

    fn answered(&mut self, answer: &Heard) -> Next {
        let mut state = locked(&self.0);
        if state.awaited.as_ref() == Some(&answer.id) {
            return state.kill();
        }
        Next::GoOn
    }
}

impl State {
    fn asked(&mut self, command: &Heard) -> Next {
        let Some(order) = self.count(command) else {
            return Next::GoOn;
        };
        match (order.moment, order.victim) {
            // Nobody waits for the answer.
            (Moment::Sent, _) | (Moment::Answered, Victim::Another) => self.kill(),
            (Moment::Answered, Victim::Client) => {
                self.awaited = Some(command.id.clone());
                Next::HoldCommands
            }
        }
    }

    /// The order, if this is its command.
    fn count(&mut self, command: &Heard) -> Option<Order> {
        let does = what_it_does(&command.line);
        let begins = self.stage == Stage::Settled && does.contains(&BEGINS);
        if begins {
            self.stage = Stage::Begun;
        }
        // One transaction may do both.
        if self.stage == Stage::Begun && does.contains(&SETTLES) {
            self.stage = Stage::Settled;
        }
        let order = self.order.filter(|_| self.fate.is_none())?;
        if begins {
            if let Some(commands) = self.cycle.take() {
                self.fate = Some(Fate::TooShort { commands });
                return None;
            }
            self.cycle = Some(Vec::new());
        }
        let cycle = self.cycle.as_mut()?;
        cycle.push(does.join(" "));
        (cycle.len() == order.at).then_some(order)
    }

    fn kill(&mut self) -> Next {
        let Some(order) = self.order else {
            return Next::GoOn;
        };
        let Some(pid) = i32::try_from(order.pid).ok().and_then(Pid::from_raw) else {
            return Next::GoOn;
        };
        // A process that is gone already was not killed here: then there is no fate, and the test misses it.
        if kill_process(pid, Signal::KILL).is_ok() {
            let commands = self.cycle.take().unwrap_or_default();
            self.fate = Some(Fate::Killed { commands });
        }
        match order.victim {
            Victim::Client => Next::AwaitEnd,
            Victim::Another => Next::GoOn,
        }
    }
}

/// The command's name, and the names of what a transaction does.
fn what_it_does(line: &Value) -> Vec<&str> {
    let actions = line.pointer("/arguments/actions").and_then(Value::as_array);
    let actions = actions
        .into_iter()
        .flatten()
        .filter_map(|action| action.get("type"));
    let command = line.get("execute");
    command
        .into_iter()
        .chain(actions)
        .filter_map(Value::as_str)
        .collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::json;

    use super::*;

    /// No process has it.
    const NOBODY: u32 = i32::MAX.unsigned_abs();

    fn heard(id: u64, line: Value) -> Heard {
        Heard {
            id: id.to_string(),
            line,
            bytes: 0,
            at: Instant::now(),
        }
    }

    fn command(name: &str) -> Value {
        json!({"execute": name})
    }

    fn transaction(actions: &[&str]) -> Value {
        let actions: Vec<_> = actions.iter().map(|action| json!({"type": action})).collect();
        json!({"execute": "transaction", "arguments": {"actions": actions}})
    }

    /// Two bitmaps are added one after the other, and removed together.
    fn slow_cycle() -> Vec<Value> {
        vec![
            command(BEGINS),
            command(BEGINS),
            command("blockdev-reopen"),
            transaction(&["block-dirty-bitmap-merge", SETTLES, SETTLES]),
            command("query-named-block-nodes"),
        ]
    }

    /// Two bitmaps are added in one transaction, and removed one after the other.
    fn quick_cycle() -> Vec<Value> {
        vec![transaction(&[BEGINS, BEGINS]), command(SETTLES), command(SETTLES)]
    }

    fn ordered(at: usize, moment: Moment) -> State {
        let pid = NOBODY;
        State {
            order: Some(Order {
                pid,
                victim: Victim::Client,
                at,
                moment,
            }),
            ..State::default()
        }
    }

    /// Feeds lines and gives the numbers, from 1, of those that do not just go on.
    fn feed(state: &mut State, lines: Vec<Value>) -> Vec<(u64, Next)> {
        let next = (1..)
            .zip(lines)
            .map(|(id, line)| (id, state.asked(&heard(id, line))));
        next.filter(|(_, next)| *next != Next::GoOn).collect()
    }

    #[test]
    fn a_cycle_that_is_shorter_than_the_order_says_so_with_its_commands() {
        for cycle in [slow_cycle(), quick_cycle()] {
            let length = cycle.len();
            let mut state = ordered(length + 1, Moment::Sent);
            let leading = vec![command("query-block")];
            assert_eq!(feed(&mut state, [leading, cycle.clone()].concat()), []);
            assert_eq!(state.fate, None);
            assert_eq!(feed(&mut state, cycle), []);
            let Some(Fate::TooShort { commands }) = state.fate else {
                panic!("{:?}", state.fate);
            };
            assert_eq!(commands.len(), length);
            assert!(is_whole(&commands) && !is_whole(&commands[..1]), "{commands:?}");
        }
    }

    #[test]
    fn the_commands_behind_the_ordered_one_are_held() {
        for cycle in [slow_cycle(), quick_cycle()] {
            for at in 1..=cycle.len() {
                let number = 1 + u64::try_from(at).unwrap();
                let mut state = ordered(at, Moment::Answered);
                let held = feed(&mut state, [vec![command("query-block")], cycle.clone()].concat());
                assert_eq!(held, [(number, Next::HoldCommands)]);
                assert_eq!(state.awaited, Some(number.to_string()));
            }
        }
    }

    #[test]
    fn an_order_in_mid_cycle_is_about_the_next_one() {
        let mut state = State::default();
        assert_eq!(feed(&mut state, vec![command(BEGINS)]), []);
        state.order = ordered(2, Moment::Answered).order;
        let rest = slow_cycle().split_off(1);
        let rest_of_it = u64::try_from(rest.len()).unwrap();
        let held = feed(&mut state, [rest, slow_cycle()].concat());
        assert_eq!(held, [(rest_of_it + 2, Next::HoldCommands)]);
    }
}
