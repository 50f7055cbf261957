//! A monitor of a VM that Farshore does not know: through it a test asks QEMU what is there.

use std::path::PathBuf;

use farshore_qmp::{ConnectOptions, Monitor};
use serde_json::{Value, json};

/// A socket of a QMP monitor. It is connected for one question at a time.
#[derive(Debug)]
pub struct SpareMonitor(pub PathBuf);

impl SpareMonitor {
    /// Runs a QMP command.
    ///
    /// # Panics
    /// When QEMU refuses it.
    #[must_use]
    pub fn ask(&self, command: &str, arguments: Value) -> Value {
        self.try_ask(command, arguments)
            .unwrap_or_else(|refused| panic!("{refused}"))
    }

    /// Everything of Farshore that is at the VM: block nodes, bitmaps, exports, jobs, and the NBD server.
    #[must_use]
    pub fn traces(&self) -> Vec<String> {
        let mut traces = self.nodes_and_bitmaps();
        for (command, key) in [("query-block-exports", "id"), ("query-jobs", "id")] {
            let listed = self.ask(command, Value::Null);
            let ids = listed.as_array().unwrap().iter().map(|one| one[key].to_string());
            traces.extend(ids);
        }
        // Two can not run at once, so that one of ours would refuse this one.
        let path = self.0.with_extension("probe");
        let address = json!({"addr": {"type": "unix", "data": {"path": path}}});
        match self.try_ask("nbd-server-start", address) {
            Ok(_) => drop(self.ask("nbd-server-stop", Value::Null)),
            Err(refused) => traces.push(refused),
        }
        traces
    }

    /// Block nodes and bitmaps of Farshore; a bitmap of several nodes as often as there are nodes.
    #[must_use]
    pub fn nodes_and_bitmaps(&self) -> Vec<String> {
        let nodes = self.ask("query-named-block-nodes", json!({"flat": true}));
        let mut found = Vec::new();
        for node in nodes.as_array().unwrap() {
            let bitmaps = node["dirty-bitmaps"].as_array().into_iter().flatten();
            let names = bitmaps.map(|bitmap| &bitmap["name"]).chain([&node["node-name"]]);
            let names = names.filter_map(Value::as_str).filter(|name| is_ours(name));
            found.extend(names.map(str::to_owned));
        }
        found
    }

    /// As [`Self::ask`].
    ///
    /// # Errors
    /// When QEMU refuses it, with its words.
    pub fn try_ask(&self, command: &str, arguments: Value) -> Result<Value, String> {
        self.connected(async |monitor| {
            let answer = monitor.execute(command, arguments.clone()).await;
            answer.map_err(|error| error.to_string())
        })
    }

    fn connected<T>(&self, ask: impl AsyncFn(Monitor) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let options = ConnectOptions::default();
            ask(Monitor::connect(&self.0, options).await.unwrap()).await
        })
    }
}

fn is_ours(name: &str) -> bool {
    name.starts_with("fs-") || name.starts_with("farshore.")
}
