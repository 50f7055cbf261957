//! The story in its order. Each chapter is a file; what goes on from one to the next is [`Stage`].

mod disaster;
mod opening;
mod protection;
mod rehearsal;

use farshore_guest::accelerator::Accelerator;
use tokio_util::task::TaskTracker;

use super::{
    guests::Guest,
    layout::Layout,
    narrator::Narrator,
    network::Ip,
    processes::Part,
    report::{Report, Verdicts},
};
use crate::client::Client;

/// What is to be told.
#[derive(Debug)]
pub(super) struct Story {
    layout: Layout,
    narrator: Narrator,
    accelerator: Accelerator,
    /// Work that cannot be interrupted; whoever cleans up waits for it.
    blocking: TaskTracker,
}

/// What stands on it once it was opened.
#[derive(Debug)]
struct Stage {
    story: Story,
    client: Client,
    guests: Vec<Guest>,
    east_replicator: Part,
    /// Held so that they are waited for when they end; they are ended by the cleanup.
    _others: [Part; 2],
    verdicts: Verdicts,
}

impl Story {
    /// A story of which nothing was told yet.
    pub(super) fn new(
        layout: Layout,
        narrator: Narrator,
        accelerator: Accelerator,
        blocking: TaskTracker,
    ) -> Self {
        Self {
            layout,
            narrator,
            accelerator,
            blocking,
        }
    }

    /// Tells all of it.
    pub(super) async fn tell(self) -> anyhow::Result<Report> {
        let mut stage = opening::tell(self).await?;
        protection::tell(&stage).await?;
        let test_failover = rehearsal::tell(&mut stage).await?;
        let unplanned_failover = disaster::tell(&mut stage).await?;
        Ok(Report {
            accelerator: stage.story.accelerator.name().to_owned(),
            verdicts: stage.verdicts.0,
            test_failover,
            unplanned_failover,
            duration_seconds: stage.story.narrator.seconds(),
            left_behind: None,
            kept: None,
        })
    }
}

impl Stage {
    fn tell(&self, text: &str) {
        self.story.narrator.tell(text);
    }

    fn ip(&self) -> Ip {
        Ip(self.story.blocking.clone())
    }

    fn judge(&mut self, name: impl Into<String>, held: bool, found: impl Into<String>) {
        let line = self.verdicts.add(name, held, found);
        self.tell(&line);
    }
}
