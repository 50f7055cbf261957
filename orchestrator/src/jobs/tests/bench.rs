//! An engine over a store in memory and scripted replicators, from a prepared state that many runs start from.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use farshore_blocks::clock::WallTime;
use farshore_domain::{
    declaration::{Declaration, DeclarationKey, Kind, parse_manifest},
    job::{Job, JobId, JobKind, StepState},
    point_choice::PointChoice,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, Sleeping},
    control::Control,
    jobs::Engine,
    metrics::Metrics,
    orders::{self, Applying, Fresh, Refusal},
    records::{self, Leftovers, Record, TestRecord, VmRecord, Work, transact},
    replicators::scripted::{Fault, MANIFEST, Scripted, World},
    store::{Content, Store, StoreError, memory::MemoryStore},
};

const VM: &str = "shop-db";
const TEST: &str = "shop-db-t1";
const LONG: Duration = Duration::from_secs(30);

/// A clock that jumps to whatever is waited for.
struct JumpingClock(Arc<Mutex<WallTime>>);

impl Clock for JumpingClock {
    fn now(&self) -> WallTime {
        *self.0.lock().unwrap()
    }

    fn sleep_until(&self, time: WallTime) -> Sleeping {
        let now = self.0.clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            let mut now = now.lock().unwrap();
            *now = time.max(*now);
        })
    }
}

/// A state in which a job was planned.
pub(super) struct Prepared {
    content: Content,
    world: World,
    job: JobId,
}

impl Prepared {
    /// The state right after a job of this kind was ordered.
    pub(super) async fn new(kind: JobKind) -> Self {
        let bench = Bench::empty();
        let enable = bench.apply().await;
        if kind == JobKind::EnableProtection {
            return bench.prepared(enable);
        }
        bench.run().await.unwrap();
        let job = match kind {
            JobKind::EnableProtection | JobKind::DisableProtection => bench.delete().await,
            JobKind::TestFailover => bench.order_test().await,
            JobKind::UnplannedFailover => bench.order_failover().await,
            JobKind::TestFailoverCleanup => {
                bench.order_test().await;
                bench.run().await.unwrap();
                bench.order_cleanup(Leftovers::Refuse).await
            }
        };
        bench.prepared(job)
    }

    pub(super) fn steps(&self) -> usize {
        Bench::over(self).job().steps.len()
    }

    /// The state in which the job hangs in this command and was cancelled.
    pub(super) async fn cancelled_at(&self, part: &'static str) -> Self {
        let bench = Bench::over(self);
        bench.change(|world| {
            world.stuck.insert(part);
        });
        let stop = CancellationToken::new();
        let running = tokio::spawn(bench.engine().run(stop.clone()));
        tokio::time::timeout(LONG, async {
            while bench.asked_ids_of(part).is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        stop.cancel();
        running.await.unwrap().unwrap();
        bench.change(|world| world.stuck.clear());
        let id = self.job.0.clone();
        bench.order(|work, _| orders::cancel(work, &id)).await;
        bench.prepared(self.job.clone())
    }
}

pub(super) struct Bench {
    store: Arc<MemoryStore>,
    world: Scripted,
    control: Control,
    job: JobId,
}

impl Bench {
    fn empty() -> Self {
        Self::with(
            MemoryStore::over(Content::default()),
            World::default(),
            JobId(String::new()),
        )
    }

    fn with(store: MemoryStore, world: World, job: JobId) -> Self {
        let store = Arc::new(store);
        let world = Scripted::over(world);
        let clock = JumpingClock(Arc::new(Mutex::new(WallTime(1_000_000_000))));
        let control = Control::new(
            store.clone(),
            Arc::new(world.clone()),
            Arc::new(clock),
            CancellationToken::new(),
        );
        Self {
            store,
            world,
            control,
            job,
        }
    }

    pub(super) fn over(prepared: &Prepared) -> Self {
        let mut world = prepared.world.clone();
        world.asked.clear();
        Self::with(
            MemoryStore::over(prepared.content.clone()),
            world,
            prepared.job.clone(),
        )
    }

    pub(super) fn dying_after(prepared: &Prepared, commits: usize) -> Self {
        let store = MemoryStore::dying_after(prepared.content.clone(), commits);
        Self::with(store, prepared.world.clone(), prepared.job.clone())
    }

    /// Another process over what this one left.
    pub(super) fn successor(&self) -> Self {
        let world = self.world.world().clone();
        Self::with(MemoryStore::over(self.store.content()), world, self.job.clone())
    }

    fn prepared(self, job: JobId) -> Prepared {
        Prepared {
            content: self.store.content(),
            world: self.world.world().clone(),
            job,
        }
    }

    fn engine(&self) -> Engine {
        Engine::new(&self.control, Metrics::new().unwrap())
    }

    /// Runs until every job has ended or the store died.
    pub(super) async fn run(&self) -> Result<(), StoreError> {
        let stop = CancellationToken::new();
        let mut revisions = self.store.revisions();
        let all_ended = async {
            loop {
                revisions.borrow_and_update();
                let jobs = records::list::<Job>(&*self.store).unwrap();
                if jobs.iter().all(|job| job.state.has_ended()) {
                    return;
                }
                revisions.changed().await.unwrap();
            }
        };
        let running = self.engine().run(stop.clone());
        let running = async {
            tokio::pin!(running);
            tokio::select! {
                ended = &mut running => ended,
                () = all_ended => {
                    stop.cancel();
                    running.await
                }
            }
        };
        tokio::time::timeout(LONG, running)
            .await
            .unwrap_or_else(|_| panic!("jobs do not end: {:?}", self.job()))
    }

    pub(super) fn job(&self) -> Job {
        records::read::<Job>(&*self.store, &self.job.0).unwrap().unwrap()
    }

    pub(super) fn vm(&self) -> VmRecord {
        records::read::<VmRecord>(&*self.store, VM).unwrap().unwrap()
    }

    pub(super) fn test(&self) -> TestRecord {
        records::read::<TestRecord>(&*self.store, TEST).unwrap().unwrap()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut World)) {
        self.world.change(change);
    }

    pub(super) fn fault(&self, part: &'static str, fault: Fault) {
        self.change(|world| world.faults.entry(part).or_default().push(fault));
    }

    pub(super) fn recovered(&self) -> Vec<String> {
        self.world.world().recovered.keys().cloned().collect()
    }

    pub(super) fn sources(&self) -> Vec<String> {
        let world = self.world.world();
        world.sources.values().map(|(vm, _)| vm.clone()).collect()
    }

    pub(super) fn asked_ids(&self) -> Vec<String> {
        let world = self.world.world();
        world.asked.iter().map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn asked_ids_of(&self, part: &str) -> Vec<String> {
        let world = self.world.world();
        let of_part = world.asked.iter().filter(|(_, asked)| *asked == part);
        of_part.map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn asked_parts(&self) -> Vec<&'static str> {
        self.world.world().asked.iter().map(|(_, part)| *part).collect()
    }

    /// All that users can see of how it ended, without times and numbers of attempts.
    pub(super) fn outcome(&self) -> String {
        let job = self.job();
        let steps: Vec<StepState> = job.steps.iter().map(|step| step.state).collect();
        let vm = records::read::<VmRecord>(&*self.store, VM).unwrap();
        let test = records::read::<TestRecord>(&*self.store, TEST)
            .unwrap()
            .map(|test| TestRecord {
                succeeded_at: None,
                ended_at: None,
                started_at: WallTime(0),
                ..test
            });
        let declared = records::declared(&*self.store).unwrap();
        let world = self.world.world();
        format!(
            "{:?} {steps:?}\n{vm:?}\n{test:?}\n{declared:?}\n{:?} {:?} {:?} {:?}",
            job.state, world.epochs, world.sources, world.points, world.recovered
        )
    }

    async fn order<T>(&self, mut order: impl FnMut(&mut Work<'_>, &Fresh) -> Result<T, Refusal>) -> T {
        let fresh = Fresh::make().unwrap();
        transact(&*self.store, |work| order(work, &fresh)).await.unwrap()
    }

    async fn apply(&self) -> JobId {
        let documents = parse_manifest("m", MANIFEST).unwrap();
        let applying = Applying::new(documents).unwrap();
        let applied = self
            .order(|work, _| orders::apply(work, &applying, WallTime(1)))
            .await;
        applied[3].job.clone().unwrap()
    }

    async fn delete(&self) -> JobId {
        let key = DeclarationKey {
            kind: Kind::ProtectedVm,
            name: VM.parse().unwrap(),
        };
        let job = self
            .order(|work, fresh| orders::delete(work, &key, fresh, WallTime(1)))
            .await;
        job.unwrap()
    }

    async fn order_test(&self) -> JobId {
        let latest = PointChoice::Latest;
        self.order(|work, fresh| orders::start_test(work, VM, latest, fresh, WallTime(1)))
            .await;
        self.test().job
    }

    async fn order_cleanup(&self, leftovers: Leftovers) -> JobId {
        self.order(|work, fresh| orders::clean_up(work, TEST, "", leftovers, fresh, WallTime(1)))
            .await;
        self.test().job
    }

    pub(super) async fn force_cleanup(&self) {
        self.order_cleanup(Leftovers::Record).await;
    }

    pub(super) async fn order_failover(&self) -> JobId {
        let latest = PointChoice::Latest;
        self.order(|work, fresh| orders::start_unplanned(work, VM, latest, fresh, WallTime(1)))
            .await
    }

    pub(super) async fn retry(&self) {
        self.order(|work, _| orders::retry(work, &self.job.0, WallTime(1)))
            .await;
    }
}

#[test]
fn a_declaration_is_kept_under_its_kind_and_name() {
    let documents: Vec<Declaration> = parse_manifest("m", MANIFEST).unwrap();
    let names: Vec<String> = documents.iter().map(Record::name).collect();
    assert_eq!(
        names,
        [
            "Site/east",
            "Site/west",
            "ReplicationPolicy/gold",
            "ProtectedVm/shop-db"
        ]
    );
}
