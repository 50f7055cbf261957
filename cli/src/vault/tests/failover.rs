//! A failover that cannot be done fences nobody; one that was superseded starts nothing. What it does when all goes
//! well is a scenario with a real VM.

use std::{path::PathBuf, time::Duration};

use farshore_blocks::{ChainId, Epoch, HolderNonce, Sequence};
use farshore_provider::{NetworkAttachment, RecoveryId};
use farshore_vault::{Vault, VaultReader};
use tokio::time::timeout;

use super::{CHAIN, Fixture, fixture};
use crate::{
    exit::CliError,
    vault::failover::{
        fence::{FencedBy, fence},
        record::{FailoverRecord, RecordFile, Tenure},
    },
};

const LIMIT: Duration = Duration::from_secs(30);
const NOBODY_ELSE: HolderNonce = HolderNonce::from_bytes([8; 16]);

impl Fixture {
    fn fail_over(&self, more: &[&str]) -> Result<(), CliError> {
        let into = self.path("f");
        let named = ["failover", "web", "--into", into.to_str().unwrap()];
        self.run(&[&named, more].concat())
    }

    fn epoch(&self) -> Epoch {
        let reader = VaultReader::open(&self.path("vault")).unwrap();
        reader.current_epoch(CHAIN).unwrap().unwrap()
    }

    /// As if the chain was failed over before, from its first point, with this epoch.
    fn was_failed_over(&self, epoch: Epoch) {
        let id = RecoveryId::new("web-07070707").unwrap();
        let record = FailoverRecord {
            vault: self.path("vault").canonicalize().unwrap(),
            chain: CHAIN,
            vm: "web".to_owned(),
            holder: epoch.holder,
            tenure: Some(Tenure {
                epoch,
                sequence: Sequence(1),
                network: NetworkAttachment::Bubble { name: id.clone() },
            }),
        };
        let file = RecordFile::take(&self.path("f"), &id).unwrap();
        file.save(&record).unwrap();
    }
}

#[test]
fn a_point_that_cannot_become_a_vm_fences_nobody() {
    let at = fixture();
    let before = at.epoch();
    let error = at.fail_over(&["--isolated"]).unwrap_err().describe();
    assert!(error.contains("machine specification of point 2"), "{error}");
    let error = at
        .fail_over(&["--isolated", "--point", "9"])
        .unwrap_err()
        .describe();
    assert!(error.contains("no point 9"), "{error}");
    assert_eq!(at.epoch(), before);
}

#[test]
fn recovered_vms_are_not_kept_in_the_vault() {
    let at = fixture();
    let inside = at.path("vault/f/deeper");
    let arguments = ["failover", "web", "--into", inside.to_str().unwrap()];
    let error = at.run(&arguments).unwrap_err();
    assert_eq!(error.exit_status(), 2, "{}", error.describe());
    assert!(!at.path("vault/f").exists());
}

#[test]
fn a_failover_whose_chain_was_granted_to_somebody_since_starts_nothing() {
    let at = fixture();
    let epoch = at.epoch();
    at.was_failed_over(Epoch {
        number: epoch.number,
        holder: NOBODY_ELSE,
    });
    let error = at.fail_over(&[]).unwrap_err();
    assert_eq!(error.exit_status(), 3);
    assert!(error.describe().contains("somebody else"), "{}", error.describe());
    assert_eq!(at.epoch(), epoch);
}

#[test]
fn a_failover_that_was_made_is_not_made_into_another_one() {
    let at = fixture();
    at.was_failed_over(at.epoch());
    for other in [&["--point", "2"][..], &["--bridge", "br9"]] {
        let error = at.fail_over(other).unwrap_err();
        assert_eq!(error.exit_status(), 3, "{other:?}");
        assert!(
            error.describe().contains("to point 1 already"),
            "{}",
            error.describe()
        );
    }
}

#[test]
fn what_contradicts_itself_is_refused_as_it_is_read() {
    let at = fixture();
    for arguments in [
        &["failover"][..],
        &["failover", "web", "--bridge", "a", "--isolated"],
        &["failover", "web", "--stop", "--discard"],
        &["failover", "web", "--stop", "--point", "1"],
        &["failover", "web", "--discard", "--bridge", "a"],
    ] {
        assert!(at.parse(arguments).is_err(), "{arguments:?}");
    }
    assert!(
        at.parse(&["failover", "web", "--isolated", "--point", "latest"])
            .is_ok()
    );
    assert_eq!(at.fail_over(&["--stop"]).unwrap_err().exit_status(), 1);
}

#[tokio::test]
async fn a_vault_that_nobody_has_open_is_opened_for_the_fence_and_closed_again() {
    let at = fixture();
    let (vault, before): (PathBuf, _) = (at.path("vault"), at.epoch());
    for _ in 0..2 {
        let fenced = fence(&vault, CHAIN, NOBODY_ELSE).await.unwrap();
        assert_eq!(fenced.by, FencedBy::ThisCommand);
        assert_eq!(fenced.epoch, at.epoch());
        assert_eq!(
            fenced.epoch.number,
            before.number + 1,
            "the same holder keeps its epoch"
        );
    }
    drop(Vault::open(&vault).unwrap());
    let unknown = fence(&vault, ChainId::from_bytes([1; 16]), NOBODY_ELSE).await;
    assert!(unknown.unwrap_err().describe().contains("has no chain"));
}

#[tokio::test]
async fn a_vault_that_becomes_free_is_fenced_though_its_holder_never_answered() {
    let at = fixture();
    let path = at.path("vault");
    let vault = Vault::open(&path).unwrap();
    let asked = tokio::spawn({
        let path = path.clone();
        async move { fence(&path, CHAIN, NOBODY_ELSE).await }
    });
    let requests = path.join("requests");
    let placed = async {
        while std::fs::read_dir(&requests).map_or(0, Iterator::count) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, placed).await.unwrap();
    drop(vault);
    let fenced = asked.await.unwrap().unwrap();
    assert_eq!((fenced.by, fenced.epoch), (FencedBy::ThisCommand, at.epoch()));
    assert_eq!(
        std::fs::read_dir(requests).unwrap().count(),
        0,
        "the request is withdrawn"
    );
}
