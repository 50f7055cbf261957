//! The VM's hypervisor as the source speaks to it: commands whose failures are the source's errors.

use std::{path::Path, time::Duration};

use farshore_provider::SourceError;
use farshore_qmp::{Command, ConnectOptions, DEFAULT_COMMAND_TIMEOUT, Event, Monitor, QmpError, Version};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::broadcast;

/// For commands that drain or flush a disk: they wait for the guest's writes in flight.
pub(crate) const DRAINING_COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the monitor may take to greet: its main loop may be busy with a drain.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connected hypervisor.
#[derive(Debug)]
pub(crate) struct Hypervisor {
    vm: String,
    monitor: Monitor,
}

impl Hypervisor {
    /// The one behind this monitor.
    pub(crate) async fn at(monitor: &Path, vm: String) -> Result<Self, SourceError> {
        let options = ConnectOptions {
            timeout: CONNECT_TIMEOUT,
        };
        match Monitor::connect(monitor, options).await {
            Ok(monitor) => Ok(Self { vm, monitor }),
            Err(error) => Err(SourceError::Monitor {
                vm,
                source: Box::new(error),
            }),
        }
    }

    pub(crate) fn vm(&self) -> &str {
        &self.vm
    }

    pub(crate) fn version(&self) -> Version {
        self.monitor.version()
    }

    /// The hypervisor's process, as far as the kernel tells.
    pub(crate) fn process(&self) -> Option<i32> {
        self.monitor.listener()
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.monitor.subscribe()
    }

    /// Runs a command whose return value does not matter.
    pub(crate) async fn run(&self, command: &str, arguments: Value) -> Result<(), SourceError> {
        self.run_all(&[Command::new(command, arguments)]).await
    }

    /// Runs a command and reads what it returned.
    pub(crate) async fn query<T: DeserializeOwned>(
        &self,
        command: &str,
        arguments: Value,
    ) -> Result<T, SourceError> {
        let asked = [Command::new(command, arguments)];
        self.read(command, self.ask_all(&asked).await.pop())
    }

    /// Runs several commands in one write. QEMU does not stop at one that it refuses, so that what follows must be
    /// harmless then; the first failure is the error.
    pub(crate) async fn run_all(&self, commands: &[Command]) -> Result<(), SourceError> {
        let answers = self
            .monitor
            .execute_pipelined(commands, DRAINING_COMMAND_TIMEOUT)
            .await;
        let mut each = commands.iter().zip(answers);
        each.try_for_each(|(command, answer)| match answer {
            Ok(_) => Ok(()),
            Err(error) => Err(self.error(&command.name, error)),
        })
    }

    /// Runs several commands in one write, which may drain or flush; gives what each returned.
    pub(crate) async fn run_each(&self, commands: &[Command]) -> Result<Vec<Value>, SourceError> {
        let answers = self
            .monitor
            .execute_pipelined(commands, DRAINING_COMMAND_TIMEOUT)
            .await;
        let each = commands.iter().zip(answers);
        each.map(|(command, answer)| answer.map_err(|error| self.error(&command.name, error)))
            .collect()
    }

    /// Runs several queries in one write; their answers come in order, to be taken by [`Hypervisor::read`].
    pub(crate) async fn ask_all(&self, commands: &[Command]) -> Vec<Result<Value, QmpError>> {
        self.monitor
            .execute_pipelined(commands, DEFAULT_COMMAND_TIMEOUT)
            .await
    }

    /// What a query returned, as this type.
    pub(crate) fn read<T: DeserializeOwned>(
        &self,
        command: &str,
        answer: Option<Result<Value, QmpError>>,
    ) -> Result<T, SourceError> {
        let value = match answer {
            Some(Ok(value)) => value,
            Some(Err(error)) => return Err(self.error(command, error)),
            None => Value::Null,
        };
        serde_json::from_value(value).map_err(|source| SourceError::Monitor {
            vm: self.vm.clone(),
            source: Box::new(source),
        })
    }

    pub(crate) fn unfit(&self, why: impl Into<String>) -> SourceError {
        SourceError::Unfit {
            vm: self.vm.clone(),
            why: why.into(),
        }
    }

    pub(crate) fn tracking_lost(&self, why: impl Into<String>) -> SourceError {
        SourceError::TrackingLost {
            vm: self.vm.clone(),
            why: why.into(),
        }
    }

    fn error(&self, command: &str, error: QmpError) -> SourceError {
        let vm = self.vm.clone();
        match error {
            QmpError::Refused { .. } => SourceError::Refused {
                vm,
                command: command.to_owned(),
                source: Box::new(error),
            },
            QmpError::Connect { .. }
            | QmpError::NoGreeting { .. }
            | QmpError::Greeting { .. }
            | QmpError::Timeout { .. }
            | QmpError::Closed { .. } => SourceError::Monitor {
                vm,
                source: Box::new(error),
            },
        }
    }
}
