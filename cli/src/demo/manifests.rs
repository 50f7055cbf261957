//! The declarations of the demo: those of `examples/quickstart`, in which only what depends on this machine is put in its
//! place (the monitors' paths, and the disks that the demo's guests have).

use std::{fs, path::PathBuf};

use anyhow::{Context, anyhow, bail};
use serde_yaml::Value;

use super::{layout::Layout, on_file};

const FILES: [(&str, &str); 3] = [
    (
        "sites.yaml",
        include_str!("../../../examples/quickstart/sites.yaml"),
    ),
    (
        "policy.yaml",
        include_str!("../../../examples/quickstart/policy.yaml"),
    ),
    ("vms.yaml", include_str!("../../../examples/quickstart/vms.yaml")),
];

/// The disks of every guest: name and device, in the order in which it was started with them.
const GUEST_DISKS: [(&str, &str); 2] = [("root", "vdroot"), ("data", "vddata")];

/// A VM that the examples protect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeclaredVm {
    /// Its name.
    pub(super) name: String,
    /// The address of its network card.
    pub(super) mac_address: String,
}

/// The VMs, in their order.
pub(super) fn declared_vms() -> anyhow::Result<Vec<DeclaredVm>> {
    let mut vms = Vec::new();
    for (_, text) in FILES {
        for document in documents(text)? {
            if is_vm(&document) {
                vms.push(DeclaredVm {
                    name: text_at(&document, &["metadata", "name"])?,
                    mac_address: text_at(&document, &["spec", "machine", "nics", "0", "mac"])?,
                });
            }
        }
    }
    Ok(vms)
}

/// The declarations for this machine, one text a file.
pub(super) fn for_this_machine(layout: &Layout) -> anyhow::Result<Vec<(&'static str, String)>> {
    FILES
        .into_iter()
        .map(|(file, text)| Ok((file, adapted(text, layout)?)))
        .collect()
}

/// Writes them into the demo's directory; gives that directory.
pub(super) fn write(layout: &Layout) -> anyhow::Result<PathBuf> {
    let directory = layout.part_directory("quickstart");
    on_file(fs::create_dir(&directory), "create", &directory)?;
    for (file, text) in for_this_machine(layout)? {
        let path = directory.join(file);
        on_file(fs::write(&path, text), "write", &path)?;
    }
    Ok(directory)
}

fn adapted(text: &str, layout: &Layout) -> anyhow::Result<String> {
    let mut documents = documents(text)?;
    if !documents.iter().any(is_vm) {
        return Ok(text.to_owned());
    }
    for document in documents.iter_mut().filter(|document| is_vm(document)) {
        let name = text_at(document, &["metadata", "name"])?;
        let monitor = layout.vms_directory().join(format!("{name}.qmp"));
        let source = document.get_mut("spec").and_then(|spec| spec.get_mut("source"));
        put(source, "monitor", Value::String(monitor.display().to_string()))?;
        let machine = document.get_mut("spec").and_then(|spec| spec.get_mut("machine"));
        put(machine, "disks", disks())?;
    }
    let texts = documents
        .iter()
        .map(serde_yaml::to_string)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(texts.join("---\n"))
}

fn disks() -> Value {
    let disk = |(name, device): (&str, &str)| {
        let pairs = [("name", name), ("device", device)];
        Value::Mapping(
            pairs
                .into_iter()
                .map(|(key, value)| (Value::from(key), Value::from(value)))
                .collect(),
        )
    };
    Value::Sequence(GUEST_DISKS.into_iter().map(disk).collect())
}

fn put(mapping: Option<&mut Value>, key: &str, value: Value) -> anyhow::Result<()> {
    let Some(mapping) = mapping.and_then(Value::as_mapping_mut) else {
        bail!("an example has no place for `{key}`");
    };
    mapping.insert(Value::from(key), value);
    Ok(())
}

fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let documents = serde_yaml::Deserializer::from_str(text);
    let read = documents.map(<Value as serde::Deserialize>::deserialize);
    read.collect::<Result<_, _>>().context("an example is no YAML")
}

fn is_vm(document: &Value) -> bool {
    document.get("kind").and_then(Value::as_str) == Some("ProtectedVm")
}

fn text_at(document: &Value, path: &[&str]) -> anyhow::Result<String> {
    let mut value = Some(document);
    for &step in path {
        value = value.and_then(|value| match step.parse::<usize>() {
            Ok(position) => value.get(position),
            Err(_) => value.get(step),
        });
    }
    value
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| anyhow!("an example lacks {}", path.join(".")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use farshore_domain::declaration::parse_manifest;

    use super::*;

    #[test]
    fn the_examples_are_valid_as_they_are_and_as_adapted() {
        let layout = Layout::of_directory(Path::new("/tmp/farshore-demo-3f2a")).unwrap();
        let adapted = for_this_machine(&layout).unwrap();
        for ((file, text), (_, adapted)) in FILES.into_iter().zip(adapted) {
            let as_they_are = parse_manifest(file, text).unwrap();
            assert_eq!(
                parse_manifest(file, &adapted).unwrap().len(),
                as_they_are.len(),
                "{file}"
            );
        }
    }

    #[test]
    fn monitors_are_those_of_the_demos_guests() {
        let layout = Layout::of_directory(Path::new("/tmp/farshore-demo-3f2a")).unwrap();
        let texts = for_this_machine(&layout).unwrap();
        let vms = declared_vms().unwrap();
        assert_eq!(vms.len(), 2);
        for vm in vms {
            let monitor = format!("monitor: /tmp/farshore-demo-3f2a/vms/{}.qmp", vm.name);
            assert!(texts.iter().any(|(_, text)| text.contains(&monitor)), "{monitor}");
        }
    }
}
