//! Decides what a request costs and whether it is done, refused at once, or the last one.

use bytes::Bytes;

use super::answers::{self, Envelope};
use super::negotiation::{Agreement, StatusContext};
use crate::wire::READ_BYTES_MAXIMUM;
use crate::wire::error_code::ErrorCode;
use crate::wire::reply::ReplyForm;
use crate::wire::request::{Command, FLAG_DO_NOT_FRAGMENT, FLAG_ONE_DESCRIPTOR, Request};

/// The longest payload of a refused write that is read past, so that the connection may go on.
const DISCARDED_BYTES_MAXIMUM: u32 = READ_BYTES_MAXIMUM;

/// The longest read that is answered by one chunk where the client wants that: the protocol asks for 64 KiB at least.
pub(super) const WHOLE_READ_BYTES_MAXIMUM: u32 = 2 * 1024 * 1024;

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The answer is known already.
    Answer(Bytes),
    /// The answer is known, but a payload has to be read past first.
    DiscardThenAnswer { payload_bytes: u32, answer: Bytes },
    /// The export has to be asked.
    Work(Work),
    /// The client leaves.
    Disconnect,
    /// A payload follows that is too long even to be read past.
    Hang,
}

/// A question to the export, known to lie within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) envelope: Envelope,
    pub(super) offset: u64,
    pub(super) length: u32,
    pub(super) question: Question,
}

/// What the export is asked, and how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    ReadSimple,
    /// One chunk, whatever is in it.
    ReadWhole,
    /// Holes as holes.
    ReadSparse,
    Status(StatusExtent),
}

/// How much of the status is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StatusExtent {
    OneRun,
    AllRuns,
}

impl Work {
    /// How many bytes of memory the answer may take.
    pub(super) fn answer_bytes(&self) -> u32 {
        match self.question {
            Question::ReadSimple | Question::ReadWhole | Question::ReadSparse => self.length,
            Question::Status(_) => answers::STATUS_ANSWER_BYTES_MAXIMUM,
        }
    }
}

pub(super) fn admit(request: &Request, agreement: &Agreement) -> Admission {
    let envelope = Envelope::last(agreement.form, request.cookie);
    let refused = |(code, reason)| answers::error(envelope, code, reason);
    let read_only = (ErrorCode::NOT_PERMITTED, "the export is read-only");
    let unknown = (ErrorCode::INVALID, "the command is not known here");
    match request.command {
        Command::DISCONNECT => Admission::Disconnect,
        Command::FLUSH => Admission::Answer(answers::done(envelope)),
        Command::WRITE if request.length > DISCARDED_BYTES_MAXIMUM => Admission::Hang,
        Command::WRITE => Admission::DiscardThenAnswer {
            payload_bytes: request.length,
            answer: refused(read_only),
        },
        Command::TRIM | Command::WRITE_ZEROES => Admission::Answer(refused(read_only)),
        Command::READ | Command::BLOCK_STATUS => match question(request, agreement) {
            Ok(question) => Admission::Work(Work {
                envelope,
                offset: request.offset,
                length: request.length,
                question,
            }),
            Err(refusal) => Admission::Answer(refused(refusal)),
        },
        _ => Admission::Answer(refused(unknown)),
    }
}

/// A refusal: the code, and the reason for people.
type Refusal = (ErrorCode, &'static str);

fn question(request: &Request, agreement: &Agreement) -> Result<Question, Refusal> {
    let invalid = |reason| Err((ErrorCode::INVALID, reason));
    let end = request.offset.checked_add(u64::from(request.length));
    if end.is_none_or(|end| end > agreement.size_bytes) {
        return invalid("the range is not within the export");
    }
    if request.length == 0 {
        return invalid("the range is empty");
    }
    if request.command == Command::READ {
        return read_question(request, agreement.form);
    }
    match (agreement.status, request.flags) {
        (StatusContext::NotAgreed, _) => invalid("no metadata context was agreed on"),
        (StatusContext::BaseAllocation, 0) => Ok(Question::Status(StatusExtent::AllRuns)),
        (StatusContext::BaseAllocation, FLAG_ONE_DESCRIPTOR) => Ok(Question::Status(StatusExtent::OneRun)),
        (StatusContext::BaseAllocation, _) => invalid("the flags do not fit a block status"),
    }
}

fn read_question(request: &Request, form: ReplyForm) -> Result<Question, Refusal> {
    let invalid = |reason| Err((ErrorCode::INVALID, reason));
    if request.length > READ_BYTES_MAXIMUM {
        return invalid("the read is longer than 32 MiB");
    }
    match (form, request.flags) {
        (ReplyForm::Simple, 0) => Ok(Question::ReadSimple),
        (ReplyForm::Structured, 0) => Ok(Question::ReadSparse),
        (ReplyForm::Structured, FLAG_DO_NOT_FRAGMENT) if request.length > WHOLE_READ_BYTES_MAXIMUM => Err((
            ErrorCode::OVERFLOW,
            "a read of more than 2 MiB is answered in fragments only",
        )),
        (ReplyForm::Structured, FLAG_DO_NOT_FRAGMENT) => Ok(Question::ReadWhole),
        (ReplyForm::Simple | ReplyForm::Structured, _) => invalid("the flags do not fit a read"),
    }
}
