//! `demo`: the whole story on this machine. Two sites in network namespaces of their own, real virtual machines,
//! a rehearsal, a disaster and a recovery, judged by a witness that nobody of the story can talk to.
//!
//! Whatever ends the story (its end, a failure, Ctrl-C), everything that it made is removed and looked for again:
//! see [`cleanup`]. What it made is known by two names only, the directory's and the identifier's, so that nothing has
//! to be remembered and a demo that was killed can be removed by the next (`--stop`).

mod arguments;
mod cleanup;
mod enclosed;
mod guests;
mod judging;
mod layout;
mod manifests;
mod narrator;
mod network;
mod patience;
mod preflight;
mod processes;
mod report;
mod story;

use std::io;

use anyhow::Context;
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::task::TaskTracker;

pub(crate) use arguments::DemoArguments;
pub(crate) use enclosed::{ExchangeArguments, run as exchange};

use self::{layout::Layout, narrator::Narrator, report::Report, story::Story};
use crate::{exit::CliError, output};

/// How a story ended.
enum Ending {
    /// It was told to its end; the verdicts are in the report.
    Told(Box<Report>),
    /// Something went wrong.
    Broken(anyhow::Error),
    /// Somebody had enough.
    Interrupted,
}

/// Tells the story, or removes what an earlier one left.
pub(crate) async fn run(arguments: DemoArguments) -> Result<(), CliError> {
    if let Some(directory) = &arguments.stop {
        return stop(Layout::of_directory(directory)?).await;
    }
    let _only = preflight::check()?;
    let accelerator = arguments.accelerator.choose();
    let signals = signals()?;
    let layout = Layout::new(arguments.dir.as_deref())?;
    let narrator = Narrator::new(arguments.json);
    let blocking = TaskTracker::new();
    let story = Story::new(layout.clone(), narrator.clone(), accelerator, blocking.clone());

    let ending = until_end_or_signal(story, signals).await;
    // A guest that is being built or started cannot be interrupted; what it makes has to be there to be removed.
    blocking.close();
    blocking.wait().await;
    conclude(ending, &arguments, &layout, &narrator).await
}

async fn until_end_or_signal(story: Story, mut signals: [Signal; 3]) -> Ending {
    let [interrupt, terminate, hangup] = &mut signals;
    // A task of its own, so that even a panic in it is followed by the cleanup.
    let mut telling = tokio::spawn(story.tell());
    select! {
        told = &mut telling => return match told {
            Ok(Ok(report)) => Ending::Told(Box::new(report)),
            Ok(Err(error)) => Ending::Broken(error),
            Err(error) => Ending::Broken(error.into()),
        },
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    telling.abort();
    // Whether it was cancelled or had just ended does not matter any more.
    let _ = telling.await;
    Ending::Interrupted
}

/// From now on these end the story, and not the process.
fn signals() -> anyhow::Result<[Signal; 3]> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    Ok([
        listen(SignalKind::interrupt())?,
        listen(SignalKind::terminate())?,
        listen(SignalKind::hangup())?,
    ])
}

async fn conclude(
    ending: Ending,
    arguments: &DemoArguments,
    layout: &Layout,
    narrator: &Narrator,
) -> Result<(), CliError> {
    match ending {
        Ending::Told(mut report) => {
            if arguments.keep {
                report.kept = Some(layout.directory().to_owned());
            } else {
                narrator.chapter("Cleaning up");
                report.left_behind = Some(cleanup::remove(layout).await);
            }
            if arguments.json {
                output::answer(&output::json(&*report)?)?;
            }
            narrator.plain(&report.table());
            if arguments.keep {
                narrator.plain(&report::what_to_try(layout));
            }
            report.outcome()
        }
        Ending::Broken(error) => {
            narrator.chapter("Something went wrong; cleaning up");
            let left = cleanup::remove(layout).await;
            Err(CliError::Part(error.context(told_left("the demo failed", &left))))
        }
        Ending::Interrupted => {
            narrator.chapter("Interrupted; cleaning up");
            let left = cleanup::remove(layout).await;
            Err(CliError::Part(anyhow::anyhow!(told_left(
                "the demo was interrupted",
                &left
            ))))
        }
    }
}

async fn stop(layout: Layout) -> Result<(), CliError> {
    let left = cleanup::remove(&layout).await;
    if left.is_empty() {
        return output::answer(&format!(
            "{} and everything of it is removed",
            layout.directory().display()
        ));
    }
    Err(CliError::Part(anyhow::anyhow!(told_left(
        "the demo could not be removed",
        &left
    ))))
}

fn told_left(what: &str, left: &[String]) -> String {
    if left.is_empty() {
        format!("{what}; nothing is left behind")
    } else {
        format!("{what}; left behind: {}", left.join(", "))
    }
}

/// Names the file and the deed of an input or output error.
fn on_file<T>(done: io::Result<T>, action: &str, path: &std::path::Path) -> anyhow::Result<T> {
    done.with_context(|| format!("cannot {action} {}", path.display()))
}
