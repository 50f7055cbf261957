//! In tests, the place where a read can be made to fail.

use std::{cell::Cell, io, path::Path};

use crate::storage::StorageError;

thread_local! {
    /// How many reads still pass before one fails; none of them does without a number.
    static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Lets the read behind the next `passing` ones of this thread fail.
pub(crate) fn fail_after(passing: Option<usize>) {
    LEFT.set(passing);
}

/// Whether that read has come.
pub(crate) fn has_failed() -> bool {
    LEFT.get().is_none()
}

pub(super) fn pass(path: &Path) -> Result<(), StorageError> {
    match LEFT.get() {
        None => Ok(()),
        Some(0) => {
            LEFT.set(None);
            Err(StorageError::new(
                "read",
                path,
                io::Error::other("the medium has an error"),
            ))
        }
        Some(left) => {
            LEFT.set(Some(left - 1));
            Ok(())
        }
    }
}
