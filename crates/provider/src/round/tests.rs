//! Everyone hears the same of a round, whoever fails at whichever stage.

use super::*;

const LIMIT: Duration = Duration::from_millis(100);

/// At which meeting a participant fails, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    NeverPrepared,
    GivesUp,
    NeverStands,
    Moved,
    DiesStanding,
}

const FAULTS: [Fault; 6] = [
    Fault::None,
    Fault::NeverPrepared,
    Fault::GivesUp,
    Fault::NeverStands,
    Fault::Moved,
    Fault::DiesStanding,
];

async fn take(participant: Participant, fault: Fault) -> Option<(Accord, Option<WallTime>)> {
    let alone = |why| Some((Accord::Alone { why }, None));
    match fault {
        Fault::NeverPrepared => return None,
        Fault::GivesUp => {
            participant.give_up("no");
            return None;
        }
        Fault::None | Fault::NeverStands | Fault::Moved | Fault::DiesStanding => {}
    }
    let at = match participant.prepared().await {
        Ok(at) => at,
        Err(why) => return alone(why),
    };
    if fault == Fault::NeverStands {
        tokio::time::sleep(LIMIT * 3).await;
    }
    if let Err(why) = participant.standing(Instant::now() + LIMIT).await {
        return alone(why);
    }
    let moved = if fault == Fault::Moved {
        Err("moved".to_owned())
    } else {
        Ok(())
    };
    if fault == Fault::DiesStanding {
        return None;
    }
    Some((participant.taken(moved).await, Some(at)))
}

async fn round(faults: &[Fault]) -> Vec<Option<(Accord, Option<WallTime>)>> {
    let names: Vec<_> = (0..faults.len()).map(|number| format!("vm{number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let participants = convene(InstantId(7), &names, LIMIT);
    let tasks: Vec<_> = participants
        .into_iter()
        .zip(faults)
        .map(|(participant, fault)| tokio::spawn(take(participant, *fault)))
        .collect();
    let mut ended = Vec::new();
    for task in tasks {
        ended.push(task.await.unwrap());
    }
    ended
}

#[tokio::test]
async fn all_are_together_or_all_are_alone() {
    for faults in FAULTS
        .iter()
        .flat_map(|first| FAULTS.iter().map(move |second| [*first, *second, Fault::None]))
    {
        let ended = round(&faults).await;
        let expect_together = faults.iter().all(|fault| *fault == Fault::None);
        for (accord, _) in ended.iter().flatten() {
            assert_eq!(
                *accord == Accord::Together(InstantId(7)),
                expect_together,
                "{faults:?}: {ended:?}"
            );
        }
    }
}

#[tokio::test]
async fn all_have_the_same_time_of_the_instant_and_it_is_before_it() {
    let before = WallTime::now();
    let ended = round(&[Fault::None; 64]).await;
    let times: Vec<_> = ended.into_iter().flatten().map(|(_, at)| at.unwrap()).collect();
    assert_eq!(times.len(), 64);
    assert!(times.iter().all(|at| *at == times[0] && *at >= before));
}

#[tokio::test]
async fn who_is_alone_hears_whose_fault_it_is() {
    let ended = round(&[Fault::None, Fault::GivesUp]).await;
    let alone = Accord::Alone {
        why: "vm1: no".to_owned(),
    };
    assert_eq!(ended, [Some((alone, None)), None]);
}
