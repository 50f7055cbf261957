//! What an apply creates, changes, leaves alone and refuses, by what is there already.

use super::*;
use crate::declaration::{Dialler, parse_manifest};

fn read(text: &str) -> Vec<Declaration> {
    parse_manifest("test.yaml", text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn site(name: &str, networks: &str) -> Declaration {
    let text = format!(
        "{{apiVersion: farshore/v1, kind: Site, metadata: {{name: {name}}}, \
         spec: {{provider: qemu, networks: [{networks}]}}}}"
    );
    read(&text).remove(0)
}

fn policy(name: &str, interval: &str) -> Declaration {
    let text = format!(
        "{{apiVersion: farshore/v1, kind: ReplicationPolicy, metadata: {{name: {name}}}, \
         spec: {{interval: {interval}, rpoTarget: 1m}}}}"
    );
    read(&text).remove(0)
}

fn vm(name: &str, policy: &str, monitor: &str, target: &str) -> Declaration {
    let text = format!(
        "{{apiVersion: farshore/v1, kind: ProtectedVm, metadata: {{name: {name}}}, spec: {{policy: {policy}, \
         source: {{site: east, monitor: {monitor}}}, target: {{{target}}}, machine: {{processors: 1, \
         memory: 64MiB, firmware: bios, machineType: pc, disks: [{{name: root, device: vd0}}]}}}}}}"
    );
    read(&text).remove(0)
}

const NETWORK: &str = "{name: production, bridge: prod0}";

fn fitting() -> Vec<Declaration> {
    vec![
        vm("shop", "gold", "/run/shop", "site: west, network: production"),
        site("west", NETWORK),
        policy("gold", "2s"),
        site("east", ""),
    ]
}

fn refusals(existing: &[Declaration], applied: &[Declaration]) -> Vec<String> {
    let plan = check_apply(&existing.iter().cloned().collect(), applied);
    plan.refusals()
        .map(|(key, refusal)| format!("{key}: {}: {refusal}", refusal.reason()))
        .collect()
}

#[test]
fn declarations_of_one_apply_may_refer_to_each_other_in_any_order() {
    let plan = check_apply(&DeclarationSet::default(), &fitting());
    assert_eq!(plan.refusals().count(), 0);
    assert!(
        plan.outcomes
            .iter()
            .all(|outcome| outcome.effect == Effect::Created)
    );
}

#[test]
fn what_is_applied_again_is_unchanged_and_what_differs_tells_where() {
    let applied = [
        policy("gold", "3s"),
        vm("shop", "gold", "/run/other", "site: west"),
        site("east", ""),
    ];
    let plan = check_apply(&fitting().into_iter().collect(), &applied);
    let effects: Vec<_> = plan.outcomes.into_iter().map(|outcome| outcome.effect).collect();
    let changed = |parts: &[&str]| Effect::Changed {
        parts: parts.iter().map(|part| (*part).to_owned()).collect(),
    };
    assert_eq!(
        effects,
        [
            changed(&["spec.interval"]),
            changed(&["spec.source", "spec.target"]),
            Effect::Unchanged,
        ]
    );
}

#[test]
fn every_missing_reference_is_named_with_what_may_have_been_meant() {
    let existing = [
        site("west", NETWORK),
        policy("gold", "2s"),
        site("other-site", ""),
    ];
    let applied = [
        vm("a", "gould", "/run/a", "site: wst"),
        vm("b", "gold", "/run/b", "site: west, network: produktion"),
    ];
    assert_eq!(
        refusals(&existing, &applied),
        [
            "ProtectedVm a: missing-reference: a names the ReplicationPolicy gould, which is not declared; did you mean `gold`?",
            "ProtectedVm a: missing-reference: a names the source Site east, which is not declared",
            "ProtectedVm a: missing-reference: a names the target Site wst, which is not declared; did you mean `west`?",
            "ProtectedVm b: missing-reference: b names the source Site east, which is not declared",
            "ProtectedVm b: missing-reference: b names the network produktion, which the Site west does not have; did you mean `production`?",
        ]
    );
}

#[test]
fn a_link_leads_to_a_site_that_is_there_and_stays() {
    let east = |to: &str| {
        let text = format!(
            "{{apiVersion: farshore/v1, kind: Site, metadata: {{name: east}}, \
             spec: {{provider: qemu, links: [{{to: {to}, bandwidthLimit: 1MiB}}]}}}}"
        );
        read(&text).remove(0)
    };
    let west = site("west", "");
    assert_eq!(
        refusals(&[], &[east("wst"), west.clone()]),
        [
            "Site east: missing-reference: the Site east has a link to the Site wst, which is not declared; did you mean `west`?"
        ]
    );
    assert_eq!(refusals(&[], &[east("west"), west.clone()]), [""; 0]);
    let linked: DeclarationSet = [east("west"), west].into_iter().collect();
    let delete = |name: &str| check_delete(&linked, &key(Kind::Site, &name.parse().unwrap()));
    assert_eq!(delete("east"), Ok(()));
    let refused = delete("west").unwrap_err();
    assert_eq!(
        (refused.reason(), refused.to_string()),
        ("in-use", "Site west is where links lead of east".to_owned())
    );
}

#[test]
fn a_monitor_belongs_to_one_vm() {
    let applied = [vm("clone", "gold", "/run/shop", "site: west")];
    assert_eq!(
        refusals(&fitting(), &applied),
        [
            "ProtectedVm clone: monitor-claimed: clone names the monitor /run/shop of the Site east, which is that of shop"
        ]
    );
}

#[test]
fn a_disk_without_a_hypervisor_belongs_to_one_vm() {
    let vm = |name: &str, path: &str| {
        let text = format!(
            "{{apiVersion: farshore/v1, kind: ProtectedVm, metadata: {{name: {name}}}, spec: {{policy: gold, \
             source: {{site: east, disks: {{root: {path}}}}}, target: {{site: west}}, machine: {{processors: 1, \
             memory: 64MiB, firmware: bios, machineType: pc, disks: [{{name: root, device: vd0}}]}}}}}}"
        );
        read(&text).remove(0)
    };
    let apart = [vm("one", "/images/one.raw"), vm("two", "/images/two.raw")];
    assert_eq!(refusals(&fitting(), &apart), [""; 0]);
    let again = read(&serde_yaml::to_string(&apart[0]).unwrap());
    assert_eq!(again, [apart[0].clone()]);
    let shared = [vm("one", "/images/one.raw"), vm("two", "/images/one.raw")];
    assert_eq!(
        refusals(&fitting(), &shared)[0],
        "ProtectedVm one: disk-claimed: one names the disk /images/one.raw of the Site east, which is one of two"
    );
}

#[test]
fn a_name_is_declared_once_in_an_apply() {
    let applied = [policy("gold", "2s"), policy("gold", "3s")];
    assert_eq!(
        refusals(&[], &applied),
        ["ReplicationPolicy gold: declared-twice: ReplicationPolicy gold is declared twice"]
    );
}

#[test]
fn a_network_in_use_is_not_taken_away() {
    assert_eq!(
        refusals(&fitting(), &[site("west", "")]),
        ["Site west: in-use: the Site west would lose its network production, which is in use by shop"]
    );
    let together = [site("west", ""), vm("shop", "gold", "/run/shop", "site: west")];
    assert_eq!(refusals(&fitting(), &together), [""; 0]);
}

#[test]
fn only_what_nobody_refers_to_may_be_deleted() {
    let existing: DeclarationSet = fitting().into_iter().collect();
    let delete = |kind, name: &str| {
        let name = name.parse().unwrap();
        check_delete(&existing, &DeclarationKey { kind, name }).map_err(|refusal| refusal.to_string())
    };
    assert_eq!(delete(Kind::ProtectedVm, "shop"), Ok(()));
    for (kind, name) in [
        (Kind::Site, "east"),
        (Kind::Site, "west"),
        (Kind::ReplicationPolicy, "gold"),
    ] {
        assert_eq!(
            delete(kind, name),
            Err(format!("{kind} {name} is in use by shop"))
        );
    }
    assert_eq!(
        delete(Kind::ProtectedVm, "shap"),
        Err("ProtectedVm shap is not declared; did you mean `shop`?".to_owned())
    );
}

fn member(name: &str, policy: &str, watchdog: &str, target: &str) -> Declaration {
    let monitor = format!("/run/{name}{watchdog}");
    vm(name, policy, &monitor, &format!("site: {target}"))
}

fn group(name: &str, members: &str) -> Declaration {
    let text = format!(
        "{{apiVersion: farshore/v1, kind: ConsistencyGroup, metadata: {{name: {name}}}, spec: {{members: [{members}]}}}}"
    );
    read(&text).remove(0)
}

fn sites_and_policies() -> Vec<Declaration> {
    vec![
        site("east", ""),
        site("west", ""),
        site("north", ""),
        policy("gold", "2s"),
        policy("slow", "3s"),
    ]
}

#[test]
fn members_of_a_group_go_together_and_can_be_stopped() {
    let watched = |name: &str| format!(", watchdogMonitor: /run/{name}.watch");
    let mut existing = sites_and_policies();
    existing.extend([
        member("a", "gold", &watched("a"), "west"),
        member("b", "gold", &watched("b"), "west"),
        member("c", "slow", &watched("c"), "north"),
        member("d", "gold", "", "west"),
    ]);
    assert_eq!(refusals(&existing, &[group("shop", "a, b")]), [""; 0]);
    // A group of one stops nobody.
    assert_eq!(refusals(&existing, &[group("shop", "d")]), [""; 0]);
    assert_eq!(
        refusals(&existing, &[group("shop", "a, c, d, e")]),
        [
            "ConsistencyGroup shop: missing-reference: shop names the ProtectedVm e, which is not declared; did you mean `a`?",
            "ConsistencyGroup shop: member-unfit: c cannot be a member of shop: its target site is north, and that of a is west; \
             all members have the same",
            "ConsistencyGroup shop: member-unfit: c cannot be a member of shop: its policy is slow, and that of a is gold; \
             all members have the same",
            "ConsistencyGroup shop: member-unfit: d cannot be a member of shop: it has no `source.watchdogMonitor`: a second \
             QMP monitor, by which its guest is let go whatever happens",
        ]
    );
}

#[test]
fn a_member_is_of_one_group_and_stays_fit_for_it_and_declared() {
    let watched = |name: &str| format!(", watchdogMonitor: /run/{name}.watch");
    let (a, b) = (
        member("a", "gold", &watched("a"), "west"),
        member("b", "gold", &watched("b"), "west"),
    );
    let mut existing = sites_and_policies();
    existing.extend([a, b, group("shop", "a, b")]);
    assert_eq!(
        refusals(&existing, &[group("other", "b")]),
        ["ConsistencyGroup other: member-claimed: other names the ProtectedVm b, which is a member of shop"]
    );
    // Moved in one apply.
    assert_eq!(
        refusals(&existing, &[group("other", "b"), group("shop", "a")]),
        [""; 0]
    );
    let slow = [member("b", "slow", &watched("b"), "west")];
    assert_eq!(
        refusals(&existing, &slow),
        [
            "ProtectedVm b: member-unfit: b cannot be a member of shop: its policy is slow, and that of a is gold; all \
             members have the same"
        ]
    );
    let both = [slow[0].clone(), member("a", "slow", &watched("a"), "west")];
    assert_eq!(refusals(&existing, &both), [""; 0]);
    let set: DeclarationSet = existing.into_iter().collect();
    let refused = check_delete(&set, &set::key(Kind::ProtectedVm, &"b".parse().unwrap()));
    assert_eq!(
        refused.unwrap_err().to_string(),
        "ProtectedVm b is in use by shop"
    );
    assert_eq!(
        check_delete(&set, &set::key(Kind::ConsistencyGroup, &"shop".parse().unwrap())),
        Ok(())
    );
}

#[test]
fn a_path_belongs_to_one_vm_of_a_replicator_and_hosts_of_two_may_have_the_same() {
    let at =
        |name: &str, replicator: &str| vm(name, "gold", &format!("/run/vm.qmp{replicator}"), "site: west");
    let refused = |one: &str, other: &str| {
        let mut applied = sites_and_policies();
        applied.extend([at("a", one), at("b", other)]);
        refusals(&[], &applied).len()
    };
    assert_eq!(refused(", replicator: e1", ", replicator: e2"), 0);
    assert_eq!(refused(", replicator: e1", ", replicator: e1"), 2);
    assert_eq!(refused(", replicator: e1", ""), 2);
}

#[test]
fn a_second_monitor_belongs_to_one_vm() {
    let mut applied = sites_and_policies();
    applied.extend([
        member("a", "gold", ", watchdogMonitor: /run/b", "west"),
        member("b", "gold", "", "west"),
    ]);
    assert_eq!(
        refusals(&[], &applied),
        [
            "ProtectedVm a: monitor-claimed: a names the monitor /run/b of the Site east, which is that of b",
            "ProtectedVm b: monitor-claimed: b names the monitor /run/b of the Site east, which is that of a",
        ]
    );
}

#[test]
fn of_two_sites_one_must_be_one_that_the_other_can_dial() {
    let closed = |name: &str| {
        let text = format!(
            "{{apiVersion: farshore/v1, kind: Site, metadata: {{name: {name}}}, spec: {{provider: qemu, inbound: closed}}}}"
        );
        read(&text).remove(0)
    };
    let shop = vm("shop", "gold", "/run/shop", "site: west");
    let one = [
        shop.clone(),
        site("east", ""),
        closed("west"),
        policy("gold", "2s"),
    ];
    assert_eq!(refusals(&[], &one), [""; 0]);
    let why = "nobody-dials: shop goes from the Site east to the Site west, which both have `inbound: closed`: neither \
               can dial the other";
    assert_eq!(refusals(&one, &[closed("east")]), [format!("Site east: {why}")]);
    let both = [closed("east"), shop.clone()];
    assert_eq!(refusals(&one, &both), [format!("ProtectedVm shop: {why}")]);
    let (east, west) = (site("east", ""), closed("west"));
    let set: DeclarationSet = [east, west].into_iter().collect();
    let [east, west] = ["east", "west"].map(|name| set.site(&name.parse().unwrap()).unwrap());
    assert_eq!(east.dialler(west), Some(Dialler::Target));
    assert_eq!(west.dialler(east), Some(Dialler::Source));
    assert_eq!(east.dialler(east), Some(Dialler::Source));
}
