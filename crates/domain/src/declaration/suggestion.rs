//! What the writer of a document may have meant.

use super::text::TextRefused;

/// The one of `known` that is near enough to `text` to be meant by it.
pub(super) fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = text.to_lowercase().replace(['-', '_', ' '], "");
    let bound = (folded.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|word| {
            let distance = strsim::damerau_levenshtein(&folded, &word.to_lowercase().replace('-', ""));
            (distance, word)
        })
        .filter(|(distance, _)| *distance <= bound)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// The choice of this name.
pub(super) fn choose<T: Clone>(what: &str, choices: &[(&str, T)], text: &str) -> Result<T, TextRefused> {
    if let Some((_, chosen)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(chosen.clone());
    }
    let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
    let expected = format!("{what}; accepted: {}", names.join(", "));
    let meant = match choices {
        [(only, _)] => Some(*only),
        _ => nearest(text, choices.iter().map(|(name, _)| *name)),
    };
    Err(TextRefused::new(text, expected, meant.map(str::to_owned)))
}
