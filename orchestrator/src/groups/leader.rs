//! Decides at which replicator the members of a group meet.
//!
//! Nothing depends on the choice but that all hear the same: a member that was told of another leader meets nobody there, and
//! takes its instants alone meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use farshore_proto::v1;

use crate::fleet::FleetView;

/// Whose sources a group has, and where they say that they meet now.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) replicators: BTreeSet<String>,
    /// By the name of the leader that they were told of.
    pub(super) told: BTreeMap<String, v1::GroupLeader>,
}

/// The leader of a group; absent where there is none to be chosen, as its sources are all at one replicator or none of theirs can be
/// dialled by the others. Who leads goes on leading, unless it is known not to be up. Otherwise it is the first by name of those that
/// are up, or else of all.
#[must_use]
pub(super) fn choose(sources: &Sources, view: &FleetView) -> Option<v1::GroupLeader> {
    let Sources { replicators, told } = sources;
    if replicators.len() < 2 {
        return None;
    }
    let candidate = |name: &String| Candidate::of(name, told.get(name), view);
    let candidates: Vec<_> = replicators.iter().filter_map(candidate).collect();
    let best = candidates.into_iter().min_by_key(|candidate| candidate.rank)?;
    Some(best.leader)
}

/// How good a leader it would be, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It leads, and nobody says that it is down: an orchestrator that has just begun has not heard of everyone yet.
    Leads,
    Up,
    Down,
}

struct Candidate {
    rank: Rank,
    leader: v1::GroupLeader,
}

impl Candidate {
    fn of(name: &str, told: Option<&v1::GroupLeader>, view: &FleetView) -> Option<Self> {
        let Some(replicator) = view.replicators.get(name) else {
            return Some(Self {
                rank: Rank::Leads,
                leader: told?.clone(),
            });
        };
        let endpoint = &replicator.register.site_endpoint;
        let rank = match (replicator.up, told) {
            (true, Some(_)) => Rank::Leads,
            (true, None) => Rank::Up,
            (false, _) => Rank::Down,
        };
        (!endpoint.is_empty()).then(|| Self {
            rank,
            leader: v1::GroupLeader {
                replicator: name.to_owned(),
                endpoint: endpoint.clone(),
            },
        })
    }
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
        chosen_after(of, None, view)
    }

    /// Where members were told before that this one leads.
    fn chosen_after(of: &[&str], told: Option<&str>, view: &FleetView) -> Option<String> {
        let leader = |name: &str| v1::GroupLeader {
            replicator: name.to_owned(),
            endpoint: format!("http://{name}"),
        };
        let sources = Sources {
            replicators: of.iter().map(|name| (*name).to_owned()).collect(),
            told: told
                .map(|name| (name.to_owned(), leader(name)))
                .into_iter()
                .collect(),
        };
        choose(&sources, view).map(|leader| leader.replicator)
    }

    const ALL: [&str; 3] = ["e1", "e2", "e3"];

    fn up(one: bool, two: bool, three: bool) -> FleetView {
        view(&[
            ("e1", one, "http://1:1"),
            ("e2", two, "http://2:1"),
            ("e3", three, "http://3:1"),
        ])
    }

    #[test]
    fn the_first_that_is_up_leads_and_another_takes_over_while_it_is_not() {
        assert_eq!(chosen(&ALL, &up(true, true, true)).as_deref(), Some("e1"));
        assert_eq!(chosen(&ALL, &up(false, true, true)).as_deref(), Some("e2"));
        assert_eq!(chosen(&ALL, &up(false, false, false)).as_deref(), Some("e1"));
        // Only those that have members count, and one alone needs no leader.
        assert_eq!(
            chosen(&["e2", "e3"], &up(true, true, true)).as_deref(),
            Some("e2")
        );
        assert_eq!(chosen(&["e2"], &up(true, true, true)), None);
    }

    #[test]
    fn who_leads_goes_on_leading_until_it_is_known_to_be_down_or_has_no_member_any_more() {
        let after = |view: &FleetView| chosen_after(&ALL, Some("e2"), view);
        assert_eq!(after(&up(true, true, true)).as_deref(), Some("e2"));
        assert_eq!(after(&up(true, false, true)).as_deref(), Some("e1"));
        // An orchestrator that has just begun has not heard of it yet.
        let few = view(&[("e1", true, "http://1:1")]);
        assert_eq!(after(&few).as_deref(), Some("e2"));
        let without = chosen_after(&["e1", "e3"], Some("e2"), &up(true, true, true));
        assert_eq!(without.as_deref(), Some("e1"));
    }

    #[test]
    fn who_cannot_be_dialled_does_not_lead() {
        let view = view(&[("e1", true, ""), ("e2", false, "http://2:1")]);
        assert_eq!(chosen(&["e1", "e2", "unknown"], &view).as_deref(), Some("e2"));
        assert_eq!(chosen(&["e1", "unknown"], &view), None);
        assert_eq!(
            chosen_after(&["e1", "e2"], Some("e1"), &view).as_deref(),
            Some("e2")
        );
    }
}
