//! Carries the handshake between the stream and the decisions about it.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::ServeError;
use super::negotiation::{Agreement, Negotiation, Outcome, Padding};
use crate::export::Exports;
use crate::wire::OPTION_BYTES_MAXIMUM;
use crate::wire::handshake::{
    FLAG_FIXED_NEWSTYLE, FLAG_NO_ZEROES, OPTION_HEADER_BYTES, OptionHeader, put_greeting,
};

/// Agrees with the client on an export; `None` when the client left instead.
pub(super) async fn shake_hands<R, W>(
    reader: &mut R,
    writer: &mut W,
    exports: &Exports,
) -> Result<Option<Agreement>, ServeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut output = BytesMut::new();
    put_greeting(&mut output, FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
    writer.write_all(&output).await?;

    let padding = padding(reader.read_u32().await?)?;
    let mut negotiation = Negotiation::new(exports, padding);
    let mut data = Vec::new();
    loop {
        let mut header = [0; OPTION_HEADER_BYTES];
        reader.read_exact(&mut header).await?;
        let header = OptionHeader::decode(&header)?;
        if header.data_bytes > OPTION_BYTES_MAXIMUM {
            return Err(ServeError::OptionTooLong {
                option: header.option,
                data_bytes: header.data_bytes,
            });
        }
        data.resize(usize::try_from(header.data_bytes).unwrap_or(usize::MAX), 0);
        reader.read_exact(&mut data).await?;
        output.clear();
        let outcome = negotiation.answer(header.option, &data, &mut output);
        let written = writer.write_all(&output).await;
        match outcome {
            Outcome::Continue => written?,
            Outcome::Transmit(agreement) => {
                written?;
                return Ok(Some(agreement));
            }
            // A client that leaves may well be gone before it reads the answer.
            Outcome::Leave => return Ok(None),
            Outcome::Hang => return Err(ServeError::UnknownExport),
        }
    }
}

fn padding(client_flags: u32) -> Result<Padding, ServeError> {
    let fixed = u32::from(FLAG_FIXED_NEWSTYLE);
    let no_zeroes = u32::from(FLAG_NO_ZEROES);
    if client_flags & fixed == 0 || client_flags & !(fixed | no_zeroes) != 0 {
        return Err(ServeError::ClientFlags { flags: client_flags });
    }
    Ok(if client_flags & no_zeroes == 0 {
        Padding::Zeroes
    } else {
        Padding::Omitted
    })
}
