//! Decides what is said of damage that a vault's scrub found.

use super::{Health, NewestPoint, Observation, Reason, VaultDamage};

const CAUSE: &str = "the disk under the vault lost or changed data, or its files were changed from outside";

/// Some retained point cannot be read whole.
pub(super) fn of_vault(seen: &Observation<'_>) -> Option<Reason> {
    let damage = seen.damage?;
    let places = match damage.places {
        1 => "1 place of the vault cannot".to_owned(),
        places => format!("{places} places of the vault cannot"),
    };
    Some(Reason {
        health: Health::Critical,
        code: "vault-damaged",
        what: format!("{places} be read as written; hit: {}", points(&damage)),
        possible_cause: CAUSE,
        what_to_do: "look at the vault's disk; recover from a point before or behind those that are hit, and keep \
                     those neighbours; `farshore vault verify` names every place",
    })
}

/// A failover to the newest point, which is the usual one, is not ready.
pub(super) fn of_newest_point(seen: &Observation<'_>) -> Option<Reason> {
    let damage = seen.damage?;
    match damage.newest {
        NewestPoint::Sound => None,
        NewestPoint::Hit => Some(Reason {
            health: Health::Critical,
            code: "newest-point-damaged",
            what: format!(
                "a failover to the newest recovery point would meet damaged data, which is there since point {}",
                damage.first
            ),
            possible_cause: CAUSE,
            what_to_do: "to fail over now, choose a point before the damage; a resync, or a newer point in which the \
                         VM wrote these places anew, makes the newest point whole again",
        }),
    }
}

fn points(damage: &VaultDamage) -> String {
    if damage.first == damage.last {
        format!("point {}", damage.first)
    } else {
        format!("points from {} to {}", damage.first, damage.last)
    }
}
