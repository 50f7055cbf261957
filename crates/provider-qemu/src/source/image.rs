//! A disk's image, read beside the QEMU that writes it, by a process of its own (`qemu-nbd`, read-only, without a lock).
//!
//! So live disks are read where a client of the VM's own QEMU could harm it. What is read is as good as a read of the
//! live disk: of what tracking knew before nothing is missed, because QEMU was made to write its metadata down before the
//! image is opened, and whatever changes later, bytes or where they lie, is a change that tracking records and a later
//! round reads again. Each capture opens the image anew for that reason.
//!
//! Crash story: the process ends when its one client goes, however that goes. One whose client never came is ended by
//! the next attachment, which finds its socket; the export's name is in the socket's.

mod plain;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use farshore_blocks::VolumeIndex;
use farshore_nbd::{Client, ClientError};
use farshore_provider::SourceError;
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

pub(crate) use plain::NotPlain;

use super::{
    answers::{BlockGraph, BlockNode},
    export::SECRET_DIGITS,
    hypervisor::Hypervisor,
    scratch::ScratchDirectory,
};

const PROGRAM: &str = "qemu-nbd";

/// How long it may take to open an image and listen.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// Between two looks whether it listens.
const START_POLL: Duration = Duration::from_millis(5);

/// How long it may take to end when its client has gone.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Longer than any chain of backing files that works.
const DEEPEST_CHAIN: usize = 200;

/// An image and how it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// As `blockdev-add` would have it, but read-only and without a lock.
    options: Value,
    /// Whether the host's page cache is gone past, as the VM's QEMU does.
    direct: bool,
}

/// Why a node's image cannot be opened beside its QEMU.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ImageFault {
    #[error("QEMU does not say what node `{node}` is made of")]
    Unknown { node: String },
    #[error("its image `{file}` is named relative to where QEMU runs; start it with an absolute path")]
    Relative { file: String },
}

impl Image {
    /// The image of this node, by what QEMU says of it and of all below it.
    pub(crate) fn of(node: &str, graph: &BlockGraph, nodes: &[BlockNode]) -> Result<Self, ImageFault> {
        let mut options = options(node, graph, nodes, DEEPEST_CHAIN)?;
        if let Some(file) = relative_file(&options) {
            return Err(ImageFault::Relative { file });
        }
        if let Some(fields) = options.as_object_mut() {
            fields.insert("read-only".to_owned(), true.into());
            fields.insert("force-share".to_owned(), true.into());
        }
        let protocol = graph.file_of(node).unwrap_or(node);
        let direct = nodes
            .iter()
            .any(|found| found.node_name == protocol && found.cache.direct);
        Ok(Self { options, direct })
    }
}

fn options(name: &str, graph: &BlockGraph, nodes: &[BlockNode], deepest: usize) -> Result<Value, ImageFault> {
    let unknown = || ImageFault::Unknown {
        node: name.to_owned(),
    };
    let node = nodes.iter().find(|node| node.node_name == name);
    let node = node.filter(|_| deepest > 0).ok_or_else(unknown)?;
    if let Some(whole) = node.file.strip_prefix("json:") {
        return serde_json::from_str(whole).map_err(|_| unknown());
    }
    let children = graph.children_of(name);
    if children.is_empty() {
        return Ok(json!({"driver": node.driver, "filename": node.file}));
    }
    let mut whole = json!({"driver": node.driver});
    let fields = whole.as_object_mut().ok_or_else(unknown)?;
    if node.driver == "qcow2" {
        // Unless it has one: then what the image itself names is not looked for.
        fields.insert("backing".to_owned(), Value::Null);
    }
    for (role, child) in children {
        fields.insert(role.to_owned(), options(child, graph, nodes, deepest - 1)?);
    }
    Ok(whole)
}

fn relative_file(options: &Value) -> Option<String> {
    let fields = options.as_object()?;
    let own = fields.get("filename").and_then(Value::as_str);
    let of_protocol = matches!(
        fields.get("driver").and_then(Value::as_str),
        Some("file" | "host_device")
    );
    match own {
        Some(file) if of_protocol && !file.starts_with('/') => Some(file.to_owned()),
        Some(_) | None => fields.values().find_map(relative_file),
    }
}

/// An image that is being served to us.
pub(crate) struct ImageServer {
    client: Client,
    process: Child,
    socket: PathBuf,
}

impl ImageServer {
    /// Opens the image and connects to it.
    pub(crate) async fn start(
        hypervisor: &Hypervisor,
        scratch: &ScratchDirectory,
        (index, image): (VolumeIndex, &Image),
        contexts: &[&str],
    ) -> Result<Self, SourceError> {
        let mut secret = Uuid::new_v4().simple().to_string();
        secret.truncate(SECRET_DIGITS);
        let socket = scratch.image_socket(index, &secret);
        let mut process = Command::new(PROGRAM)
            .arg("--read-only")
            .arg(if image.direct { "--cache=none" } else { "--cache=writeback" })
            .arg("--export-name")
            .arg(&secret)
            .arg("--socket")
            .arg(&socket)
            .arg(format!("json:{}", image.options))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A signal to our group is for us.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| hypervisor.unfit(format!("`{PROGRAM}` cannot be run: {error}")))?;
        let connected = connect(&mut process, &socket, &secret, contexts).await;
        match connected {
            Ok(client) => Ok(Self {
                client,
                process,
                socket,
            }),
            Err(why) => {
                drop(std::fs::remove_file(&socket));
                Err(hypervisor.unfit(format!("the image of volume {index} cannot be read: {why}")))
            }
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Closes the connection, at which the process ends.
    pub(crate) async fn disconnect(mut self) {
        self.client.disconnect().await;
        if timeout(END_TIMEOUT, self.process.wait()).await.is_err() {
            drop(self.process.kill().await);
        }
        drop(std::fs::remove_file(&self.socket));
    }
}

async fn connect(
    process: &mut Child,
    socket: &Path,
    secret: &str,
    contexts: &[&str],
) -> Result<Client, String> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match Client::connect_unix(socket, secret, contexts).await {
            Ok(client) => return Ok(client),
            Err(ClientError::Dial { .. }) if Instant::now() < deadline => {}
            Err(error) => return Err(error.to_string()),
        }
        if let Ok(Some(status)) = process.try_wait() {
            let mut words = String::new();
            if let Some(mut told) = process.stderr.take() {
                drop(told.read_to_string(&mut words).await);
            }
            return Err(format!("`{PROGRAM}` ended with {status}: {}", words.trim()));
        }
        sleep(START_POLL).await;
    }
}

/// Ends processes whose client never came: each ends with its first client, which we are.
pub(crate) async fn end_left_over(scratch: &ScratchDirectory) {
    for (socket, secret) in scratch.image_sockets().await {
        if let Ok(client) = Client::connect_unix(&socket, &secret, &[]).await {
            client.disconnect().await;
        }
        drop(std::fs::remove_file(&socket));
    }
}

#[cfg(test)]
mod tests;
