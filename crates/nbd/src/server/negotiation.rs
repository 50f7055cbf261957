//! Decides how each option of a handshake is answered, and what was agreed on in the end.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use crate::export::{Export, Exports};
use crate::wire::handshake::{OptionCode, OptionReply, OptionReplyHeader};
use crate::wire::options::{
    BASE_ALLOCATION, BlockSizes, CAN_MULTI_CONN, ContextGrant, ContextQueries, ExportChoice, ExportFact,
    FactCode, HAS_FLAGS, READ_ONLY, SEND_DF, SEND_FLUSH,
};
use crate::wire::reply::ReplyForm;
use crate::wire::{READ_BYTES_MAXIMUM, WireError};

/// The number under which the status of `base:allocation` travels.
pub(super) const ALLOCATION_CONTEXT_ID: u32 = 1;

/// What clients should prefer: the unit in which most disks are written.
const PREFERRED_BLOCK_BYTES: u32 = 4096;

/// Bytes that old clients expect after the answer to `NBD_OPT_EXPORT_NAME`.
const EXPORT_NAME_PADDING_BYTES: usize = 124;

/// Whether a connection reports block status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatusContext {
    NotAgreed,
    BaseAllocation,
}

/// Whether old padding is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Padding {
    Zeroes,
    Omitted,
}

/// What a connection is for, once its handshake is done.
pub(super) struct Agreement {
    pub(super) export: Arc<dyn Export>,
    pub(super) size_bytes: u64,
    pub(super) form: ReplyForm,
    pub(super) status: StatusContext,
}

/// How the handshake goes on after an option.
pub(super) enum Outcome {
    Continue,
    Transmit(Agreement),
    Leave,
    /// The option has no refusal: only closing the connection says it.
    Hang,
}

/// A handshake in progress.
pub(super) struct Negotiation<'a> {
    exports: &'a Exports,
    padding: Padding,
    form: ReplyForm,
    /// The export for which the status context was agreed on: for another one it would mean nothing.
    status_of: Option<String>,
}

impl<'a> Negotiation<'a> {
    pub(super) fn new(exports: &'a Exports, padding: Padding) -> Self {
        Self {
            exports,
            padding,
            form: ReplyForm::Simple,
            status_of: None,
        }
    }

    /// Appends the answers to `option` to `replies`.
    pub(super) fn answer(&mut self, option: OptionCode, data: &[u8], replies: &mut BytesMut) -> Outcome {
        match option {
            OptionCode::EXPORT_NAME => return self.take_by_name(data, replies),
            OptionCode::ABORT => {
                put_reply(replies, option, OptionReply::ACKNOWLEDGED, &[]);
                return Outcome::Leave;
            }
            OptionCode::LIST => self.list(data, replies),
            OptionCode::INFO | OptionCode::GO => return self.choose(option, data, replies),
            OptionCode::STRUCTURED_REPLY if data.is_empty() => {
                self.form = ReplyForm::Structured;
                put_reply(replies, option, OptionReply::ACKNOWLEDGED, &[]);
            }
            OptionCode::STRUCTURED_REPLY => refuse(replies, option, OptionReply::INVALID, "it takes no data"),
            OptionCode::LIST_META_CONTEXT | OptionCode::SET_META_CONTEXT => {
                self.contexts(option, data, replies);
            }
            _ => refuse(
                replies,
                option,
                OptionReply::UNSUPPORTED,
                "the option is not known here",
            ),
        }
        Outcome::Continue
    }

    fn list(&self, data: &[u8], replies: &mut BytesMut) {
        let option = OptionCode::LIST;
        if !data.is_empty() {
            return refuse(replies, option, OptionReply::INVALID, "it takes no data");
        }
        for name in self.exports.names() {
            let mut entry = BytesMut::new();
            entry.put_u32(u32::try_from(name.len()).unwrap_or(u32::MAX));
            entry.put_slice(name.as_bytes());
            put_reply(replies, option, OptionReply::SERVER, &entry);
        }
        put_reply(replies, option, OptionReply::ACKNOWLEDGED, &[]);
    }

    fn take_by_name(&self, data: &[u8], replies: &mut BytesMut) -> Outcome {
        let found = std::str::from_utf8(data)
            .ok()
            .and_then(|name| self.exports.find(name));
        let Some((name, export)) = found else {
            return Outcome::Hang;
        };
        let agreement = self.agreement(name, export);
        replies.put_u64(agreement.size_bytes);
        replies.put_u16(self.transmission_flags());
        if self.padding == Padding::Zeroes {
            replies.put_bytes(0, EXPORT_NAME_PADDING_BYTES);
        }
        Outcome::Transmit(agreement)
    }

    fn choose(&self, option: OptionCode, data: &[u8], replies: &mut BytesMut) -> Outcome {
        let choice = match ExportChoice::decode(data) {
            Ok(choice) => choice,
            Err(error) => {
                refuse_malformed(replies, option, &error);
                return Outcome::Continue;
            }
        };
        let Some((name, export)) = self.exports.find(&choice.name) else {
            refuse(replies, option, OptionReply::UNKNOWN, "there is no such export");
            return Outcome::Continue;
        };
        let agreement = self.agreement(name, export);
        put_fact(
            replies,
            option,
            &ExportFact::Export {
                size_bytes: agreement.size_bytes,
                flags: self.transmission_flags(),
            },
        );
        let sizes = BlockSizes {
            minimum: 1,
            preferred: PREFERRED_BLOCK_BYTES,
            maximum: READ_BYTES_MAXIMUM,
        };
        put_fact(replies, option, &ExportFact::BlockSize(sizes));
        if choice.facts.contains(&FactCode::NAME) {
            put_fact(replies, option, &ExportFact::Name(name.to_owned()));
        }
        put_reply(replies, option, OptionReply::ACKNOWLEDGED, &[]);
        if option == OptionCode::GO {
            Outcome::Transmit(agreement)
        } else {
            Outcome::Continue
        }
    }

    fn contexts(&mut self, option: OptionCode, data: &[u8], replies: &mut BytesMut) {
        let setting = option == OptionCode::SET_META_CONTEXT;
        if setting {
            // Whatever comes of this option, the contexts of an earlier one are gone.
            self.status_of = None;
        }
        let asked = match ContextQueries::decode(data) {
            Ok(asked) => asked,
            Err(error) => return refuse_malformed(replies, option, &error),
        };
        if self.form == ReplyForm::Simple {
            return refuse(
                replies,
                option,
                OptionReply::INVALID,
                "contexts need structured replies",
            );
        }
        let Some((name, _)) = self.exports.find(&asked.export) else {
            return refuse(replies, option, OptionReply::UNKNOWN, "there is no such export");
        };
        let named = asked.queries.iter().any(|query| query == BASE_ALLOCATION);
        let listed =
            !setting && (asked.queries.is_empty() || asked.queries.iter().any(|query| query == "base:"));
        if named || listed {
            let mut grant = BytesMut::new();
            ContextGrant {
                id: ALLOCATION_CONTEXT_ID,
                name: BASE_ALLOCATION.to_owned(),
            }
            .put(&mut grant);
            put_reply(replies, option, OptionReply::META_CONTEXT, &grant);
        }
        if setting && named {
            self.status_of = Some(name.to_owned());
        }
        put_reply(replies, option, OptionReply::ACKNOWLEDGED, &[]);
    }

    fn agreement(&self, name: &str, export: Arc<dyn Export>) -> Agreement {
        let status = match &self.status_of {
            Some(agreed) if agreed == name => StatusContext::BaseAllocation,
            Some(_) | None => StatusContext::NotAgreed,
        };
        Agreement {
            size_bytes: export.size(),
            export,
            form: self.form,
            status,
        }
    }

    fn transmission_flags(&self) -> u16 {
        // Every export is read-only, so that all connections see the same bytes without any flush between them.
        let always = HAS_FLAGS | READ_ONLY | SEND_FLUSH | CAN_MULTI_CONN;
        match self.form {
            ReplyForm::Simple => always,
            ReplyForm::Structured => always | SEND_DF,
        }
    }
}

fn put_fact(replies: &mut BytesMut, option: OptionCode, fact: &ExportFact) {
    let mut data = BytesMut::new();
    fact.put(&mut data);
    put_reply(replies, option, OptionReply::INFO, &data);
}

fn refuse_malformed(replies: &mut BytesMut, option: OptionCode, error: &WireError) {
    let reply = match error {
        WireError::NameTooLong { .. } => OptionReply::TOO_BIG,
        WireError::Truncated { .. }
        | WireError::Magic { .. }
        | WireError::Trailing { .. }
        | WireError::NameNotText
        | WireError::StatusMalformed => OptionReply::INVALID,
    };
    refuse(replies, option, reply, &error.to_string());
}

fn refuse(replies: &mut BytesMut, option: OptionCode, reply: OptionReply, reason: &str) {
    put_reply(replies, option, reply, reason.as_bytes());
}

fn put_reply(replies: &mut BytesMut, option: OptionCode, reply: OptionReply, data: &[u8]) {
    let data_bytes = u32::try_from(data.len()).unwrap_or(u32::MAX);
    OptionReplyHeader {
        option,
        reply,
        data_bytes,
    }
    .put(replies);
    replies.put_slice(data);
}
