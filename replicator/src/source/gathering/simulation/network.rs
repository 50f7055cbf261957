//! Replicators of one site without a network: lines between them on which words are late, get stuck or are cut, and processes that hang.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::super::{
    Groups, Own,
    dialling::{Dial, Dialling, Line},
    hosting,
    messages::{FromLeader, FromMember, Numbered},
};

/// After so long a line on which nothing moves counts as dead.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(4);

/// What is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Sit,
    Seated,
    Come,
    Told,
    Prepared,
    PreparedSettled,
    Standing,
    StandingSettled,
    Taken,
    TakenSettled,
    Other,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Arrives {
        after: Duration,
    },
    /// And so is all that comes behind it.
    Stuck,
    Cut,
    /// It arrives, but to a process that hangs by then.
    ReceiverHangs {
        for_: Duration,
    },
}

/// Decides by the replicator that does not lead on the line, and what is on its way.
pub(super) type Fates = Box<dyn FnMut(usize, Kind) -> Fate + Send>;

/// All that the replicators share. The first leads.
pub(super) struct World {
    fates: Mutex<Fates>,
    frozen_until: Mutex<Vec<Instant>>,
    leader: Mutex<Option<Groups>>,
}

impl fmt::Debug for World {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("World")
    }
}

#[derive(Debug)]
struct Lines {
    world: Arc<World>,
    from: usize,
}

/// So many replicators.
pub(super) fn site(replicators: usize, fates: Fates) -> (Arc<World>, Vec<Groups>) {
    let world = Arc::new(World {
        fates: Mutex::new(fates),
        frozen_until: Mutex::new(vec![Instant::now(); replicators]),
        leader: Mutex::default(),
    });
    let groups: Vec<_> = (0..replicators)
        .map(|from| {
            let own = Own {
                name: name(from),
                site: "east".to_owned(),
            };
            let world = Arc::clone(&world);
            Groups::dialling_by(own, Lines { world, from })
        })
        .collect();
    *world.leader.lock().unwrap() = Some(groups[0].clone());
    (world, groups)
}

pub(super) fn name(replicator: usize) -> String {
    format!("east-{replicator}")
}

impl World {
    pub(super) fn set_fates(&self, fates: Fates) {
        *self.fates.lock().unwrap() = fates;
    }

    pub(super) fn freeze(&self, replicator: usize, for_: Duration) {
        let mut frozen = self.frozen_until.lock().unwrap();
        frozen[replicator] = frozen[replicator].max(Instant::now() + for_);
    }

    /// Returns when the process does not hang; for how long it did.
    pub(super) async fn awake(&self, replicator: usize) -> Duration {
        let began = Instant::now();
        loop {
            let until = self.frozen_until.lock().unwrap()[replicator];
            if until <= Instant::now() {
                return began.elapsed();
            }
            sleep_until(until).await;
        }
    }

    fn fate(&self, line: usize, kind: Kind) -> Fate {
        (self.fates.lock().unwrap())(line, kind)
    }
}

impl Dial for Lines {
    fn dial<'a>(&'a self, _endpoint: &'a str) -> Dialling<'a> {
        Box::pin(async move {
            let world = Arc::clone(&self.world);
            let leader = world.leader.lock().unwrap().clone().unwrap();
            let (outgoing, sent) = mpsc::channel(8);
            let (deliver, words) = mpsc::channel::<Result<Numbered<FromMember>, String>>(8);
            let (answers, answered) = mpsc::channel(8);
            let (hand_over, incoming) = mpsc::channel(8);
            let cut = CancellationToken::new();
            let ends = |to: usize| End {
                world: Arc::clone(&world),
                line: self.from,
                to,
                cut: cut.clone(),
            };
            tokio::spawn(ends(0).carry(sent, deliver, of_member));
            // Of what the leader says it takes the last question to know what it answers.
            tokio::spawn(ends(self.from).carry(answered, hand_over, of_leader()));
            tokio::spawn(async move {
                let places = (&leader.own, &leader.tables);
                hosting::host(places, ReceiverStream::new(words), answers).await
            });
            Ok(Line {
                outgoing,
                incoming: Box::pin(ReceiverStream::new(incoming)),
            })
        })
    }
}

struct End {
    world: Arc<World>,
    line: usize,
    to: usize,
    cut: CancellationToken,
}

impl End {
    async fn carry<T: Send + 'static>(
        self,
        mut sent: mpsc::Receiver<Numbered<T>>,
        deliver: mpsc::Sender<Result<Numbered<T>, String>>,
        mut kind: impl FnMut(&T) -> Kind + Send,
    ) {
        loop {
            let message = tokio::select! {
                () = self.cut.cancelled() => break,
                message = sent.recv() => match message {
                    Some(message) => message,
                    // Who sent ended the stream, and that arrives like a word.
                    None => return,
                },
            };
            match self.world.fate(self.line, kind(&message.said)) {
                Fate::Arrives { after } => sleep(after).await,
                Fate::Stuck => {
                    sleep(KEEPALIVE).await;
                    self.cut.cancel();
                    break;
                }
                Fate::Cut => {
                    self.cut.cancel();
                    break;
                }
                Fate::ReceiverHangs { for_ } => self.world.freeze(self.to, for_),
            }
            self.world.awake(self.to).await;
            if deliver.send(Ok(message)).await.is_err() {
                return;
            }
        }
        // The two ends do not see it at the same time.
        sleep(KEEPALIVE / if self.to == 0 { 3 } else { 7 }).await;
    }
}

fn of_member(said: &FromMember) -> Kind {
    match said {
        FromMember::Sit(_) => Kind::Sit,
        FromMember::Come { .. } => Kind::Come,
        FromMember::Prepared(_) => Kind::Prepared,
        FromMember::Standing { .. } => Kind::Standing,
        FromMember::Taken(_) => Kind::Taken,
        FromMember::GivenUp { .. } | FromMember::Sealed(_) => Kind::Other,
    }
}

fn of_leader() -> impl FnMut(&FromLeader) -> Kind {
    let mut settled = 0;
    move |said| match said {
        FromLeader::Seated => Kind::Seated,
        FromLeader::Together(_) | FromLeader::Alone { .. } | FromLeader::Idle => {
            settled = 0;
            Kind::Told
        }
        FromLeader::Settled { .. } | FromLeader::Broken { .. } => {
            settled += 1;
            match settled {
                1 => Kind::PreparedSettled,
                2 => Kind::StandingSettled,
                _ => Kind::TakenSettled,
            }
        }
        FromLeader::Newest(_) => Kind::Other,
    }
}
