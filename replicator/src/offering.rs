//! The words by which a target offers a connection that it dialled, as both sides read and write them
//! (`replication.proto`, `Offer`).

use std::{io, time::Duration};

use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// What an offered connection begins with. HTTP/2 begins with another byte.
pub(crate) const MAGIC: [u8; 4] = *b"FSOF";
pub(crate) const VERSION: u32 = 1;
/// How often the source says that it keeps an offered connection.
pub(crate) const KEPT_INTERVAL: Duration = Duration::from_secs(1);
/// How long either side waits for the other's next word.
pub(crate) const WORD_LIMIT: Duration = Duration::from_secs(5);
/// A word is a few dozen bytes, and a refusal a sentence.
const WORD_BYTES: usize = 4096;

/// Says a word.
pub(crate) async fn say<Word: Message>(stream: &mut TcpStream, word: &Word) -> io::Result<()> {
    let encoded = word.encode_to_vec();
    let length = u32::try_from(encoded.len()).map_err(io::Error::other)?;
    let framed = [length.to_be_bytes().as_slice(), &encoded].concat();
    within(stream.write_all(&framed)).await
}

/// Hears the next word.
pub(crate) async fn hear<Word: Message + Default>(stream: &mut TcpStream) -> io::Result<Word> {
    let heard = async {
        let length = stream.read_u32().await?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        if length > WORD_BYTES {
            return Err(malformed(format!("a word of {length} bytes")));
        }
        let mut encoded = vec![0; length];
        stream.read_exact(&mut encoded).await?;
        Word::decode(encoded.as_slice()).map_err(|error| malformed(error.to_string()))
    };
    within(heard).await
}

/// Hears that a connection is offered.
pub(crate) async fn hear_magic(stream: &mut TcpStream) -> io::Result<()> {
    let mut magic = [0; MAGIC.len()];
    within(stream.read_exact(&mut magic)).await?;
    if magic == MAGIC {
        return Ok(());
    }
    Err(malformed("no offer".to_owned()))
}

/// Says that a connection is offered.
pub(crate) async fn say_magic(stream: &mut TcpStream) -> io::Result<()> {
    within(stream.write_all(&MAGIC)).await
}

async fn within<T>(word: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(WORD_LIMIT, word)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no word within {WORD_LIMIT:?}")))?
}

fn malformed(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
