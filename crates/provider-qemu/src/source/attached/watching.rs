//! Whether the disks are still as they were left: nobody put something between a device and its data, took a bitmap
//! away, or changed a size.
//!
//! It is asked right before an instant, because the wrapper is then pointed at a filter on the data that we know: had
//! someone put another node there meanwhile (an overlay, a job's filter), the guest would lose what lies in it. Every job
//! and snapshot does put a node there, so that this look sees it.

use farshore_blocks::ByteCount;
use farshore_provider::SourceError;

use super::Attached;
use crate::source::{
    answers::{BlockGraph, BlockNode},
    form::CaptureForm,
    hypervisor::Hypervisor,
    listing::ListedDisk,
    machine::Status,
    naming::NodeRole,
    survey::{graph_question, named_nodes_question, status_question},
};

/// How many jobs' filters may lie on one another above a disk.
const MOST_JOBS: usize = 8;

/// What was seen of one disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watched {
    /// How many bytes the bitmap counts that records between captures.
    pub(super) dirty: u64,
    /// How long it is now.
    pub(super) size: ByteCount,
    /// How long its device believes it to be.
    pub(super) seen_by_device: ByteCount,
}

impl Attached {
    /// Looks at every disk, in one write.
    pub(super) async fn watch(&self) -> Result<Vec<Watched>, SourceError> {
        let questions = [status_question(), graph_question(), named_nodes_question()];
        let mut answers = self.hypervisor.ask_all(&questions).await.into_iter();
        let [status, graph, nodes] = &questions;
        let status: Status = self.hypervisor.read(&status.name, answers.next())?;
        let graph: BlockGraph = self.hypervisor.read(&graph.name, answers.next())?;
        let nodes: Vec<BlockNode> = self.hypervisor.read(&nodes.name, answers.next())?;
        if let Some(why) = status.disks_elsewhere() {
            return Err(self.hypervisor.unfit(why));
        }
        let bitmap = self.current_bitmap();
        self.disks
            .iter()
            .map(|disk| {
                self.refuse_strangers((&graph, &nodes), disk)?;
                let node = nodes.iter().find(|node| node.node_name == disk.data);
                let wrapper = nodes.iter().find(|node| node.node_name == disk.wrapper);
                self.refuse_changed(disk, (node, wrapper), bitmap.as_deref())
            })
            .collect()
    }

    /// Right before the wrappers are switched back: what the filters lie on must be the data that they are switched to.
    pub(super) async fn refuse_moved_data(&self) -> Result<(), SourceError> {
        let question = graph_question();
        let answer = self
            .hypervisor
            .ask_all(std::slice::from_ref(&question))
            .await
            .pop();
        let graph: BlockGraph = self.hypervisor.read(&question.name, answer)?;
        self.disks.iter().try_for_each(|disk| {
            let filter = NodeRole::Filter.node(disk.index);
            refuse_moved(&self.hypervisor, &graph, &filter, disk)
        })
    }

    /// Between the device and its data there must be the wrapper and nothing else, but for jobs above it; where there are
    /// no wrappers, nothing at all.
    fn refuse_strangers(
        &self,
        (graph, nodes): (&BlockGraph, &[BlockNode]),
        disk: &ListedDisk,
    ) -> Result<(), SourceError> {
        let (top, most_jobs) = match self.form {
            CaptureForm::Filter => {
                refuse_moved(&self.hypervisor, graph, &disk.wrapper, disk)?;
                (&disk.wrapper, MOST_JOBS)
            }
            CaptureForm::Copy => (&disk.data, 0),
        };
        if serves_device(graph, nodes, top, most_jobs) {
            return Ok(());
        }
        Err(self.hypervisor.unfit(format!(
            "the device of disk `{}` was given another node, or another tool's job runs; it is looked at anew",
            disk.name
        )))
    }

    /// A disk that shrank or lost its bitmap is not the one that was judged.
    fn refuse_changed(
        &self,
        disk: &ListedDisk,
        (node, wrapper): (Option<&BlockNode>, Option<&BlockNode>),
        bitmap: Option<&str>,
    ) -> Result<Watched, SourceError> {
        let known = self.known_size(disk.index);
        let length = |node: Option<&BlockNode>| ByteCount(node.map_or(0, |node| node.image.virtual_size));
        let size = length(node);
        if size < known {
            return Err(self.hypervisor.unfit(format!(
                "disk `{}` was {known} long and is {size} now; a disk under protection may grow, but not shrink",
                disk.name
            )));
        }
        let mut bitmaps = node.into_iter().flat_map(|node| &node.dirty_bitmaps);
        let recording = bitmaps.find(|found| Some(found.name.as_str()) == bitmap && found.recording);
        recording.map_or_else(
            || {
                Err(self.hypervisor.tracking_lost(format!(
                    "the bitmap of disk `{}` was removed or stopped by someone else",
                    disk.name
                )))
            },
            |bitmap| {
                Ok(Watched {
                    dirty: bitmap.count,
                    size,
                    seen_by_device: length(wrapper),
                })
            },
        )
    }
}

/// `above` must still lie on the data that is known.
fn refuse_moved(
    hypervisor: &Hypervisor,
    graph: &BlockGraph,
    above: &str,
    disk: &ListedDisk,
) -> Result<(), SourceError> {
    let below = graph.file_of(above);
    if below == Some(disk.data.as_str()) {
        return Ok(());
    }
    Err(hypervisor.unfit(format!(
        "disk `{}` now lies on `{}` instead of `{}`: a snapshot was taken, or another tool's job runs; it is looked at \
         anew",
        disk.name,
        below.unwrap_or("nothing"),
        disk.data
    )))
}

/// Whether a device uses this node, perhaps through filters of jobs.
fn serves_device(graph: &BlockGraph, nodes: &[BlockNode], name: &str, most_jobs: usize) -> bool {
    graph.users_of(name).into_iter().any(|(user, usage)| {
        let node = nodes.iter().find(|node| node.node_name == user);
        let of_job = node.is_some_and(BlockNode::is_job_filter) && matches!(usage, "file" | "backing");
        let rest = most_jobs.checked_sub(1).filter(|_| of_job);
        usage == "root" || rest.is_some_and(|rest| serves_device(graph, nodes, user, rest))
    })
}
