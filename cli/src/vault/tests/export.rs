//! Exported images are the disks at the point, and whole.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::{CHAIN, Fixture, fixture};
use crate::exit::CliError;

impl Fixture {
    fn export(&self, to: &Path, options: &[&str]) -> Result<(), CliError> {
        self.export_of("web", to, options)
    }

    fn export_of(&self, subject: &str, to: &Path, options: &[&str]) -> Result<(), CliError> {
        let named = ["export", subject, to.to_str().unwrap()];
        self.run(&[&named, options].concat())
    }

    /// Everything in the fixture's directory beside the vault.
    fn beside_the_vault(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into()).collect();
        names.retain(|name: &PathBuf| name.to_str() != Some("vault"));
        names.sort();
        names
    }
}

#[test]
fn an_export_is_the_disk_at_the_point_and_as_sparse() {
    let at = fixture();
    for (point, expected) in [
        ("1", &at.points[0]),
        ("latest", &at.points[1]),
        ("latest-app-consistent", &at.points[0]),
        ("2023-11-14T22:13:21Z", &at.points[0]),
    ] {
        for (volume, disk) in ["root", "data"].iter().zip(expected) {
            let to = at.path(&format!("{volume}-{point}.raw"));
            at.export(&to, &["--point", point, "--volume", volume]).unwrap();
            assert!(fs::read(&to).unwrap() == *disk, "{volume} of point {point}");
            let allocated = fs::metadata(to).unwrap().blocks() * 512;
            assert!(allocated < 256 * 1024, "{allocated} bytes allocated");
        }
    }
}

#[test]
fn every_volume_goes_into_a_directory_if_none_is_named() {
    let at = fixture();
    let to = at.path("images/web");
    at.export_of(&CHAIN.to_string(), &to, &[]).unwrap();
    for (name, disk) in ["root", "data"].iter().zip(&at.points[1]) {
        assert!(
            fs::read(to.join(format!("{name}.raw"))).unwrap() == *disk,
            "{name}"
        );
    }
    assert_eq!(fs::read_dir(&to).unwrap().count(), 2);
    let refused = at.export(&to, &["--volume", "root"]).unwrap_err();
    assert_eq!(refused.exit_status(), 2, "{}", refused.describe());
}

#[test]
fn an_export_as_qcow2_holds_the_same() {
    let at = fixture();
    let to = at.path("images");
    at.export(&to, &["--format", "qcow2"]).unwrap();
    for (name, disk) in ["root", "data"].iter().zip(&at.points[1]) {
        let (raw, qcow2) = (at.path("raw"), to.join(format!("{name}.qcow2")));
        fs::write(&raw, disk).unwrap();
        let compared = Command::new("qemu-img")
            .args(["compare", "-f", "raw", "-F", "qcow2"])
            .args([&raw, &qcow2])
            .output()
            .unwrap();
        assert!(compared.status.success(), "{compared:?}");
        let length = fs::metadata(&qcow2).unwrap().len();
        assert!(length < 1024 * 1024, "{length} bytes");
    }
    assert_eq!(fs::read_dir(&to).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn an_export_overwrites_only_if_that_is_said() {
    let at = fixture();
    let to = at.path("there");
    fs::write(&to, "mine").unwrap();
    let refused = at.export(&to, &["--volume", "root"]).unwrap_err();
    assert_eq!(refused.exit_status(), 3);
    assert!(refused.describe().contains("--force"), "{}", refused.describe());
    assert_eq!(fs::read_to_string(&to).unwrap(), "mine");
    at.export(&to, &["--volume", "root", "--force"]).unwrap();
    assert!(fs::read(&to).unwrap() == at.points[1][0]);
    // One of several that is there keeps all of them from being written.
    fs::create_dir(at.path("images")).unwrap();
    fs::write(at.path("images/data.raw"), "mine").unwrap();
    assert_eq!(at.export(&at.path("images"), &[]).unwrap_err().exit_status(), 3);
    assert_eq!(fs::read_dir(at.path("images")).unwrap().count(), 1);
}

#[test]
fn a_failed_export_leaves_nothing_and_says_where_the_damage_is() {
    let at = fixture();
    at.damage();
    for format in ["raw", "qcow2"] {
        let options = ["--volume", "root", "--format", format];
        let error = at.export(&at.path("root"), &options).unwrap_err();
        assert!(
            error
                .describe()
                .contains("volume 0 of point 2 cannot be read at 0x100000"),
            "{format}: {}",
            error.describe()
        );
        assert_eq!(error.exit_status(), 1);
        assert!(at.beside_the_vault().is_empty(), "{:?}", at.beside_the_vault());
    }
    // What was whole does not take its name alone, either.
    fs::create_dir(at.path("images")).unwrap();
    let _ = at.export(&at.path("images"), &[]).unwrap_err();
    assert_eq!(fs::read_dir(at.path("images")).unwrap().count(), 0);
}
