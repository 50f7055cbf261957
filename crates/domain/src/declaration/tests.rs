//! Declarations survive being written down, and no text makes the reader panic.

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Vec<Declaration> {
    parse_manifest("test.yaml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

const ALL: &str = include_str!("tests/all.yaml");

#[test]
fn a_declaration_is_what_its_document_says() {
    let all: DeclarationSet = read(ALL).into_iter().collect();
    let name = |text: &str| text.parse::<Name>().unwrap();
    let policy = all.policy(&name("gold")).unwrap();
    assert_eq!(policy.interval().as_millis(), 2_000);
    assert_eq!(policy.rpo_target().as_millis(), 15_000);
    assert_eq!(policy.bandwidth_limit().unwrap().0, 50 << 20);
    let retention = policy.retention();
    let finer = (
        retention.keep_all().as_secs(),
        retention.hourly(),
        retention.daily(),
    );
    assert_eq!(finer, (36 * 3600, 48, 7));
    let coarser = (retention.weekly(), retention.monthly(), retention.yearly());
    assert_eq!(coarser, (4, 12, 1));
    assert_eq!(retention.limit().unwrap().0, 500 << 30);
    let west = all.site(&name("west")).unwrap();
    assert_eq!(
        west.network(&name("production")).unwrap().bridge.as_str(),
        "prod0"
    );
    let group = all.groups().next().unwrap();
    assert_eq!(
        (group.name(), group.members()),
        (&name("shop"), &[name("shop-db")][..])
    );
    assert_eq!(
        (group.hold_limit().as_millis(), group.stops_guests()),
        (500, false)
    );
    let vm = all.vm(&name("shop-db")).unwrap();
    assert_eq!(vm.source().replicator, Some(name("east-2")));
    let watchdog = vm.source().watchdog_monitor.as_ref().unwrap();
    assert_eq!(watchdog.to_string(), "/run/vms/shop-db.watch");
    let machine = vm.machine();
    let monitor = SourcePlace::Monitor("/run/vms/shop-db.qmp".parse().unwrap());
    assert_eq!(vm.source().place, monitor);
    assert_eq!((machine.processors(), machine.memory().0), (1, 256 << 20));
    assert_eq!(
        machine.uuid().unwrap().as_str(),
        "6f1c2b9e-0d4c-4d8e-9a57-3b1f0c6e2a11"
    );
    let buses: Vec<_> = machine.disks().iter().map(|disk| disk.bus).collect();
    assert_eq!(buses, [DiskBus::VirtioScsi, DiskBus::VirtioBlk]);
}

#[test]
fn a_declaration_is_written_as_it_was_read() {
    let declarations = read(ALL);
    let written: Vec<_> = declarations
        .iter()
        .map(|declaration| serde_yaml::to_string(declaration).unwrap())
        .collect();
    assert_eq!(written.join("---\n"), ALL);
}

#[test]
fn a_declaration_reads_back_from_json() {
    for declaration in read(ALL) {
        let json = serde_json::to_string(&declaration).unwrap();
        assert_eq!(serde_json::from_str::<Declaration>(&json).unwrap(), declaration);
    }
}

#[test]
fn a_stored_declaration_is_checked_like_any_other() {
    let json = r#"{"apiVersion":"farshore/v1","kind":"ReplicationPolicy","metadata":{"name":"gold"},
                   "spec":{"interval":"10s","rpoTarget":"5s","more":1}}"#;
    let error = serde_json::from_str::<Declaration>(json).unwrap_err();
    assert_eq!(
        error.to_string(),
        "spec.more: unknown field; known: `interval`, `rpoTarget`, `bandwidthLimit`, `auditRate`, `fastMode`, `appConsistent`, `retention`; \
         spec.rpoTarget: `5s` is shorter than the interval, `10s`: it could never be met"
    );
}

#[test]
fn every_example_is_a_good_manifest_and_the_quickstart_fits_together() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut declared = Vec::new();
    let mut directories = vec![examples];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "yaml") {
                let text = std::fs::read_to_string(&path).unwrap();
                let read = parse_manifest(&path.display().to_string(), &text);
                let read = read.unwrap_or_else(|errors| panic!("{errors}"));
                if path.components().any(|part| part.as_os_str() == "quickstart") {
                    declared.extend(read);
                }
            }
        }
    }
    let plan = check_apply(&DeclarationSet::default(), &declared);
    let effects: Vec<_> = plan.outcomes.iter().map(|outcome| &outcome.effect).collect();
    assert_eq!(effects, [&Effect::Created; 5]);
}

#[test]
fn what_a_retention_leaves_out_is_as_in_the_default() {
    let retention_of = |retention: &str| {
        let text = format!(
            "{{apiVersion: farshore/v1, kind: ReplicationPolicy, metadata: {{name: p}}, \
             spec: {{interval: 2s, rpoTarget: 15s{retention}}}}}"
        );
        match read(&text).remove(0) {
            Declaration::ReplicationPolicy(policy) => policy.retention().clone(),
            other @ (Declaration::Site(_)
            | Declaration::ProtectedVm(_)
            | Declaration::ConsistencyGroup(_)) => panic!("{other:?}"),
        }
    };
    let default = retention_of("");
    assert_eq!(default, Retention::default());
    assert_eq!(retention_of(", retention: {}"), default);
    assert_eq!(
        retention_of(", retention: {keepAll: 24h, daily: 7, weekly: 4}"),
        default
    );
    let changed = retention_of(", retention: {daily: 0, limit: 1TiB}");
    assert_eq!((changed.daily(), changed.weekly()), (0, default.weekly()));
    assert_eq!(
        (changed.limit(), default.limit()),
        (Some(farshore_blocks::ByteCount(1 << 40)), None)
    );
}

#[test]
fn the_documented_policies_links_and_groups_are_good() {
    let document = include_str!("../../../../docs/configuration.md");
    let blocks = document.split("```yaml\napiVersion:").skip(1);
    let mut seen = [0; 3];
    for block in blocks {
        let text = format!("apiVersion:{}", block.split("```").next().unwrap());
        let documents = read(&text);
        let [document] = documents.as_slice() else {
            panic!("{documents:?}");
        };
        match document {
            Declaration::Site(site) => {
                assert_eq!(site.links()[0].schedule().len(), 2);
                seen[0] += 1;
            }
            Declaration::ReplicationPolicy(_) => {
                let without = text.split("  retention:").next().unwrap();
                // What the document shows is the default, but for the limit.
                assert_eq!(
                    read(&format!("{without}  retention: {{limit: 500GiB}}")),
                    documents
                );
                seen[1] += 1;
            }
            Declaration::ConsistencyGroup(group) => {
                assert_eq!(group.members().len(), 2);
                seen[2] += 1;
            }
            Declaration::ProtectedVm(vm) => panic!("{vm:?}"),
        }
    }
    assert_eq!(seen, [1; 3]);
}

proptest! {
    #[test]
    fn no_text_of_a_checked_form_panics(text in any::<String>()) {
        let _ = (text.parse::<Name>(), text.parse::<MacAddress>(), text.parse::<MonitorPath>());
        let _ = (text.parse::<MachineUuid>(), text.parse::<DeviceIdentifier>(), text.parse::<BridgeName>());
    }

    #[test]
    fn any_policy_reads_back_as_it_was_written(
        interval in 200u64..86_400_000, more in 0u64..86_400_000, limit in proptest::option::of(65_536u64..1 << 50),
        window in 0u64..366 * 86_400_000, slots in 0u32..10_001, kept in proptest::option::of(1u64 << 28..1 << 60),
        cost in 1u32..=50, audit in 65_536u64..1 << 50,
    ) {
        let limit = limit.map_or_else(String::new, |limit| format!(", bandwidthLimit: {limit}"));
        let kept = kept.map_or_else(String::new, |kept| format!(", limit: {kept}"));
        let text = format!(
            "{{apiVersion: farshore/v1, kind: ReplicationPolicy, metadata: {{name: p}}, \
             spec: {{interval: {interval}ms, rpoTarget: {}ms{limit}, fastMode: {{guestCostLimit: {cost}%}}, auditRate: {audit}, \
             retention: {{keepAll: {window}ms, weekly: {slots}{kept}}}}}}}",
            interval + more
        );
        let first = read(&text);
        let again = read(&serde_yaml::to_string(&first[0]).unwrap());
        prop_assert_eq!(first, again);
    }
}
