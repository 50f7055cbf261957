//! Decides at which replicator the members of a group meet.
//!
//! Nothing depends on the choice but that all hear the same: a member that was told of another leader meets nobody there, and
//! takes its instants alone meanwhile.

use std::collections::BTreeSet;

use farshore_proto::v1;

use crate::fleet::FleetView;

/// The leader of a group whose sources are at these replicators; absent where there is none to be chosen, as they are all at one or
/// none of them can be dialled by the others. It is the first by name of those that are up, or else of all.
#[must_use]
pub(super) fn choose(replicators: &BTreeSet<String>, view: &FleetView) -> Option<v1::GroupLeader> {
    if replicators.len() < 2 {
        return None;
    }
    let known = replicators.iter().filter_map(|name| view.replicators.get(name));
    let chosen = known
        .filter(|replicator| !replicator.register.site_endpoint.is_empty())
        .min_by_key(|replicator| !replicator.up)?;
    Some(v1::GroupLeader {
        replicator: chosen.register.name.clone(),
        endpoint: chosen.register.site_endpoint.clone(),
    })
}

#[cfg(test)]
mod tests {
    use farshore_blocks::clock::WallTime;

    use super::*;
    use crate::fleet::ReplicatorView;

    fn view(replicators: &[(&str, bool, &str)]) -> FleetView {
        let replicators = replicators.iter().map(|(name, up, endpoint)| {
            let register = v1::Register {
                name: (*name).to_owned(),
                site_endpoint: (*endpoint).to_owned(),
                ..v1::Register::default()
            };
            let view = ReplicatorView {
                register,
                up: *up,
                last_seen: WallTime(0),
                report: None,
                reported_at: None,
            };
            ((*name).to_owned(), view)
        });
        FleetView {
            replicators: replicators.collect(),
        }
    }

    fn chosen(of: &[&str], view: &FleetView) -> Option<String> {
        let of = of.iter().map(|name| (*name).to_owned()).collect();
        choose(&of, view).map(|leader| leader.replicator)
    }

    #[test]
    fn the_first_that_is_up_leads_and_another_takes_over_while_it_is_not() {
        let up = |one, two, three| {
            view(&[
                ("e1", one, "http://1:1"),
                ("e2", two, "http://2:1"),
                ("e3", three, "http://3:1"),
            ])
        };
        let all = ["e1", "e2", "e3"];
        assert_eq!(chosen(&all, &up(true, true, true)).as_deref(), Some("e1"));
        assert_eq!(chosen(&all, &up(false, true, true)).as_deref(), Some("e2"));
        assert_eq!(chosen(&all, &up(false, false, false)).as_deref(), Some("e1"));
        // Only those that have members count, and one alone needs no leader.
        assert_eq!(
            chosen(&["e2", "e3"], &up(true, true, true)).as_deref(),
            Some("e2")
        );
        assert_eq!(chosen(&["e2"], &up(true, true, true)), None);
    }

    #[test]
    fn who_cannot_be_dialled_does_not_lead() {
        let view = view(&[("e1", true, ""), ("e2", false, "http://2:1")]);
        assert_eq!(chosen(&["e1", "e2", "unknown"], &view).as_deref(), Some("e2"));
        assert_eq!(chosen(&["e1", "unknown"], &view), None);
    }
}
