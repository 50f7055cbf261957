//! What a hypervisor can do, by its own description, so that no version number has to stand for it.
//!
//! The description is some 200 KiB long and is asked for only when prerequisites are checked. What cannot be described is
//! whether a version aborts: that is known by version (`listing.rs`).

use std::collections::BTreeSet;

use farshore_provider::SourceError;
use serde::Deserialize;
use serde_json::Value;

use super::hypervisor::Hypervisor;

/// What captures use that older hypervisors lack.
const NEEDED: [&str; 9] = [
    "block-export-add",
    "blockdev-reopen",
    "x-debug-query-block-graph",
    "copy-before-write",
    "snapshot-access",
    "on-cbw-error",
    "break-snapshot",
    "cbw-timeout",
    "block-dirty-bitmap-merge",
];

/// One of `query-qmp-schema`.
#[derive(Debug, Deserialize)]
struct Described {
    /// Of a command; other kinds have names that mean nothing.
    name: String,
    /// Of an object.
    #[serde(default)]
    members: Vec<Member>,
    /// Of an enumeration.
    #[serde(default)]
    values: Vec<String>,
}

/// Of an object by name, of an alternate without.
#[derive(Debug, Deserialize)]
struct Member {
    name: Option<String>,
}

/// What is missing, in the hypervisor's own words.
pub(crate) async fn missing(hypervisor: &Hypervisor) -> Result<Vec<&'static str>, SourceError> {
    let described: Vec<Described> = hypervisor.query("query-qmp-schema", Value::Null).await?;
    Ok(missing_in(&described))
}

fn missing_in(described: &[Described]) -> Vec<&'static str> {
    let mut words: BTreeSet<&str> = BTreeSet::new();
    for one in described {
        words.insert(&one.name);
        words.extend(one.values.iter().map(String::as_str));
        words.extend(one.members.iter().filter_map(|member| member.name.as_deref()));
    }
    NEEDED.into_iter().filter(|word| !words.contains(word)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_older_hypervisor_lacks_is_named() {
        let schema = json!([
            {"name": "block-export-add", "meta-type": "command", "arg-type": "0", "ret-type": "1"},
            {"name": "x-debug-query-block-graph", "meta-type": "command", "arg-type": "0", "ret-type": "1"},
            {"name": "block-dirty-bitmap-merge", "meta-type": "command", "arg-type": "0", "ret-type": "1"},
            {"name": "2", "meta-type": "enum", "values": ["raw", "copy-before-write"]},
            {"name": "3", "meta-type": "object", "members": [{"name": "target", "type": "4"}]},
            {"name": "4", "meta-type": "alternate", "members": [{"type": "5"}]},
        ]);
        let described: Vec<Described> = serde_json::from_value(schema).unwrap();
        let expected = [
            "blockdev-reopen",
            "snapshot-access",
            "on-cbw-error",
            "break-snapshot",
            "cbw-timeout",
        ];
        assert_eq!(missing_in(&described), expected);
    }
}
