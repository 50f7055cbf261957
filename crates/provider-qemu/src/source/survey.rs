//! Asks the hypervisor for everything that concerns capture.

use farshore_provider::{MachineSpecification, SourceError};
use farshore_qmp::Command;
use serde_json::{Value, json};

use super::{
    answers::{Answers, BlockGraph, BlockNode},
    hypervisor::Hypervisor,
    listing::{self, Listing, device_path},
    misfit::Misfit,
};

/// Whether the hypervisor's I/O threads are looked for: they do not change while a VM runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// At the beginning.
    Full,
    /// Between captures.
    Again,
}

/// What there is, and which disks cannot be captured.
pub(crate) async fn survey(
    hypervisor: &Hypervisor,
    machine: &MachineSpecification,
    depth: Depth,
) -> Result<(Listing, Vec<Misfit>), SourceError> {
    let mut answers = ask(hypervisor).await?;
    if depth == Depth::Full {
        for disk in &machine.disks {
            if has_iothread(hypervisor, &disk.device).await? {
                answers.with_iothread.push(disk.device.clone());
            }
        }
    }
    Ok(listing::read(&answers, machine, hypervisor.version()))
}

/// As [`survey`], for who needs every disk to be fit.
pub(crate) async fn survey_fit(
    hypervisor: &Hypervisor,
    machine: &MachineSpecification,
    depth: Depth,
) -> Result<Listing, SourceError> {
    let (listing, misfits) = survey(hypervisor, machine, depth).await?;
    if misfits.is_empty() {
        return Ok(listing);
    }
    let reasons: Vec<_> = misfits.iter().map(ToString::to_string).collect();
    Err(hypervisor.unfit(reasons.join("; ")))
}

/// The block nodes, with their sizes and bitmaps.
pub(crate) async fn block_nodes(hypervisor: &Hypervisor) -> Result<Vec<BlockNode>, SourceError> {
    hypervisor
        .query("query-named-block-nodes", json!({"flat": true}))
        .await
}

/// The block nodes, and who uses whom.
pub(crate) async fn nodes_in_graph(
    hypervisor: &Hypervisor,
) -> Result<(BlockGraph, Vec<BlockNode>), SourceError> {
    let questions = [graph_question(), named_nodes_question()];
    let mut answers = hypervisor.ask_all(&questions).await.into_iter();
    let [graph, nodes] = &questions;
    Ok((
        hypervisor.read(&graph.name, answers.next())?,
        hypervisor.read(&nodes.name, answers.next())?,
    ))
}

async fn ask(hypervisor: &Hypervisor) -> Result<Answers, SourceError> {
    let questions = [
        Command::new("query-block", Value::Null),
        named_nodes_question(),
        graph_question(),
        Command::new("query-block-exports", Value::Null),
        Command::new("query-jobs", Value::Null),
    ];
    let mut answers = hypervisor.ask_all(&questions).await.into_iter();
    let [devices, nodes, graph, exports, jobs] = &questions;
    Ok(Answers {
        devices: hypervisor.read(&devices.name, answers.next())?,
        nodes: hypervisor.read(&nodes.name, answers.next())?,
        graph: hypervisor.read(&graph.name, answers.next())?,
        exports: hypervisor.read(&exports.name, answers.next())?,
        jobs: hypervisor.read(&jobs.name, answers.next())?,
        with_iothread: Vec::new(),
    })
}

/// Asks whether the VM runs.
pub(crate) fn status_question() -> Command {
    Command::new("query-status", Value::Null)
}

/// Asks for the block nodes.
pub(crate) fn named_nodes_question() -> Command {
    Command::new("query-named-block-nodes", json!({"flat": true}))
}

/// Asks who uses which block node.
pub(crate) fn graph_question() -> Command {
    Command::new("x-debug-query-block-graph", Value::Null)
}

/// Of the device itself, or of the controller that it hangs on.
async fn has_iothread(hypervisor: &Hypervisor, device: &str) -> Result<bool, SourceError> {
    let path = device_path(device);
    if names_iothread(hypervisor, &path).await? {
        return Ok(true);
    }
    let Some(bus) = property(hypervisor, &path, "parent_bus").await? else {
        return Ok(false);
    };
    // Like `/machine/peripheral/controller/virtio-backend/controller.0`.
    let controller = bus
        .strip_prefix("/machine/peripheral/")
        .and_then(|rest| rest.split('/').next());
    match controller {
        Some(controller) => names_iothread(hypervisor, &device_path(controller)).await,
        None => Ok(false),
    }
}

async fn names_iothread(hypervisor: &Hypervisor, path: &str) -> Result<bool, SourceError> {
    let thread = property(hypervisor, path, "iothread").await?;
    if thread.is_some_and(|thread| !thread.is_empty()) {
        return Ok(true);
    }
    let mapping = property_value(hypervisor, path, "iothread-vq-mapping").await?;
    Ok(mapping.is_some_and(|mapping| mapping.as_array().is_some_and(|queues| !queues.is_empty())))
}

async fn property(hypervisor: &Hypervisor, path: &str, name: &str) -> Result<Option<String>, SourceError> {
    let value = property_value(hypervisor, path, name).await?;
    Ok(value.as_ref().and_then(Value::as_str).map(str::to_owned))
}

/// A property of an object; `None` if there is no such object or property.
pub(crate) async fn property_value(
    hypervisor: &Hypervisor,
    path: &str,
    name: &str,
) -> Result<Option<Value>, SourceError> {
    match hypervisor
        .query("qom-get", json!({"path": path, "property": name}))
        .await
    {
        Ok(value) => Ok(Some(value)),
        Err(SourceError::Refused { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}
