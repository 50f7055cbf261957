//! An order that comes again under the same key has the same effect and the same answer, once.

use farshore_blocks::{Digest, clock::WallTime};

use super::Refusal;
use crate::{
    records::{Answer, AnswerRecord, Work, preview, transact},
    store::Store,
};

/// A key, as it came with a request.
#[derive(Debug, Clone)]
pub struct Idempotency {
    key: Option<String>,
    request: Digest,
}

impl Idempotency {
    /// The key of a request of this method. An empty key is none: the order is then made every time.
    ///
    /// # Errors
    /// When the key cannot be one.
    pub fn of(method: &str, key: &str, request: &[u8]) -> Result<Self, Refusal> {
        if key.len() > MAX_KEY_BYTES || key.chars().any(char::is_control) {
            return Err(Refusal::InvalidField {
                field: "idempotency_key",
                message: format!("at most {MAX_KEY_BYTES} bytes without control characters are accepted"),
            });
        }
        Ok(Self {
            key: (!key.is_empty()).then(|| format!("{method}/{key}")),
            request: Digest::of(request),
        })
    }
}

/// Room for any identifier that is in use.
const MAX_KEY_BYTES: usize = 128;

/// What was answered to this very request before, if its key was used.
///
/// # Errors
/// When the key was used for another request.
pub fn answered(store: &dyn Store, idempotency: &Idempotency) -> Result<Option<Answer>, Refusal> {
    preview(store, |work| before(work, idempotency))
}

fn before(work: &mut Work<'_>, idempotency: &Idempotency) -> Result<Option<Answer>, Refusal> {
    let Some(key) = &idempotency.key else {
        return Ok(None);
    };
    let Some(before) = work.get::<AnswerRecord>(key)? else {
        return Ok(None);
    };
    if before.request != idempotency.request {
        return Err(Refusal::KeyReused { key: key.clone() });
    }
    Ok(Some(before.answer))
}

/// Makes the order, unless its key was used already: then its answer is repeated.
///
/// # Errors
/// What `order` refuses, or a key that was used for another request.
pub async fn once(
    store: &dyn Store,
    idempotency: &Idempotency,
    now: WallTime,
    mut order: impl FnMut(&mut Work<'_>) -> Result<Answer, Refusal>,
) -> Result<Answer, Refusal> {
    transact(store, |work| {
        let Some(key) = &idempotency.key else {
            return order(work);
        };
        if let Some(answer) = before(work, idempotency)? {
            return Ok(answer);
        }
        let answer = order(work)?;
        work.put(&AnswerRecord {
            key: key.clone(),
            request: idempotency.request,
            answer: answer.clone(),
            at: now,
        })?;
        Ok(answer)
    })
    .await
}
