//! The switch at one instant with other VMs: only for that do processors stop, and not without a watchdog.
//!
//! All that can be done before was done. A guest that runs is stopped; when all of the round stand still, each is switched and let go in
//! one write. A guest that stood still before, by its operator or for an error, is taken along as it is and not let go. Whatever
//! goes wrong, this VM is switched all the same: the instant is then one of its own.
//!
//! Crash story: from before the `stop` until after the `cont` the watchdog is armed. Dropping [`Attached`] in the middle, as every
//! failure does that leaves open what QEMU did, ends the watchdog's input, and so the guest goes on. A mark says meanwhile that the guest may
//! stand still by our doing, for the case that the watchdog is killed, too.

use std::time::{Duration, Instant};

use farshore_blocks::clock::WallTime;
use farshore_provider::{Accord, Participant, SourceError};
use farshore_qmp::Command;
use serde_json::Value;

use super::{Attached, Site};
use crate::{
    source::{hypervisor::Hypervisor, machine::Status, scratch::ScratchDirectory, survey::status_question},
    watchdog::{Seen, Watchdog},
};

/// How a switch came about.
#[derive(Debug)]
pub(super) struct Switched {
    pub(super) captured_at: WallTime,
    /// How long the guest's writes were held for it.
    pub(super) held: Duration,
    pub(super) accord: Option<Accord>,
}

/// Whether a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guest {
    Runs,
    Stands,
}

/// What is done with a guest that stands still by our `stop`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// It is one instant with the others, as far as this VM knows.
    SwitchThenLetGo,
    /// It is not, so that the guest need not wait for the switch.
    LetGoThenSwitch,
    /// The watchdog has let it go, and whoever stops it now must not be undone.
    SwitchOnly,
}

impl Order {
    fn of(all_stand: bool, given_up: bool) -> Self {
        match (all_stand, given_up) {
            (_, true) => Self::SwitchOnly,
            (true, false) => Self::SwitchThenLetGo,
            (false, false) => Self::LetGoThenSwitch,
        }
    }

    /// In one write. The guest is asked after right before and right after the switch, which is the middle of three unless the
    /// guest was let go before.
    fn commands(self, switch: Command) -> Vec<Command> {
        let watched = [status_question(), switch, status_question()];
        match self {
            Self::SwitchThenLetGo => watched.into_iter().chain([let_go()]).collect(),
            Self::LetGoThenSwitch => [let_go()].into_iter().chain(watched).collect(),
            Self::SwitchOnly => watched.into(),
        }
    }
}

impl Attached {
    /// Switches this VM alone. No processor stops.
    pub(super) async fn switch(&self, switch: Command) -> Result<Switched, SourceError> {
        let captured_at = WallTime::now();
        let switching = Instant::now();
        self.hypervisor.run_all(&[switch]).await?;
        Ok(Switched {
            captured_at,
            held: switching.elapsed(),
            accord: None,
        })
    }

    /// Switches this VM at one instant with the others of the round, or else alone. `bitmap` is one that only this VM has.
    pub(super) async fn switch_together(
        &mut self,
        (site, bitmap): (&Site, &str),
        switch: Command,
        participant: Participant,
    ) -> Result<Switched, SourceError> {
        let watchdog = match (self.watchdog.take(), &site.watchdog) {
            (Some(watchdog), _) => Ok(watchdog),
            (None, Some(config)) => Watchdog::start(config, bitmap, &site.scratch.stopping_mark()).await,
            (None, None) => Err("it has no second monitor for a watchdog".to_owned()),
        };
        let mut watchdog = match watchdog {
            Ok(watchdog) => watchdog,
            Err(why) => {
                participant.give_up(&why);
                return self.switch_alone(switch, why).await;
            }
        };
        let captured_at = match participant.prepared().await {
            Ok(captured_at) => captured_at,
            Err(why) => {
                self.watchdog = Some(watchdog);
                return self.switch_alone(switch, why).await;
            }
        };
        let guest = match self.guest().await? {
            Guest::Stands => Guest::Stands,
            Guest::Runs => match ready_to_stop(site, &mut watchdog, participant.hold_limit()).await {
                Ok(()) => Guest::Runs,
                Err(why) => {
                    // Nothing was stopped, so that a pause that is seen later is an operator's.
                    site.scratch.unmark_stopping();
                    watchdog.kill();
                    participant.give_up(&why);
                    return self.switch_alone(switch, why).await;
                }
            },
        };
        let (held, accord, watchdog) = match guest {
            Guest::Stands => {
                let (held, accord) = self.switch_standing(switch, participant).await?;
                (held, accord, Some(watchdog))
            }
            Guest::Runs => {
                self.switch_stopped(&site.scratch, switch, (participant, watchdog))
                    .await?
            }
        };
        self.watchdog = watchdog;
        Ok(Switched {
            captured_at,
            held,
            accord: Some(accord),
        })
    }

    async fn switch_alone(&self, switch: Command, why: String) -> Result<Switched, SourceError> {
        let switched = self.switch(switch).await?;
        Ok(Switched {
            accord: Some(Accord::Alone { why }),
            ..switched
        })
    }

    /// A guest that stood still before.
    async fn switch_standing(
        &self,
        switch: Command,
        participant: Participant,
    ) -> Result<(Duration, Accord), SourceError> {
        let limit = participant.hold_limit();
        let met = participant.standing((Instant::now() + limit).into()).await;
        let answers = self
            .hypervisor
            .run_each(&[status_question(), switch, status_question()])
            .await?;
        let stood = met.and_then(|()| stood_still(&answers));
        // Nothing of it was held for this.
        Ok((Duration::ZERO, participant.taken(stood).await))
    }

    /// A guest that runs; the watchdog is armed, and comes back disarmed if it is still there.
    async fn switch_stopped(
        &self,
        scratch: &ScratchDirectory,
        switch: Command,
        (participant, mut watchdog): (Participant, Watchdog),
    ) -> Result<(Duration, Accord, Option<Watchdog>), SourceError> {
        let stopping = Instant::now();
        let stop = [status_question(), Command::new("stop", Value::Null)];
        let stopped = watchdog.while_alive(self.hypervisor.run_each(&stop)).await?;
        if guest_in(stopped.first()) == Some(Guest::Stands) {
            // Someone else stopped it just before, so that it is not ours to let go.
            let watchdog = match watchdog.disarm().await {
                Ok(_) => Some(watchdog),
                Err(_) => {
                    watchdog.kill();
                    None
                }
            };
            scratch.unmark_stopping();
            let (held, accord) = self.switch_standing(switch, participant).await?;
            return Ok((held, accord, watchdog));
        }
        let deadline = (stopping + participant.hold_limit()).into();
        let met = watchdog.while_alive(participant.standing(deadline)).await;
        let order = Order::of(met.is_ok(), watchdog.has_given_us_up());
        let commands = order.commands(switch);
        let answers = watchdog.while_alive(self.hypervisor.run_each(&commands)).await?;
        let held = stopping.elapsed();
        let disarmed = watchdog.disarm().await;
        let is_ours_to_let_go = match (&disarmed, order) {
            (Ok(Seen::Undisturbed), Order::SwitchOnly) => true,
            (Err(_), Order::SwitchOnly) => self.guest().await? == Guest::Stands,
            // It was let go, by the watchdog or with the switch: a pause that is seen now is an operator's.
            (Ok(Seen::Disturbed), Order::SwitchOnly)
            | (Ok(_) | Err(_), Order::SwitchThenLetGo | Order::LetGoThenSwitch) => false,
        };
        if is_ours_to_let_go {
            self.hypervisor.run_all(&[let_go()]).await?;
        }
        scratch.unmark_stopping();
        let stood = met.and_then(|()| stood_still(&answers));
        let (seen, watchdog) = match disarmed {
            Ok(Seen::Undisturbed) => (Ok(()), Some(watchdog)),
            Ok(Seen::Disturbed) => {
                let limit = participant.hold_limit();
                let why = format!("its guest was let go too early, after {limit:?} or by someone else");
                (Err(why), Some(watchdog))
            }
            Err(why) => {
                watchdog.kill();
                (Err(why), None)
            }
        };
        Ok((held, participant.taken(stood.and(seen)).await, watchdog))
    }

    async fn guest(&self) -> Result<Guest, SourceError> {
        let question = status_question();
        let status: Status = self.hypervisor.query(&question.name, question.arguments).await?;
        Ok(guest_of(&status))
    }
}

/// Nothing is stopped before all that lets it go on is there.
async fn ready_to_stop(site: &Site, watchdog: &mut Watchdog, limit: Duration) -> Result<(), String> {
    site.scratch.mark_stopping().map_err(|error| error.to_string())?;
    watchdog.arm(limit).await?;
    if watchdog.has_given_us_up() {
        return Err("it was held up before its guest was stopped".to_owned());
    }
    Ok(())
}

/// Lets a guest go on that was left standing when both its stopper and its watchdog were killed. An operator's own pause has no mark of
/// ours, and is left alone.
pub(crate) async fn let_go_if_left_standing(
    hypervisor: &Hypervisor,
    scratch: &ScratchDirectory,
) -> Result<(), SourceError> {
    if !scratch.is_marked_stopping() {
        return Ok(());
    }
    let question = status_question();
    let status: Status = hypervisor.query(&question.name, question.arguments).await?;
    if status.is_paused() {
        tracing::warn!(vm = hypervisor.vm(), "a guest that was left standing goes on");
        hypervisor.run_all(&[let_go()]).await?;
    }
    scratch.unmark_stopping();
    Ok(())
}

/// Of the answers to a question, a switch and the same question: whether the guest stood still at both.
fn stood_still(answers: &[Value]) -> Result<(), String> {
    let asked = [answers.first(), answers.get(2)];
    if asked
        .into_iter()
        .all(|answer| guest_in(answer) == Some(Guest::Stands))
    {
        return Ok(());
    }
    Err("its guest did not stand still".to_owned())
}

fn let_go() -> Command {
    Command::new("cont", Value::Null)
}

fn guest_in(answer: Option<&Value>) -> Option<Guest> {
    let status: Status = serde_json::from_value(answer?.clone()).ok()?;
    Some(guest_of(&status))
}

fn guest_of(status: &Status) -> Guest {
    if status.is_running() {
        Guest::Runs
    } else {
        Guest::Stands
    }
}
