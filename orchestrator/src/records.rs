//! Decides what each record of the store looks like, and how several of them change together.
//!
//! A record is a JSON document in an envelope that names its schema. A [`Work`] is a decision under way: it
//! remembers the version of all that it has read, so that it is made only if none of that has changed since;
//! [`transact`] decides anew when it has.

mod announcement;
mod answer;
mod event;
mod test;
mod vm;

use std::collections::BTreeMap;

use farshore_domain::{
    declaration::{Declaration, DeclarationSet, Kind, Name, ProtectedVm, ReplicationPolicy, Site},
    job::Job,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use answer::{Answer, AnswerRecord, Applied, AppliedEffect};
pub use event::{EventRecord, Severity, events_newest_first};
pub use test::{LeakRecord, Leftovers, TestRecord};
pub use vm::{
    CheckOutcome, CheckRecord, InterruptionTold, PointsSeen, Recovery, Started, Tenure, VaultTold, VmRecord,
    VolumeRecord,
};

use crate::store::{Change, CommitError, Expected, Key, Store, StoreError, Stored, Transaction};

/// The only schema of records so far.
const SCHEMA: u32 = 1;
/// How often a decision is made anew because others changed what it had read. Each time somebody made headway.
const MAX_DECISIONS: usize = 100;

/// Something that the store keeps under a kind and a name.
pub trait Record: Serialize + DeserializeOwned {
    /// Its kind.
    const KIND: &'static str;

    /// Its name, unique within the kind.
    fn name(&self) -> String;
}

impl Record for Declaration {
    const KIND: &'static str = "declared";

    fn name(&self) -> String {
        declared_name(self.kind(), self.name().as_str())
    }
}

impl Record for Job {
    const KIND: &'static str = "job";

    fn name(&self) -> String {
        self.id.0.clone()
    }
}

#[derive(Serialize)]
struct Sealed<'a, R> {
    schema: u32,
    record: &'a R,
}

#[derive(Deserialize)]
struct Opened<R> {
    schema: u32,
    record: R,
}

/// The record of this name, as it is durable now.
///
/// # Errors
/// When it cannot be read.
pub fn read<R: Record>(store: &dyn Store, name: &str) -> Result<Option<R>, StoreError> {
    let key = Key::new(R::KIND, name);
    store.read(&key).map(|stored| open(&key, &stored)).transpose()
}

/// All records of a kind, in order of their names, as they are durable now.
///
/// # Errors
/// When one cannot be read.
pub fn list<R: Record>(store: &dyn Store) -> Result<Vec<R>, StoreError> {
    store
        .list(&format!("{}/", R::KIND))
        .iter()
        .map(|(key, stored)| open(key, stored))
        .collect()
}

/// All that is declared, as it is durable now.
///
/// # Errors
/// When a record cannot be read.
pub fn declared(store: &dyn Store) -> Result<DeclarationSet, StoreError> {
    Ok(list::<Declaration>(store)?.into_iter().collect())
}

fn open<R: Record>(key: &Key, stored: &Stored) -> Result<R, StoreError> {
    let refused = |message: String| StoreError::Record {
        key: key.to_string(),
        message,
    };
    let opened: Opened<R> =
        serde_json::from_slice(&stored.document).map_err(|error| refused(error.to_string()))?;
    if opened.schema != SCHEMA {
        return Err(refused(format!(
            "it has schema {}, this version knows {SCHEMA}",
            opened.schema
        )));
    }
    Ok(opened.record)
}

fn seal<R: Record>(key: &Key, record: &R) -> Result<Vec<u8>, StoreError> {
    let sealed = Sealed {
        schema: SCHEMA,
        record,
    };
    serde_json::to_vec(&sealed).map_err(|error| StoreError::Record {
        key: key.to_string(),
        message: error.to_string(),
    })
}

fn declared_name(kind: Kind, name: &str) -> String {
    format!("{kind}/{name}")
}

/// A decision under way.
pub struct Work<'a> {
    store: &'a dyn Store,
    seen: BTreeMap<Key, Expected>,
    changes: BTreeMap<Key, Change>,
    log: Vec<Vec<u8>>,
}

impl<'a> Work<'a> {
    fn begin(store: &'a dyn Store) -> Self {
        Self {
            store,
            seen: BTreeMap::new(),
            changes: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    /// The record of this name, with what this decision has changed of it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn get<R: Record>(&mut self, name: &str) -> Result<Option<R>, StoreError> {
        let key = Key::new(R::KIND, name);
        match self.changes.get(&key) {
            Some(Change::Put(document)) => {
                let stored = Stored {
                    version: crate::store::Revision::default(),
                    document: document.clone(),
                };
                return open(&key, &stored).map(Some);
            }
            Some(Change::Remove) => return Ok(None),
            Some(Change::Keep) | None => {}
        }
        let stored = self.look(&key);
        stored.map(|stored| open(&key, &stored)).transpose()
    }

    /// All records of a kind as they are durable now. The decision does not depend on there being no others.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn list<R: Record>(&self) -> Result<Vec<R>, StoreError> {
        list(self.store)
    }

    /// Writes a record.
    ///
    /// # Errors
    /// When it cannot be written as a document.
    pub fn put<R: Record>(&mut self, record: &R) -> Result<(), StoreError> {
        let key = Key::new(R::KIND, &record.name());
        let document = seal(&key, record)?;
        self.look(&key);
        self.changes.insert(key, Change::Put(document));
        Ok(())
    }

    /// Removes a record.
    pub fn remove<R: Record>(&mut self, name: &str) {
        let key = Key::new(R::KIND, name);
        self.look(&key);
        self.changes.insert(key, Change::Remove);
    }

    /// Adds to the log of what happened.
    ///
    /// # Errors
    /// When it cannot be written as a document.
    pub fn tell(&mut self, event: &EventRecord) -> Result<(), StoreError> {
        self.log.push(event::seal(event)?);
        Ok(())
    }

    /// What is declared of this VM, its policy and its target site; absent if the VM is not declared.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn declared_vm(&mut self, name: &str) -> Result<Option<ProtectedVm>, StoreError> {
        let found = self.get::<Declaration>(&declared_name(Kind::ProtectedVm, name))?;
        Ok(found.and_then(|declaration| match declaration {
            Declaration::ProtectedVm(vm) => Some(vm),
            Declaration::Site(_) | Declaration::ReplicationPolicy(_) | Declaration::ConsistencyGroup(_) => {
                None
            }
        }))
    }

    fn look(&mut self, key: &Key) -> Option<Stored> {
        let stored = self.store.read(key);
        let expected = stored
            .as_ref()
            .map_or(Expected::Absent, |stored| Expected::Version(stored.version));
        // The first look counts: a later one that differs makes the commit fail, as it should.
        self.seen.entry(key.clone()).or_insert(expected);
        stored
    }

    fn into_transaction(self) -> Transaction {
        let mut transaction = Transaction::new();
        for (key, change) in self.changes {
            let expected = self.seen.get(&key).copied().unwrap_or(Expected::Absent);
            match change {
                Change::Put(document) => transaction.put(key, expected, document),
                Change::Remove => transaction.remove(key, expected),
                Change::Keep => transaction.depend(key, expected),
            }
        }
        for (key, expected) in self.seen {
            transaction.depend(key, expected);
        }
        for document in self.log {
            transaction.log(document);
        }
        transaction
    }
}

/// Decides and makes the decision durable; decides anew while others change what it has read. A decision that
/// changes nothing writes nothing.
///
/// # Errors
/// What `decide` refuses, or a store that cannot be used.
pub async fn transact<T, E: From<StoreError>>(
    store: &dyn Store,
    mut decide: impl FnMut(&mut Work<'_>) -> Result<T, E>,
) -> Result<T, E> {
    for _ in 0..MAX_DECISIONS {
        let (answer, transaction) = {
            let mut work = Work::begin(store);
            let answer = decide(&mut work)?;
            (answer, work.into_transaction())
        };
        if transaction.is_empty() {
            return Ok(answer);
        }
        match store.commit(transaction).await {
            Ok(_revision) => return Ok(answer),
            Err(CommitError::Conflict { .. }) => {}
            Err(CommitError::NoRoom(error) | CommitError::Broken(error)) => return Err(error.into()),
        }
    }
    Err(StoreError::Contended.into())
}

/// What a decision would answer, without making it.
///
/// # Errors
/// What `decide` refuses.
pub fn preview<T, E>(store: &dyn Store, decide: impl FnOnce(&mut Work<'_>) -> Result<T, E>) -> Result<T, E> {
    decide(&mut Work::begin(store))
}

/// What is declared of this VM, as it is durable now.
///
/// # Errors
/// When a record cannot be read.
pub fn declared_vm(store: &dyn Store, name: &str) -> Result<Option<ProtectedVm>, StoreError> {
    Work::begin(store).declared_vm(name)
}

/// A declared site, as it is durable now.
///
/// # Errors
/// When a record cannot be read.
pub fn declared_site(store: &dyn Store, name: &Name) -> Result<Option<Site>, StoreError> {
    let found = read::<Declaration>(store, &declared_name(Kind::Site, name.as_str()))?;
    Ok(found.and_then(|declaration| match declaration {
        Declaration::Site(site) => Some(site),
        Declaration::ReplicationPolicy(_)
        | Declaration::ProtectedVm(_)
        | Declaration::ConsistencyGroup(_) => None,
    }))
}

/// A declared policy, as it is durable now.
///
/// # Errors
/// When a record cannot be read.
pub fn declared_policy(store: &dyn Store, name: &Name) -> Result<Option<ReplicationPolicy>, StoreError> {
    let found = read::<Declaration>(store, &declared_name(Kind::ReplicationPolicy, name.as_str()))?;
    Ok(found.and_then(|declaration| match declaration {
        Declaration::ReplicationPolicy(policy) => Some(policy),
        Declaration::Site(_) | Declaration::ProtectedVm(_) | Declaration::ConsistencyGroup(_) => None,
    }))
}

/// Puts a declaration in place.
///
/// # Errors
/// When it cannot be written.
pub fn declare(work: &mut Work<'_>, declaration: &Declaration) -> Result<(), StoreError> {
    work.put(declaration)?;
    advance_declarations(work)
}

/// Takes a declaration away.
///
/// # Errors
/// When a record cannot be read.
pub fn undeclare(work: &mut Work<'_>, kind: Kind, name: &str) -> Result<(), StoreError> {
    work.remove::<Declaration>(&declared_name(kind, name));
    advance_declarations(work)
}

/// All that is declared, for a decision that holds only as long as none of it changes.
///
/// # Errors
/// When a record cannot be read.
pub fn all_declared(work: &mut Work<'_>) -> Result<DeclarationSet, StoreError> {
    work.get::<Declarations>(Declarations::NAME)?;
    Ok(work.list::<Declaration>()?.into_iter().collect())
}

/// Counts the changes of declarations, because some rules look at all of them together.
#[derive(Serialize, Deserialize)]
struct Declarations {
    changes: u64,
}

impl Declarations {
    const NAME: &'static str = "declarations";
}

impl Record for Declarations {
    const KIND: &'static str = "meta";

    fn name(&self) -> String {
        Self::NAME.to_owned()
    }
}

fn advance_declarations(work: &mut Work<'_>) -> Result<(), StoreError> {
    let before = work.get::<Declarations>(Declarations::NAME)?;
    let changes = before.map_or(0, |before| before.changes).saturating_add(1);
    work.put(&Declarations { changes })
}
