//! What is written is read back, and no bytes make a decoder panic.

use bytes::BytesMut;
use proptest::prelude::*;

use super::handshake::{OptionCode, OptionHeader, OptionReply, OptionReplyHeader, greeting, put_greeting};
use super::options::{BlockSizes, ContextGrant, ContextQueries, ExportChoice, ExportFact, FactCode};
use super::reply::{
    ChunkHeader, ChunkKind, ErrorReport, WireDescriptor, block_status, hole, put_block_status,
};
use super::request::{Command, Request};
use super::{NAME_BYTES_MAXIMUM, WireError};

fn written(put: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut bytes = BytesMut::new();
    put(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ExportChoice::decode(&bytes);
        let _ = ContextQueries::decode(&bytes);
        let _ = ContextGrant::decode(&bytes);
        let _ = ExportFact::decode(&bytes);
        let _ = ErrorReport::decode(&bytes);
        let _ = block_status(&bytes);
        let _ = hole(&bytes);
        if let Some(bytes) = bytes.first_chunk() {
            let _ = greeting(bytes);
        }
        if let Some(bytes) = bytes.first_chunk() {
            let _ = Request::decode(bytes);
        }
        if let Some(bytes) = bytes.first_chunk() {
            let _ = OptionHeader::decode(bytes);
        }
        if let Some(bytes) = bytes.first_chunk() {
            let _ = OptionReplyHeader::decode(bytes);
        }
    }

    #[test]
    fn options_are_read_as_they_were_written(
        name in ".{0,40}",
        queries in proptest::collection::vec(".{0,20}", 0..6),
        facts in proptest::collection::vec(any::<u16>().prop_map(FactCode), 0..6),
        id in any::<u32>(),
    ) {
        let choice = ExportChoice { name: name.clone(), facts };
        prop_assert_eq!(ExportChoice::decode(&written(|bytes| choice.put(bytes).unwrap())), Ok(choice));
        let asked = ContextQueries { export: name.clone(), queries };
        let bytes = written(|bytes| asked.put(bytes).unwrap());
        for cut in 0..bytes.len() {
            prop_assert!(ContextQueries::decode(&bytes[..cut]).is_err());
        }
        prop_assert_eq!(ContextQueries::decode(&bytes), Ok(asked));
        let grant = ContextGrant { id, name };
        prop_assert_eq!(ContextGrant::decode(&written(|bytes| grant.put(bytes))), Ok(grant));
    }

    #[test]
    fn frames_are_read_as_they_were_written(
        code in any::<u16>(), flags in any::<u16>(), cookie in any::<u64>(), offset in any::<u64>(), length in any::<u32>(),
    ) {
        let request = Request { flags, command: Command(code), cookie, offset, length };
        prop_assert_eq!(Request::decode(written(|bytes| request.put(bytes)).first_chunk().unwrap()), Ok(request));
        let header = ChunkHeader { flags, kind: ChunkKind(code), cookie, payload_bytes: length };
        let bytes = written(|bytes| header.put(bytes));
        prop_assert_eq!(ChunkHeader::decode(bytes[4..].first_chunk().unwrap()), Ok(header));
        let option = OptionHeader { option: OptionCode(length), data_bytes: length ^ 1 };
        prop_assert_eq!(OptionHeader::decode(written(|bytes| option.put(bytes)).first_chunk().unwrap()), Ok(option));
        let reply = OptionReplyHeader { option: OptionCode(7), reply: OptionReply(length), data_bytes: 3 };
        prop_assert_eq!(OptionReplyHeader::decode(written(|bytes| reply.put(bytes)).first_chunk().unwrap()), Ok(reply));
        for fact in [
            ExportFact::Export { size_bytes: offset, flags },
            ExportFact::Name("name".to_owned()),
            ExportFact::BlockSize(BlockSizes { minimum: 1, preferred: length, maximum: 7 }),
        ] {
            prop_assert_eq!(ExportFact::decode(&written(|bytes| fact.put(bytes))), Ok(fact));
        }
    }
}

#[test]
fn the_greeting_is_the_one_of_the_protocol() {
    let bytes = written(|bytes| put_greeting(bytes, 3));
    assert_eq!(bytes.as_ref(), b"NBDMAGICIHAVEOPT\x00\x03");
    assert_eq!(greeting(bytes.first_chunk().unwrap()), Ok(3));
}

#[test]
fn a_name_beyond_the_bound_is_refused_by_its_length_alone() {
    let claimed = u32::try_from(NAME_BYTES_MAXIMUM + 1).unwrap();
    let refused = ExportChoice::decode(&claimed.to_be_bytes());
    assert_eq!(
        refused,
        Err(WireError::NameTooLong {
            length_bytes: NAME_BYTES_MAXIMUM + 1
        })
    );
    let long = ExportChoice {
        name: "x".repeat(NAME_BYTES_MAXIMUM + 1),
        facts: Vec::new(),
    };
    assert!(long.put(&mut BytesMut::new()).is_err());
}

#[test]
fn a_status_without_progress_is_malformed() {
    let empty = [WireDescriptor { length: 0, flags: 0 }];
    assert_eq!(
        block_status(&written(|bytes| put_block_status(bytes, 1, &empty))),
        Err(WireError::StatusMalformed)
    );
    assert_eq!(
        block_status(&written(|bytes| put_block_status(bytes, 1, &[]))),
        Err(WireError::StatusMalformed)
    );
    let good = [WireDescriptor {
        length: 512,
        flags: 3,
    }];
    let bytes = written(|bytes| put_block_status(bytes, 9, &good));
    assert_eq!(block_status(&bytes), Ok((9, good.to_vec())));
    assert_eq!(
        block_status(&bytes[..bytes.len() - 1]),
        Err(WireError::StatusMalformed)
    );
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let report = ErrorReport {
        code: super::error_code::ErrorCode(5),
        message: "ä".repeat(NAME_BYTES_MAXIMUM) + "x",
    };
    let read = ErrorReport::decode(&written(|bytes| report.put(bytes))).unwrap();
    assert_eq!(read.message, "ä".repeat(NAME_BYTES_MAXIMUM / 2));
}
