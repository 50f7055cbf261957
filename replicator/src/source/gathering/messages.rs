//! What the replicators of a site say to each other of a group: our words, and the wire's.

use std::time::Duration;

use farshore_blocks::clock::WallTime;
use farshore_proto::v1::{self, leader_message, member_message};
use farshore_provider::InstantId;

use super::{GroupInstant, Wants};
use crate::{
    assignment::Membership,
    convert::{self, Malformed},
};

/// How many members a group has at most, and how long a name may be: peers must not fill the memory.
const MOST_MEMBERS: usize = 64;
const LONGEST_NAME: usize = 256;
/// A reason that is longer is cut.
const LONGEST_REASON: usize = 1024;

/// Something that is said, with the number of its stream's message, or of the one that it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbered<T> {
    pub(super) number: u64,
    pub(super) said: T,
}

/// Who comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sitting {
    pub(super) site: String,
    pub(super) replicator: String,
    pub(super) vm: String,
    pub(super) membership: Membership,
}

/// What is said for a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FromMember {
    Sit(Sitting),
    Come { wants: Wants, within: Duration },
    Prepared(InstantId),
    Standing { id: InstantId, within: Duration },
    Taken(InstantId),
    GivenUp { id: InstantId, why: String },
    Sealed(InstantId),
}

/// What a member hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FromLeader {
    Seated,
    Together(InstantId),
    Alone {
        why: String,
    },
    Idle,
    /// `at` is the time of the instant, of the stage at which all are prepared.
    Settled {
        at: Option<WallTime>,
    },
    Broken {
        why: String,
    },
    Newest(GroupInstant),
}

pub(super) fn member_out(message: Numbered<FromMember>) -> v1::MemberMessage {
    use member_message::Body;
    let body = match message.said {
        FromMember::Sit(sitting) => Body::Sit(v1::Sit {
            site: sitting.site,
            replicator: sitting.replicator,
            vm: sitting.vm,
            group: sitting.membership.group,
            members: sitting.membership.members,
            hold_limit: Some(convert::duration_out(sitting.membership.hold_limit)),
        }),
        FromMember::Come { wants, within } => Body::Come(v1::Come {
            wants_instant: wants == Wants::Instant,
            within: Some(convert::duration_out(within)),
        }),
        FromMember::Prepared(id) => Body::Prepared(v1::RoundPrepared { instant: id.0 }),
        FromMember::Standing { id, within } => Body::Standing(v1::RoundStanding {
            instant: id.0,
            within: Some(convert::duration_out(within)),
        }),
        FromMember::Taken(id) => Body::Taken(v1::RoundTaken { instant: id.0 }),
        FromMember::GivenUp { id, why } => Body::GivenUp(v1::RoundGivenUp {
            instant: id.0,
            why: short(why),
        }),
        FromMember::Sealed(id) => Body::Sealed(v1::InstantSealed { instant: id.0 }),
    };
    v1::MemberMessage {
        number: message.number,
        body: Some(body),
    }
}

pub(super) fn member_in(message: v1::MemberMessage) -> Result<Numbered<FromMember>, Malformed> {
    use member_message::Body;
    let said = match message.body.ok_or(Malformed::Missing("body"))? {
        Body::Sit(sit) => FromMember::Sit(sitting_in(sit)?),
        Body::Come(come) => FromMember::Come {
            wants: match come.wants_instant {
                true => Wants::Instant,
                false => Wants::Nothing,
            },
            within: convert::duration_in(come.within.as_ref(), "come.within")?,
        },
        Body::Prepared(prepared) => FromMember::Prepared(InstantId(prepared.instant)),
        Body::Standing(standing) => FromMember::Standing {
            id: InstantId(standing.instant),
            within: convert::duration_in(standing.within.as_ref(), "standing.within")?,
        },
        Body::Taken(taken) => FromMember::Taken(InstantId(taken.instant)),
        Body::GivenUp(given_up) => FromMember::GivenUp {
            id: InstantId(given_up.instant),
            why: short(given_up.why),
        },
        Body::Sealed(sealed) => FromMember::Sealed(InstantId(sealed.instant)),
    };
    Ok(Numbered {
        number: message.number,
        said,
    })
}

fn sitting_in(sit: v1::Sit) -> Result<Sitting, Malformed> {
    if sit.members.len() > MOST_MEMBERS {
        return Err(convert::refused(
            "sit.members",
            format!("a group has {MOST_MEMBERS} members at most"),
        ));
    }
    let names = [&sit.site, &sit.replicator, &sit.vm, &sit.group];
    if names
        .into_iter()
        .chain(&sit.members)
        .any(|name| name.len() > LONGEST_NAME)
    {
        return Err(convert::refused("sit", "it has a name that is too long"));
    }
    if !sit.members.contains(&sit.vm) {
        return Err(convert::refused("sit.vm", "it is not of the group"));
    }
    Ok(Sitting {
        site: sit.site,
        replicator: sit.replicator,
        vm: sit.vm,
        membership: Membership {
            group: sit.group,
            members: sit.members,
            hold_limit: convert::duration_in(sit.hold_limit.as_ref(), "sit.hold_limit")?,
            watchdog_monitor: None,
            leader: None,
        },
    })
}

pub(super) fn leader_out(message: Numbered<FromLeader>) -> v1::LeaderMessage {
    use leader_message::Body;
    let body = match message.said {
        FromLeader::Seated => Body::Seated(v1::Seated {}),
        FromLeader::Together(id) => Body::Together(v1::Together { instant: id.0 }),
        FromLeader::Alone { why } => Body::Alone(v1::Alone { why: short(why) }),
        FromLeader::Idle => Body::Idle(v1::Idle {}),
        FromLeader::Settled { at } => Body::Settled(v1::Settled {
            at: at.map(convert::time_out),
        }),
        FromLeader::Broken { why } => Body::Broken(v1::Broken { why: short(why) }),
        FromLeader::Newest(newest) => Body::Newest(v1::NewestInstant {
            instant: newest.id.0,
            at: Some(convert::time_out(newest.at)),
        }),
    };
    v1::LeaderMessage {
        number: message.number,
        body: Some(body),
    }
}

pub(super) fn leader_in(message: v1::LeaderMessage) -> Result<Numbered<FromLeader>, Malformed> {
    use leader_message::Body;
    let said = match message.body.ok_or(Malformed::Missing("body"))? {
        Body::Seated(_) => FromLeader::Seated,
        Body::Together(together) => FromLeader::Together(InstantId(together.instant)),
        Body::Alone(alone) => FromLeader::Alone {
            why: short(alone.why),
        },
        Body::Idle(_) => FromLeader::Idle,
        Body::Settled(settled) => FromLeader::Settled {
            at: match &settled.at {
                Some(at) => Some(convert::time_in(Some(at), "settled.at")?),
                None => None,
            },
        },
        Body::Broken(broken) => FromLeader::Broken {
            why: short(broken.why),
        },
        Body::Newest(newest) => FromLeader::Newest(GroupInstant {
            id: InstantId(newest.instant),
            at: convert::time_in(newest.at.as_ref(), "newest.at")?,
        }),
    };
    Ok(Numbered {
        number: message.number,
        said,
    })
}

fn short(reason: String) -> String {
    if reason.len() <= LONGEST_REASON {
        return reason;
    }
    reason.chars().take(LONGEST_REASON / 4).collect()
}
