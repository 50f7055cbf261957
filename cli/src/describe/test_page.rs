//! A test failover on one page.

use super::section;
use crate::{
    output::{
        format::{optional_seconds, or_nothing},
        table::{sheet, table},
    },
    view::TestFailoverView,
};

/// The test, its VM, and what it left behind.
pub(super) fn page(test: &TestFailoverView) -> String {
    let facts = sheet(vec![
        ("Test failover", test.name.clone()),
        ("Of VM", test.vm.clone()),
        ("State", test.state.clone()),
        ("Detail", or_nothing(&test.detail)),
        ("Point", test.point.to_string()),
        ("Network", test.isolation()),
        ("Job", or_nothing(&test.job)),
        (
            "Started",
            or_nothing(test.started_at.as_deref().unwrap_or_default()),
        ),
        ("Ended", or_nothing(test.ended_at.as_deref().unwrap_or_default())),
        ("Notes", or_nothing(&test.notes)),
    ]);
    let recovered = test.recovered.as_ref().map_or_else(String::new, |vm| {
        sheet(vec![
            ("Condition", vm.condition.clone()),
            ("Order to running", optional_seconds(vm.order_to_running_seconds)),
            (
                "Namespace",
                or_nothing(vm.namespace.as_deref().unwrap_or_default()),
            ),
            ("Monitor", or_nothing(&vm.monitor)),
            ("Process", vm.pid.to_string()),
        ])
    });
    let leaks: Vec<Vec<String>> = test
        .leaks
        .iter()
        .map(|leak| vec![leak.kind.clone(), leak.name.clone()])
        .collect();
    let left_behind = if leaks.is_empty() {
        String::new()
    } else {
        table(&["kind", "name"], leaks)
    };
    format!(
        "{facts}{}{}",
        section("Recovered VM", &recovered),
        section("Left behind", &left_behind)
    )
}
