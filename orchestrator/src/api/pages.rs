//! Decides which part of a list one answer holds.
//!
//! A page token names the last item that was shown, so that a page after it is right also when items came or
//! went meanwhile.

use std::cmp::Ordering;

use crate::orders::Refusal;

/// What fits into one message however large the items are.
const MOST_ITEMS: usize = 500;
const TOKEN_PREFIX: &str = "after:";

/// The order of a list by its items' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sorting {
    Ascending,
    Descending,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageRequest<'a> {
    pub(super) size: u32,
    pub(super) token: &'a str,
}

/// The items of a page, and the token of the next one; empty if there is none.
pub(super) fn page<T>(
    mut items: Vec<(String, T)>,
    sorting: Sorting,
    request: PageRequest<'_>,
) -> Result<(Vec<T>, String), Refusal> {
    let ordered = |left: &str, right: &str| match sorting {
        Sorting::Ascending => left.cmp(right),
        Sorting::Descending => right.cmp(left),
    };
    items.sort_by(|(left, _), (right, _)| ordered(left, right));
    if !request.token.is_empty() {
        let last = request
            .token
            .strip_prefix(TOKEN_PREFIX)
            .ok_or_else(|| Refusal::InvalidField {
                field: "page_token",
                message: "only a token of an earlier answer is accepted".to_owned(),
            })?;
        items.retain(|(name, _)| ordered(name, last) == Ordering::Greater);
    }
    let size = match usize::try_from(request.size).unwrap_or(MOST_ITEMS) {
        0 => MOST_ITEMS,
        size => size.min(MOST_ITEMS),
    };
    let has_more = items.len() > size;
    items.truncate(size);
    let next = match items.last() {
        Some((name, _)) if has_more => format!("{TOKEN_PREFIX}{name}"),
        Some(_) | None => String::new(),
    };
    Ok((items.into_iter().map(|(_, item)| item).collect(), next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(sorting: Sorting) -> Vec<u32> {
        let items: Vec<_> = (0..10u32)
            .map(|number| (format!("{number:02}"), number))
            .collect();
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let request = PageRequest {
                size: 3,
                token: &token,
            };
            let (page, next) = page(items.clone(), sorting, request).unwrap();
            seen.extend(page);
            if next.is_empty() {
                return seen;
            }
            token = next;
        }
    }

    #[test]
    fn pages_hold_every_item_once_and_in_order() {
        assert_eq!(all(Sorting::Ascending), (0..10).collect::<Vec<_>>());
        assert_eq!(all(Sorting::Descending), (0..10).rev().collect::<Vec<_>>());
    }

    #[test]
    fn a_token_that_we_did_not_give_is_refused() {
        let request = PageRequest {
            size: 0,
            token: "nonsense",
        };
        assert!(page(vec![("a".to_owned(), ())], Sorting::Ascending, request).is_err());
    }
}
