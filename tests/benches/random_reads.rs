//! An NBD client that reads blocks at random places and always keeps the same number of requests in flight on one
//! connection. It does as little as it can, so that what is measured is the server.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::{BufMut, BytesMut};
use farshore_nbd::wire::{
    handshake::{
        FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, GREETING_BYTES, OPTION_REPLY_HEADER_BYTES, OptionCode,
        OptionHeader, OptionReply, OptionReplyHeader, greeting,
    },
    options::{ExportChoice, ExportFact},
    reply::{CHUNK_HEADER_BYTES, ChunkHeader, ReplyForm, reply_form},
    request::{Command, REQUEST_BYTES, Request},
};

use crate::noise::Noise;

/// How much is received at once.
const RECEIVED_BYTES: usize = 256 << 10;
const BLOCK_BYTES: u32 = 4096;
/// A server that sends nothing for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(30);

/// A connection with structured replies, as QEMU and nbdcopy have it.
pub(crate) struct RandomReads {
    stream: UnixStream,
    size_bytes: u64,
    noise: Noise,
}

impl RandomReads {
    /// Agrees on an export.
    pub(crate) fn connect(socket: &Path, export: &str, seed: u64) -> anyhow::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let mut bytes = [0; GREETING_BYTES];
        stream.read_exact(&mut bytes)?;
        greeting(&bytes)?;
        let flags = u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        stream.write_all(&flags.to_be_bytes())?;
        option(&mut stream, OptionCode::STRUCTURED_REPLY, &[])?;
        let mut choice = BytesMut::new();
        ExportChoice {
            name: export.to_owned(),
            facts: Vec::new(),
        }
        .put(&mut choice)?;
        let size = option(&mut stream, OptionCode::GO, &choice)?;
        Ok(Self {
            stream,
            size_bytes: size.context("the server does not say the export's size")?,
            noise: Noise::new(seed),
        })
    }

    /// Reads for so long; how many reads a second were answered.
    pub(crate) fn per_second(&mut self, depth: u32, duration: Duration) -> anyhow::Result<f64> {
        let mut answers = Answers::default();
        let mut received = vec![0; RECEIVED_BYTES];
        self.ask(depth)?;
        let began = Instant::now();
        let mut done = 0;
        while began.elapsed() < duration {
            let length = self.stream.read(&mut received)?;
            ensure!(length > 0, "the server closed the connection");
            let finished = answers.take(received.get(..length).unwrap_or_default())?;
            done += finished;
            self.ask(finished)?;
        }
        let took = began.elapsed();
        let mut left = depth;
        while left > 0 {
            let length = self.stream.read(&mut received)?;
            ensure!(length > 0, "the server closed the connection");
            left -= answers.take(received.get(..length).unwrap_or_default())?;
        }
        Ok(f64::from(done) / took.as_secs_f64())
    }

    fn ask(&mut self, requests: u32) -> anyhow::Result<()> {
        let mut bytes = BytesMut::with_capacity(REQUEST_BYTES * 32);
        for _ in 0..requests {
            let block = self.noise.below(self.size_bytes / u64::from(BLOCK_BYTES));
            Request {
                flags: 0,
                command: Command::READ,
                cookie: block,
                offset: block * u64::from(BLOCK_BYTES),
                length: BLOCK_BYTES,
            }
            .put(&mut bytes);
        }
        Ok(self.stream.write_all(&bytes)?)
    }
}

/// What has been received of the answers, which end anywhere within what is received at once.
#[derive(Default)]
struct Answers {
    header: Vec<u8>,
    payload_left: usize,
    last: bool,
}

impl Answers {
    /// Takes in what was received; how many requests it has ended.
    fn take(&mut self, mut bytes: &[u8]) -> anyhow::Result<u32> {
        let mut finished = 0;
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let part = self.payload_left.min(bytes.len());
                bytes = bytes.get(part..).unwrap_or_default();
                self.payload_left -= part;
            } else {
                let part = (CHUNK_HEADER_BYTES - self.header.len()).min(bytes.len());
                let (head, rest) = bytes.split_at(part);
                self.header.extend_from_slice(head);
                bytes = rest;
                if self.header.len() < CHUNK_HEADER_BYTES {
                    break;
                }
                self.begin_chunk()?;
            }
            if self.payload_left == 0 && self.last {
                finished += 1;
                self.last = false;
            }
        }
        Ok(finished)
    }

    fn begin_chunk(&mut self) -> anyhow::Result<()> {
        let (magic, rest) = self.header.split_first_chunk().context("a short header")?;
        ensure!(
            reply_form(magic)? == ReplyForm::Structured,
            "the reply is not structured"
        );
        let chunk = ChunkHeader::decode(rest.first_chunk().context("a short header")?)?;
        ensure!(!chunk.kind.is_error(), "the server answered with an error");
        self.payload_left = usize::try_from(chunk.payload_bytes)?;
        self.last = chunk.is_last();
        self.header.clear();
        Ok(())
    }
}

/// Sends an option and reads its answers; the export's size, if they say it.
fn option(stream: &mut UnixStream, option: OptionCode, data: &[u8]) -> anyhow::Result<Option<u64>> {
    let mut message = BytesMut::new();
    OptionHeader {
        option,
        data_bytes: u32::try_from(data.len())?,
    }
    .put(&mut message);
    message.put_slice(data);
    stream.write_all(&message)?;
    let mut size = None;
    loop {
        let mut header = [0; OPTION_REPLY_HEADER_BYTES];
        stream.read_exact(&mut header)?;
        let header = OptionReplyHeader::decode(&header)?;
        let mut data = vec![0; usize::try_from(header.data_bytes)?];
        stream.read_exact(&mut data)?;
        if header.reply == OptionReply::ACKNOWLEDGED {
            return Ok(size);
        }
        if header.reply.is_refusal() {
            bail!("{option} was refused: {}", String::from_utf8_lossy(&data));
        }
        if header.reply == OptionReply::INFO
            && let ExportFact::Export { size_bytes, .. } = ExportFact::decode(&data)?
        {
            size = Some(size_bytes);
        }
    }
}
