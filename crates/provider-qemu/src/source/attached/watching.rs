//! Whether the disks are still as they were left: nobody put something between a device and its data, took a bitmap
//! away, or changed a size.
//!
//! It is asked right before an instant, because the wrapper is then pointed at a filter on the data that we know: had
//! someone put another node there meanwhile (an overlay, a job's filter), the guest would lose what lies in it. Every job
//! and snapshot does put a node there, so that this look sees it.

use farshore_provider::SourceError;

use super::Attached;
use crate::source::{
    answers::{BlockGraph, BlockNode},
    hypervisor::Hypervisor,
    listing::ListedDisk,
    naming::NodeRole,
    survey::{graph_question, named_nodes_question},
};

/// What was seen of one disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watched {
    /// How many bytes the bitmap counts that records between captures.
    pub(super) dirty: u64,
}

impl Attached {
    /// Looks at every disk, in one write and two answers.
    pub(super) async fn watch(&self) -> Result<Vec<Watched>, SourceError> {
        let (graph_question, nodes_question) = (graph_question(), named_nodes_question());
        let asked = [graph_question.clone(), nodes_question.clone()];
        let mut answers = self.hypervisor.ask_all(&asked).await.into_iter();
        let graph: BlockGraph = self.hypervisor.read(&graph_question.name, answers.next())?;
        let nodes: Vec<BlockNode> = self.hypervisor.read(&nodes_question.name, answers.next())?;
        let bitmap = self.current_bitmap();
        self.disks
            .iter()
            .map(|disk| {
                refuse_strangers(&self.hypervisor, &graph, disk)?;
                let node = nodes.iter().find(|node| node.node_name == disk.data);
                self.refuse_changed(disk, node, bitmap.as_deref())
            })
            .collect()
    }

    /// A disk that was resized or lost its bitmap is not the one that was judged.
    fn refuse_changed(
        &self,
        disk: &ListedDisk,
        node: Option<&BlockNode>,
        bitmap: Option<&str>,
    ) -> Result<Watched, SourceError> {
        if node.map(|node| node.image.virtual_size) != Some(disk.size.0) {
            return Err(self.hypervisor.unfit(format!(
                "disk `{}` was {} long and is so no more; a disk's size must not change under protection",
                disk.name, disk.size
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
            |bitmap| Ok(Watched { dirty: bitmap.count }),
        )
    }
}

/// Between the device and its data there must be the wrapper and nothing else.
fn refuse_strangers(
    hypervisor: &Hypervisor,
    graph: &BlockGraph,
    disk: &ListedDisk,
) -> Result<(), SourceError> {
    let wrapper = NodeRole::Wrapper.node(disk.index);
    let below = graph.file_of(&wrapper);
    if below != Some(disk.data.as_str()) {
        let stranger = below.unwrap_or("nothing");
        return Err(hypervisor.unfit(format!(
            "disk `{}` now lies on `{stranger}` instead of `{}`: a snapshot was taken, or another tool's job runs; it \
             is looked at anew",
            disk.name, disk.data
        )));
    }
    if !graph.is_root(&wrapper) {
        return Err(hypervisor.unfit(format!(
            "the device of disk `{}` was given another node; it is looked at anew",
            disk.name
        )));
    }
    Ok(())
}
