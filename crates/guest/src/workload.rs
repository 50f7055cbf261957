//! The workload: what runs inside the guest, writes the records, and tells of them.
//!
//! Order of a life: read the configuration; verify what is on the disks *before* writing anything (the boot verdict); then
//! write, report and serve until the power goes. Disks that are not an exact instant of this guest's life are left as they
//! were found: nothing is written to them, so that they can be looked at.
//!
//! Crash story: a guest that stops between region A and region B leaves record k in A alone; the next boot writes k
//! to B first and then goes on with k + 1, so that the numbers have no gap.

mod configuration;
mod journal;
mod progress;
mod regions;
mod reporter;
mod server;
mod verification;

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

pub use configuration::{Configuration, ConfigurationError};
use progress::Progress;

/// Where the guest finds its configuration.
pub const CONFIGURATION_PATH: &str = "/etc/farshore-guest.conf";

/// How the workload is called by the guest's first process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Invocation {
    configuration: PathBuf,
    region_a: PathBuf,
    region_b: PathBuf,
    journal: PathBuf,
    file_system_check: String,
}

/// Why the workload cannot run.
#[derive(Debug, thiserror::Error)]
enum WorkloadError {
    #[error(
        "usage: guest-workload --configuration F --region-a D --region-b D --journal DIR --file-system-check N"
    )]
    Usage,
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    #[error("cannot read the random numbers of the kernel")]
    Random(#[source] io::Error),
    #[error("cannot listen on port 80")]
    Listen(#[source] io::Error),
}

/// Runs the workload until the process is ended from outside; returns only if it cannot run.
///
/// `arguments` are those after the executable's name and whatever led here.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Err(error) = run(arguments);
    let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
    // There is nobody left to tell if the console is gone.
    let _ = writeln!(io::stderr(), "ERROR {error}{cause}");
    ExitCode::FAILURE
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<std::convert::Infallible, WorkloadError> {
    let invocation = Invocation::parse(arguments).ok_or(WorkloadError::Usage)?;
    let configuration = Configuration::read(&invocation.configuration)?;
    let run = random_number().map_err(WorkloadError::Random)?;
    let found = verification::verify(&invocation, &configuration);
    let progress = Arc::new(Progress::starting_from(&found.verdict));

    let listener = server::listen().map_err(WorkloadError::Listen)?;
    server::start(listener, &configuration.hostname, &found.verdict, &progress);
    reporter::start(&found.verdict, &progress);
    let maker = regions::RecordMaker {
        run,
        guest: configuration.guest,
    };
    if found.regions_are_exact && configuration.records_per_second > 0 {
        let writer = regions::RegionWriter::new(&invocation, maker, &found.verdict);
        let pace = Pace::per_second(configuration.records_per_second);
        let progress = Arc::clone(&progress);
        thread::spawn(move || writer.write_for_ever(pace, &progress));
    }
    if let Some(journal) = found
        .journal
        .filter(|_| configuration.journal_records_per_second > 0)
    {
        let pace = Pace::per_second(configuration.journal_records_per_second);
        let progress = Arc::clone(&progress);
        thread::spawn(move || journal.append_for_ever(maker, pace, &progress));
    }
    loop {
        thread::park();
    }
}

impl Invocation {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut values: [Option<OsString>; 5] = Default::default();
        let mut arguments = arguments.into_iter();
        while let Some(name) = arguments.next() {
            let [configuration, region_a, region_b, journal, check] = &mut values;
            let value = match name.to_str()? {
                "--configuration" => configuration,
                "--region-a" => region_a,
                "--region-b" => region_b,
                "--journal" => journal,
                "--file-system-check" => check,
                _ => return None,
            };
            *value = Some(arguments.next()?);
        }
        let [configuration, region_a, region_b, journal, check] = values;
        Some(Self {
            configuration: configuration?.into(),
            region_a: region_a?.into(),
            region_b: region_b?.into(),
            journal: journal?.into(),
            file_system_check: check?.into_string().ok()?,
        })
    }
}

/// A number that no other boot or image has.
pub(crate) fn random_number() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Spreads work evenly over time; what was missed is not made up for.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    fn per_second(count: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / count.max(1),
            next: Instant::now(),
        }
    }

    fn wait(&mut self) {
        let now = Instant::now();
        thread::sleep(self.next.saturating_duration_since(now));
        self.next = self.next.max(now) + self.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Invocation> {
        Invocation::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn an_invocation_needs_every_argument_and_knows_no_other() {
        let whole = "--configuration c --region-a a --region-b b --journal j --file-system-check 0";
        assert_eq!(parse(whole).unwrap().region_b, PathBuf::from("b"));
        assert_eq!(
            parse("--configuration c --region-a a --region-b b --journal j"),
            None
        );
        assert_eq!(parse(&format!("{whole} --other x")), None);
        assert_eq!(parse(&format!("{whole} --region-a")), None);
    }
}
