//! The demo's parts: the orchestrator and the two replicators, each a process of this executable at its site.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use farshore_guest::{HostTool, accelerator::Accelerator};
use serde::Serialize;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};

use super::{
    layout::{Layout, Site},
    on_file,
    patience::until,
};

/// How long a part may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How much of a part's log goes into an error.
const LOG_LINES_TOLD: usize = 8;

/// One part.
#[derive(Debug)]
pub(super) struct Part {
    name: String,
    child: Child,
    log: PathBuf,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OrchestratorFile {
    listen: SocketAddr,
    http_listen: SocketAddr,
    state_directory: PathBuf,
    insecure: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReplicatorFile {
    name: String,
    site: &'static str,
    state_directory: PathBuf,
    orchestrator: String,
    http_listen: SocketAddr,
    accelerator: &'static str,
    insecure: bool,
    #[serde(flatten)]
    role: Role,
}

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Role {
    Source {
        scratch_directory: PathBuf,
    },
    Target {
        replication_listen: SocketAddr,
        advertise: String,
        vault_directory: PathBuf,
        recovery_directory: PathBuf,
    },
}

/// Starts the orchestrator, at west.
pub(super) async fn start_orchestrator(layout: &Layout) -> anyhow::Result<Part> {
    let file = OrchestratorFile {
        listen: layout.orchestrator(),
        http_listen: layout.orchestrator_http(),
        state_directory: layout.part_directory("orchestrator"),
        insecure: true,
    };
    on_file(
        fs::create_dir(&file.state_directory),
        "create",
        &file.state_directory,
    )?;
    start(
        layout,
        Site::West,
        "orchestrator",
        "orchestrator",
        layout.orchestrator(),
        &file,
    )
    .await
}

/// Starts a site's replicator: the source at east, the target at west.
pub(super) async fn start_replicator(
    layout: &Layout,
    site: Site,
    accelerator: Accelerator,
) -> anyhow::Result<Part> {
    let name = format!("{}-1", site.name());
    let own = layout.replicator(site);
    let role = match site {
        Site::East => Role::Source {
            scratch_directory: own.join("scratch"),
        },
        Site::West => Role::Target {
            replication_listen: layout.replication(),
            advertise: format!("http://{}", layout.replication()),
            vault_directory: layout.vault(),
            recovery_directory: layout.recovery(),
        },
    };
    let file = ReplicatorFile {
        name: name.clone(),
        site: site.name(),
        state_directory: own.join("state"),
        orchestrator: format!("http://{}", layout.orchestrator()),
        http_listen: layout.replicator_http(site),
        accelerator: accelerator.name(),
        insecure: true,
        role,
    };
    for directory in ["state", "scratch", "recovery"] {
        let directory = own.join(directory);
        on_file(fs::create_dir_all(&directory), "create", &directory)?;
    }
    start(
        layout,
        site,
        &name,
        "replicator",
        layout.replicator_http(site),
        &file,
    )
    .await
}

async fn start(
    layout: &Layout,
    site: Site,
    name: &str,
    verb: &str,
    listens: SocketAddr,
    configuration: &impl Serialize,
) -> anyhow::Result<Part> {
    let path = layout.directory().join(format!("{name}.yaml"));
    on_file(
        fs::write(&path, serde_yaml::to_string(configuration)?),
        "write",
        &path,
    )?;
    let log_path = layout.log(name);
    let log = on_file(File::create(&log_path), "create", &log_path)?;
    let errors = on_file(log.try_clone(), "use", &log_path)?;
    let child = Command::new(HostTool::Nsenter.find()?)
        .arg(format!("--net=/run/netns/{}", layout.namespace(site)))
        .arg("--")
        .arg(std::env::current_exe().context("this executable has no path")?)
        .args([verb, "--config"])
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        // Ctrl-C at the terminal is the demo's: it ends its parts itself, or leaves them running.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let mut part = Part {
        name: name.to_owned(),
        child,
        log: log_path,
    };
    part.until_it_listens(listens).await?;
    Ok(part)
}

impl Part {
    /// Ends it at once, without a word.
    pub(super) async fn kill9(&mut self) -> anyhow::Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("cannot kill {}", self.name))
    }

    async fn until_it_listens(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let what = format!("the start of {}", self.name);
        let (child, name, log) = (&mut self.child, &self.name, &self.log);
        let mut look = move || -> anyhow::Result<()> {
            if let Some(status) = child.try_wait()? {
                bail!(
                    "{name} ended at once ({status}); its log ends with:\n{}",
                    end_of(log)
                );
            }
            Ok(())
        };
        until(&what, START_LIMIT, || {
            let alive = look();
            async move {
                alive?;
                Ok(TcpStream::connect(address).await.ok())
            }
        })
        .await
        .map(drop)
    }
}

fn end_of(log: &std::path::Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES_TOLD);
    lines.get(from..).unwrap_or_default().join("\n")
}
