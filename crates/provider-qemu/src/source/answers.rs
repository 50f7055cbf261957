//! What the hypervisor answers to queries, field by field; what is not needed here is passed over.

use serde::Deserialize;

/// One of `query-block`: a device and the node that it uses.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct BlockDevice {
    /// Where the device is, by path or by identifier.
    pub(crate) qdev: Option<String>,
    /// Its medium.
    pub(crate) inserted: Option<BlockNode>,
}

/// One of `query-named-block-nodes`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct BlockNode {
    #[serde(default)]
    pub(crate) node_name: String,
    #[serde(rename = "drv")]
    pub(crate) driver: String,
    #[serde(rename = "ro")]
    pub(crate) read_only: bool,
    pub(crate) image: Image,
    /// A file's name, or the options that would open the same again, with `json:` before them.
    #[serde(default)]
    pub(crate) file: String,
    #[serde(default)]
    pub(crate) cache: Cache,
    #[serde(default)]
    pub(crate) dirty_bitmaps: Vec<DirtyBitmap>,
}

/// How a node uses the host's page cache.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) struct Cache {
    /// Not at all.
    pub(crate) direct: bool,
}

/// What a node holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Image {
    #[serde(default)]
    pub(crate) filename: String,
    /// In bytes.
    pub(crate) virtual_size: u64,
    pub(crate) format_specific: Option<FormatSpecific>,
}

/// What only one format has.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct FormatSpecific {
    #[serde(default)]
    pub(crate) data: FormatDetail,
}

/// Of qcow2: which revision. Only the later one can keep bitmaps.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct FormatDetail {
    pub(crate) compat: Option<String>,
}

/// A dirty bitmap.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DirtyBitmap {
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) recording: bool,
    #[serde(default)]
    pub(crate) inconsistent: bool,
    /// Dirty bytes.
    pub(crate) count: u64,
}

/// The answer of `x-debug-query-block-graph`.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct BlockGraph {
    pub(crate) nodes: Vec<GraphNode>,
    pub(crate) edges: Vec<GraphEdge>,
}

/// A node, a device's backend or a job.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct GraphNode {
    pub(crate) id: u64,
    pub(crate) name: String,
}

/// Who uses whom, and as what.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct GraphEdge {
    pub(crate) parent: u64,
    pub(crate) child: u64,
    pub(crate) name: String,
}

impl BlockGraph {
    /// The node that `parent` has as its file.
    pub(crate) fn file_of(&self, parent: &str) -> Option<&str> {
        let id = self.nodes.iter().find(|node| node.name == parent)?.id;
        let edge = self
            .edges
            .iter()
            .find(|edge| edge.parent == id && edge.name == "file")?;
        let child = self.nodes.iter().find(|node| node.id == edge.child)?;
        Some(&child.name)
    }

    /// The nodes below this one, and as what it has them.
    pub(crate) fn children_of(&self, parent: &str) -> Vec<(&str, &str)> {
        let Some(node) = self.nodes.iter().find(|node| node.name == parent) else {
            return Vec::new();
        };
        let edges = self.edges.iter().filter(|edge| edge.parent == node.id);
        let child = |edge: &GraphEdge| self.nodes.iter().find(|node| node.id == edge.child);
        edges
            .filter_map(|edge| Some((edge.name.as_str(), child(edge)?.name.as_str())))
            .collect()
    }

    /// Who uses this node, and as what: devices and jobs, too.
    pub(crate) fn users_of(&self, name: &str) -> Vec<(&str, &str)> {
        let Some(node) = self.nodes.iter().find(|node| node.name == name) else {
            return Vec::new();
        };
        let edges = self.edges.iter().filter(|edge| edge.child == node.id);
        let user = |edge: &GraphEdge| self.nodes.iter().find(|node| node.id == edge.parent);
        edges
            .filter_map(|edge| Some((user(edge)?.name.as_str(), edge.name.as_str())))
            .collect()
    }
}

/// One of `query-block-exports` or `query-jobs`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Identified {
    pub(crate) id: String,
}

/// Nodes that jobs put on a disk while they run; they go by themselves.
const JOB_FILTERS: [&str; 4] = ["mirror_top", "commit_top", "copy-before-write", "copy-on-read"];

impl BlockNode {
    /// Whether a job put it there. A filter of ours is one, too, by this alone.
    pub(crate) fn is_job_filter(&self) -> bool {
        JOB_FILTERS.contains(&self.driver.as_str())
    }
}

/// All that is needed to judge leftovers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    pub(crate) devices: Vec<BlockDevice>,
    pub(crate) nodes: Vec<BlockNode>,
    pub(crate) graph: BlockGraph,
    pub(crate) exports: Vec<Identified>,
    pub(crate) jobs: Vec<Identified>,
    /// The devices that an I/O thread serves, by identifier.
    pub(crate) with_iothread: Vec<String>,
}
