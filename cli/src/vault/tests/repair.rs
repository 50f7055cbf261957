//! `vault repair`.

use farshore_vault::{Unlimited, verify};

use super::*;

/// A vault whose points are in the index on disk, and the runs of that.
fn with_runs() -> (Fixture, Vec<PathBuf>) {
    let at = fixture();
    let path = at.directory.path().join("vault");
    let vault = Vault::open(&path).unwrap();
    vault.maintain(CHAIN, &mut Unlimited).unwrap();
    let runs = path.join("chains").join(CHAIN.to_string()).join("runs");
    let runs: Vec<_> = fs::read_dir(runs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(!runs.is_empty());
    (at, runs)
}

fn repair(at: &Fixture) -> Result<(), CliError> {
    let path = at.directory.path().join("vault");
    let arguments = ["vault", "repair", path.to_str().unwrap()];
    run(CommandLine::try_parse_from(arguments).unwrap().verb)
}

#[test]
fn a_lost_index_is_made_again() {
    let (at, runs) = with_runs();
    let path = at.directory.path().join("vault");
    repair(&at).unwrap();
    assert!(
        runs.iter().all(|run| run.exists()),
        "what is sound is left as it is"
    );
    runs.iter().for_each(|run| fs::remove_file(run).unwrap());
    assert!(!verify(&path, |_| ()).unwrap().is_clean());
    repair(&at).unwrap();
    assert!(verify(&path, |_| ()).unwrap().is_clean());
    let reader = VaultReader::open(&path).unwrap();
    for (point, disks) in reader.points(CHAIN).unwrap().iter().zip(&at.points) {
        let opened = reader.open_point(CHAIN, point.sequence).unwrap();
        for (volume, disk) in (0..).zip(disks) {
            let mut bytes = vec![0xee; disk.len()];
            opened
                .read_at(VolumeIndex(volume), ByteOffset(0), &mut bytes)
                .unwrap();
            assert!(bytes == *disk, "point {} reads wrong", point.sequence);
        }
    }
}

#[test]
fn what_cannot_be_made_again_is_told_of() {
    let (at, runs) = with_runs();
    runs.iter().for_each(|run| fs::remove_file(run).unwrap());
    let segments = runs[0].parent().unwrap().with_file_name("segments");
    let segment = fs::read_dir(segments).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, &bytes[..bytes.len() - 4096]).unwrap();
    let refused = repair(&at).unwrap_err();
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(
        matches!(&refused, CliError::Failed { message, reason } if message.contains(name) && reason == "not-repaired"),
        "{refused:?}"
    );
}

#[test]
fn a_vault_that_somebody_writes_is_left_to_its_writer() {
    let (at, _) = with_runs();
    let _vault = Vault::open(&at.directory.path().join("vault")).unwrap();
    let refused = repair(&at).unwrap_err();
    assert!(
        matches!(&refused, CliError::Refused { reason, .. } if reason == "vault-open"),
        "{refused:?}"
    );
}
