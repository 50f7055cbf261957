//! Killed with -9 in each step of each job, and started again, the orchestrator ends every order as if nothing had
//! happened: once. The same of the replicators under a test failover.
//!
//! How a blow is struck: orchestrator and replicators run in turns, so that what is ordered stays under way until it is
//! their turn, and the job is watched. Once its step is seen to have begun, the victim is killed; then the others go on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a scenario fails by panicking, with the place where it did"
)]

use std::{fs, time::Duration};

use farshore_proto::v1::{
    self, FailoverState, JobState, SourcePhase, StepState, TestFailoverState,
    declarations_client::DeclarationsClient, failovers_client::FailoversClient, jobs_client::JobsClient,
};
use farshore_tests::{
    Daemon, Lab,
    bare_vm::document,
    eventually,
    lab::LabOptions,
    replica::{export, vault},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, transport::Channel};

const SOON: Duration = Duration::from_secs(90);
/// Long enough for either side to do all that it can without the other.
const TURN: Duration = Duration::from_millis(80);
/// Steps that give no command: with what was reported before they may be done before they are seen.
const WITHOUT_COMMANDS: [&str; 4] = [
    "Starting initial replication",
    "Updating provider states",
    "Checking isolation",
    "Checking for leaks",
];

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Orchestrator,
    West,
    East,
}

#[test]
fn an_enable_and_a_disable_job_survive_a_kill_in_each_of_their_steps() {
    let mut lab = Lab::start(LabOptions::default());
    let names = ["ka0", "ka1", "ka2", "ka3", "ka4"];
    for (step, name) in names.iter().enumerate() {
        lab.start_bare(name, 8).write("vdroot", 1, 65536, 4096);
        let manifest = document(name, &lab.bare(name).monitor());
        let order = apply(name, &manifest);
        let job = struck(&mut lab, Victim::Orchestrator, step, order);
        let job = lab.control().ended(&job, SOON);
        all_done(&job, 5);
        assert_eq!(job.steps[1].detail, "epoch 1");
        let again = lab.control().talk(apply(name, &manifest)).unwrap();
        assert_eq!(again, job.id, "the same order is the same job");
        assert_eq!(lab.control().jobs_of(&format!("vm/{name}")).len(), 1);
    }
    for name in names {
        let protected = lab.control().protected(name, SOON);
        lab.bare(name).write("vdroot", 2, 1024 * 1024, 8192);
        lab.control().vm_when(name, "the next point", SOON, |vm| {
            vm.points > protected.points && vm.backlog_bytes == 0
        });
        assert_eq!(chain(&lab, name)["epoch"], 1);
        assert!(
            newest(&lab, name) == fs::read(lab.bare(name).root()).unwrap(),
            "{name}"
        );
    }
    for (step, name) in names.iter().take(2).enumerate() {
        let job = struck(&mut lab, Victim::Orchestrator, step, delete(name));
        eventually(SOON, "the VM is gone", || {
            let ended = lab.control().job(&job)?.state() == JobState::Succeeded;
            (ended && lab.control().vm(name).is_none()).then_some(())
        });
        all_done(&lab.control().job(&job).unwrap(), 2);
        assert_eq!(lab.bare(name).traces(), [""; 0]);
        assert_eq!(chain(&lab, name)["epoch"], 1, "its chain stays in the vault");
    }
}

#[test]
fn a_test_failover_and_its_cleanup_survive_a_kill_in_each_of_their_steps() {
    let mut lab = Lab::start(LabOptions::default());
    protected(&mut lab, &["kt"]);
    for step in 0..3 {
        let key = format!("test-{step}");
        let job = struck(&mut lab, Victim::Orchestrator, step, start_test(&key, "kt"));
        let name = format!("kt-t{}", step + 1);
        runs_once(&lab, &job, &name);
        let again = lab.control().talk(start_test(&key, "kt")).unwrap();
        assert_eq!(again, job, "the same order is the same job");
        assert_eq!(lab.control().tests().len(), step + 1);

        let job = struck(&mut lab, Victim::Orchestrator, step % 2, clean_up(&name));
        cleaned(&lab, &job, &name);
    }
    goes_on(&lab, "kt");
}

#[test]
fn a_test_failover_and_its_cleanup_survive_the_killed_replicators() {
    let mut lab = Lab::start(LabOptions::default());
    protected(&mut lab, &["kr"]);
    let job = struck(&mut lab, Victim::West, 1, start_test("one", "kr"));
    let running = runs_once(&lab, &job, "kr-t1");
    let pid = running.recovered.unwrap().pid;

    lab.east.kill9();
    lab.west.kill9();
    lab.west.restart();
    lab.east.restart();
    let adopted = runs_once(&lab, &job, "kr-t1");
    assert_eq!(adopted.recovered.unwrap().pid, pid, "it is the same VM");
    goes_on(&lab, "kr");
    let job = struck(&mut lab, Victim::West, 0, clean_up("kr-t1"));
    cleaned(&lab, &job, "kr-t1");

    let job = struck(&mut lab, Victim::East, 1, start_test("two", "kr"));
    runs_once(&lab, &job, "kr-t2");
    let job = lab.control().talk(clean_up("kr-t2")).unwrap();
    cleaned(&lab, &job, "kr-t2");
    goes_on(&lab, "kr");
}

#[test]
fn an_unplanned_failover_survives_a_kill_in_each_of_its_steps() {
    let mut lab = Lab::start(LabOptions::default());
    let names = ["ku0", "ku1", "ku2", "ku3"];
    protected(&mut lab, &names);
    let mut points = Vec::new();
    for (step, name) in names.iter().enumerate() {
        let job = struck(&mut lab, Victim::Orchestrator, step, fail_over(name));
        let job = lab.control().ended(&job, SOON);
        all_done(&job, 4);
        assert_eq!(job.steps[0].detail, "epoch 2");
        let again = lab.control().talk(fail_over(name)).unwrap();
        assert_eq!(again, job.id, "the same order is the same job");
        let other = lab.control().talk(order_failover("another", name)).unwrap_err();
        assert_eq!(other.code(), Code::FailedPrecondition, "{other:?}");
        // The old source lives on, and has something to send.
        points.push(point_count(&lab, name));
        lab.bare(name).write("vdroot", 9, 0, 65536);
    }
    for (name, points) in names.into_iter().zip(points) {
        let vm = lab.control().vm_when(name, "failed over and fenced", SOON, |vm| {
            vm.failover() == FailoverState::FailedOver && vm.source_phase() == SourcePhase::Fenced
        });
        assert_eq!(vm.recovered.unwrap().recovery_id, format!("{name}-f1"));
        assert_eq!(hypervisors(&lab, &format!("{name}-f1")), 1);
        assert_eq!(chain(&lab, name)["epoch"], 2, "granted once");
        assert_eq!(
            point_count(&lab, name),
            points,
            "nothing of the old source landed"
        );
        assert_eq!(lab.control().jobs_of(&format!("vm/{name}")).len(), 2);
    }
    assert_eq!(lab.bubbles().len(), names.len());
}

/// Orders something and kills the victim as soon as the job's step is seen to have begun; starts it again.
fn struck<F>(lab: &mut Lab, victim: Victim, step: usize, order: F) -> String
where
    F: AsyncFnOnce(Channel) -> Result<String, Status> + Send,
{
    let turns = Turns {
        orchestrator: pid_of(&lab.orchestrator),
        replicators: [pid_of(&lab.west), pid_of(&lab.east)],
    };
    let struck = lab.control().talk(async |channel| {
        turns.of_orchestrator();
        let job = order(channel.clone()).await?;
        let began = await_step(&turns, channel, &job, step).await?;
        let name = &began.steps[step].name;
        let under_way = began.steps[step].state() == StepState::Running;
        assert!(
            under_way || WITHOUT_COMMANDS.contains(&name.as_str()),
            "missed: {began:#?}"
        );
        Ok(job)
    });
    let daemon = match victim {
        Victim::Orchestrator => &mut lab.orchestrator,
        Victim::West => &mut lab.west,
        Victim::East => &mut lab.east,
    };
    daemon.kill9();
    for daemon in [&lab.orchestrator, &lab.west, &lab.east] {
        daemon.thaw();
    }
    let daemon = match victim {
        Victim::Orchestrator => &mut lab.orchestrator,
        Victim::West => &mut lab.west,
        Victim::East => &mut lab.east,
    };
    daemon.restart();
    struck.unwrap()
}

/// Orchestrator and replicators, of which only one side runs at a time.
struct Turns {
    orchestrator: Pid,
    replicators: [Pid; 2],
}

impl Turns {
    fn of_orchestrator(&self) {
        self.signal_replicators(Signal::STOP);
        kill_process(self.orchestrator, Signal::CONT).unwrap();
    }

    fn of_replicators(&self) {
        kill_process(self.orchestrator, Signal::STOP).unwrap();
        self.signal_replicators(Signal::CONT);
    }

    fn signal_replicators(&self, signal: Signal) {
        for pid in self.replicators {
            kill_process(pid, signal).unwrap();
        }
    }
}

/// Returns when the step has begun, in the orchestrator's turn: its commands are not carried out yet.
async fn await_step(turns: &Turns, channel: Channel, job: &str, step: usize) -> Result<v1::Job, Status> {
    let request = v1::GetJobRequest { id: job.to_owned() };
    let mut seen = JobsClient::new(channel).watch_job(request).await?.into_inner();
    let ended = || Status::internal("the job ended before the step began");
    let mut now = seen.message().await?.ok_or_else(ended)?;
    loop {
        if now.steps[step].state() != StepState::Waiting {
            return Ok(now);
        }
        let is_under_way = now.steps.iter().any(|step| step.state() == StepState::Running);
        // Only what was seen to be under way waits for the replicators.
        let news = match is_under_way {
            true => timeout(TURN, seen.message()).await.ok(),
            false => Some(seen.message().await),
        };
        match news {
            Some(news) => now = news?.ok_or_else(ended)?,
            None => {
                turns.of_replicators();
                sleep(TURN).await;
                turns.of_orchestrator();
            }
        }
    }
}

fn pid_of(daemon: &Daemon) -> Pid {
    Pid::from_raw(i32::try_from(daemon.pid().unwrap()).unwrap()).unwrap()
}

fn apply(key: &str, manifest: &str) -> impl AsyncFnOnce(Channel) -> Result<String, Status> + Send + use<> {
    let request = v1::ApplyRequest {
        idempotency_key: key.to_owned(),
        manifest: manifest.to_owned(),
        dry_run: false,
    };
    async move |channel| {
        let answer = DeclarationsClient::new(channel).apply(request).await?;
        Ok(answer.into_inner().applied[0].job.clone())
    }
}

fn delete(name: &str) -> impl AsyncFnOnce(Channel) -> Result<String, Status> + Send + use<> {
    let request = v1::DeleteRequest {
        idempotency_key: format!("delete-{name}"),
        kind: "ProtectedVm".to_owned(),
        name: name.to_owned(),
    };
    async move |channel| {
        Ok(DeclarationsClient::new(channel)
            .delete(request)
            .await?
            .into_inner()
            .job)
    }
}

fn start_test(key: &str, vm: &str) -> impl AsyncFnOnce(Channel) -> Result<String, Status> + Send + use<> {
    let request = v1::StartTestRequest {
        idempotency_key: key.to_owned(),
        vm: vm.to_owned(),
        point: "latest".to_owned(),
    };
    async move |channel| {
        Ok(FailoversClient::new(channel)
            .start_test(request)
            .await?
            .into_inner()
            .job)
    }
}

fn clean_up(test: &str) -> impl AsyncFnOnce(Channel) -> Result<String, Status> + Send + use<> {
    let request = v1::CleanupTestRequest {
        idempotency_key: format!("cleanup-{test}"),
        name: test.to_owned(),
        notes: String::new(),
        force: false,
    };
    async move |channel| {
        Ok(FailoversClient::new(channel)
            .cleanup_test(request)
            .await?
            .into_inner()
            .job)
    }
}

fn fail_over(vm: &str) -> impl AsyncFnOnce(Channel) -> Result<String, Status> + Send + use<> {
    order_failover(&format!("failover-{vm}"), vm)
}

fn order_failover(key: &str, vm: &str) -> impl AsyncFnOnce(Channel) -> Result<String, Status> + Send + use<> {
    let request = v1::StartUnplannedRequest {
        idempotency_key: key.to_owned(),
        vm: vm.to_owned(),
        point: "latest".to_owned(),
    };
    async move |channel| {
        Ok(FailoversClient::new(channel)
            .start_unplanned(request)
            .await?
            .into_inner()
            .id)
    }
}

fn protected(lab: &mut Lab, names: &[&str]) {
    for name in names {
        lab.start_bare(name, 8).write("vdroot", 3, 0, 65536);
    }
    let _ = lab.protect_bare(names).done();
    for name in names {
        lab.control().protected(name, SOON);
    }
}

fn all_done(job: &v1::Job, steps: usize) {
    assert_eq!(job.state(), JobState::Succeeded, "{job:#?}");
    assert_eq!(job.steps.len(), steps);
    assert!(
        job.steps.iter().all(|step| step.state() == StepState::Done),
        "{job:#?}"
    );
}

/// The test's job is done, its VM runs, and there is one of everything.
fn runs_once(lab: &Lab, job: &str, name: &str) -> v1::TestFailover {
    all_done(&lab.control().ended(job, SOON), 3);
    let test = eventually(SOON, "the test VM is seen to run", || {
        let test = lab.control().tests().into_iter().find(|test| test.name == name)?;
        let condition = test.recovered.as_ref()?.condition();
        (condition == v1::RecoveredVmCondition::Running).then_some(test)
    });
    assert_eq!(test.state(), TestFailoverState::Running, "{test:#?}");
    let recovered = test.recovered.as_ref().unwrap();
    assert!(recovered.ways_out.is_empty(), "{recovered:?}");
    assert_eq!(lab.bubbles(), std::slice::from_ref(&recovered.namespace));
    assert_eq!(hypervisors(lab, name), 1);
    test
}

/// The cleanup's job is done, and there is nothing left.
fn cleaned(lab: &Lab, job: &str, name: &str) {
    all_done(&lab.control().ended(job, SOON), 2);
    let test = lab
        .control()
        .tests()
        .into_iter()
        .find(|test| test.name == name)
        .unwrap();
    assert_eq!(test.state(), TestFailoverState::Cleaned, "{test:#?}");
    assert!(test.leaks.is_empty(), "{test:#?}");
    assert!(lab.bubbles().is_empty(), "{:?}", lab.bubbles());
    assert!(lab.strangers().is_empty(), "{:?}", lab.strangers());
}

/// How many QEMUs run under this recovery's name.
fn hypervisors(lab: &Lab, recovery: &str) -> usize {
    let lines = lab.strangers();
    let mine = |line: &&String| line.contains("qemu-system") && line.contains(&format!("/{recovery}/"));
    lines.iter().filter(mine).count()
}

/// Replication goes on, to the very bytes.
fn goes_on(lab: &Lab, name: &str) {
    let before = lab.control().vm(name).unwrap();
    lab.bare(name).write("vdroot", 4, 65536, 65536);
    lab.control().vm_when(name, "the next point", SOON, |vm| {
        vm.points > before.points && vm.source_phase() == SourcePhase::Replicating
    });
    assert_eq!(chain(lab, name)["epoch"], 1);
    assert!(newest(lab, name) == fs::read(lab.bare(name).root()).unwrap());
}

/// The VM's only chain, as the vault itself lists it.
fn chain(lab: &Lab, name: &str) -> Value {
    let listed = vault(&["list", lab.vault().to_str().unwrap(), "-o", "json"])
        .done()
        .json();
    let chains = listed["chains"].as_array().unwrap();
    let mut mine: Vec<_> = chains.iter().filter(|chain| chain["vm"] == name).collect();
    assert_eq!(mine.len(), 1, "{listed:#}");
    mine.remove(0).clone()
}

fn point_count(lab: &Lab, name: &str) -> usize {
    chain(lab, name)["points"].as_array().unwrap().len()
}

/// The content of the first disk at the newest point.
fn newest(lab: &Lab, name: &str) -> Vec<u8> {
    let (root, data) = export(&lab.vault(), name, "latest", &lab.path(""));
    let content = fs::read(&root).unwrap();
    fs::remove_file(root).unwrap();
    fs::remove_file(data).unwrap();
    content
}
