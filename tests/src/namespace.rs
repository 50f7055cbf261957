//! Network namespaces of a lab, made and removed with `ip`.

use std::{fs::File, os::fd::AsFd, panic::resume_unwind, process::Command, thread};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace that goes with the value.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes it, with its loopback up.
    #[must_use]
    pub fn create(name: &str) -> Self {
        ip(&["netns", "add", name]);
        let made = Self {
            name: name.to_owned(),
        };
        made.ip(&["link", "set", "lo", "up"]);
        made
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it.
    pub fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.name], arguments].concat());
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is left of it shows in the next test that counts namespaces.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

/// Runs `ip`.
///
/// # Panics
/// When it fails, with what it said.
pub fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Does something inside a namespace, on a thread of its own: that one changes its namespace, and ends with it.
///
/// # Panics
/// When there is no such namespace, or what is done panics.
pub fn inside<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/run/netns/{name}")).unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Every network namespace that has a name.
#[must_use]
pub fn names() -> Vec<String> {
    let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}
