//! Every way in which a target refuses, as the source is told it.

use farshore_proto::v1::{self, RefusalReason};
use farshore_transfer::{NoCommonVersion, TooEarly, Violation};
use farshore_vault::{
    AbandonRefused, AppendRefused, BeginRefused, SealRefused, StorageError, SyncRefused, VaultError,
    VolumesRefused, WrongEpoch,
};

use super::TargetsError;
use crate::convert::{Malformed, epoch_out};

/// The words of a refusal; the stream ends after it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) reason: RefusalReason,
    pub(crate) message: String,
    pub(crate) current: Option<v1::Epoch>,
}

impl Refusal {
    pub(crate) fn new(reason: RefusalReason, message: impl ToString) -> Self {
        Self {
            reason,
            message: message.to_string(),
            current: None,
        }
    }

    pub(crate) fn into_message(self) -> v1::Refused {
        v1::Refused {
            reason: self.reason.into(),
            message: self.message,
            current_epoch: self.current,
        }
    }
}

impl From<&WrongEpoch> for Refusal {
    fn from(error: &WrongEpoch) -> Self {
        Self {
            reason: RefusalReason::Fenced,
            message: error.to_string(),
            current: error.current.map(epoch_out),
        }
    }
}

impl From<&StorageError> for Refusal {
    fn from(error: &StorageError) -> Self {
        let reason = if error.is_out_of_space() {
            RefusalReason::NoSpace
        } else {
            RefusalReason::Storage
        };
        Self::new(reason, crate::source::chain(error))
    }
}

impl From<Malformed> for Refusal {
    fn from(error: Malformed) -> Self {
        let reason = match error {
            Malformed::Frame(_) => RefusalReason::BadFrame,
            Malformed::Missing(_) | Malformed::Refused { .. } => RefusalReason::Malformed,
        };
        Self::new(reason, error)
    }
}

impl From<TooEarly> for Refusal {
    fn from(error: TooEarly) -> Self {
        Self::new(RefusalReason::Gap, error)
    }
}

impl From<NoCommonVersion> for Refusal {
    fn from(error: NoCommonVersion) -> Self {
        Self::new(RefusalReason::Version, error)
    }
}

impl From<Violation> for Refusal {
    fn from(error: Violation) -> Self {
        let reason = match error {
            Violation::OutOfOrder { .. } => RefusalReason::Malformed,
            Violation::WrongCycle { .. } => RefusalReason::WrongCycle,
        };
        Self::new(reason, error)
    }
}

impl From<VaultError> for Refusal {
    fn from(error: VaultError) -> Self {
        let reason = match error {
            VaultError::UnknownChain(_) => RefusalReason::UnknownChain,
            VaultError::ChainDiffers { .. } | VaultError::DescriptionRefused => RefusalReason::Malformed,
            VaultError::WriterTaken(_) => RefusalReason::Busy,
            VaultError::File(_)
            | VaultError::NotAVault { .. }
            | VaultError::NotEmpty { .. }
            | VaultError::Locked { .. }
            | VaultError::Randomness(_) => RefusalReason::Storage,
        };
        Self::new(reason, crate::source::chain(&error))
    }
}

impl From<TargetsError> for Refusal {
    fn from(error: TargetsError) -> Self {
        match error {
            TargetsError::Vault(error) => error.into(),
            TargetsError::State(error) => Self::new(RefusalReason::Storage, crate::source::chain(&error)),
        }
    }
}

impl From<BeginRefused> for Refusal {
    fn from(error: BeginRefused) -> Self {
        match &error {
            BeginRefused::WrongEpoch(wrong) => wrong.into(),
            BeginRefused::WrongBase { .. } | BeginRefused::WrongKind { .. } => {
                Self::new(RefusalReason::WrongBase, error)
            }
            BeginRefused::CycleOpen { .. } => Self::new(RefusalReason::WrongCycle, error),
            BeginRefused::Broken(_) => Self::new(RefusalReason::Storage, error),
            BeginRefused::Storage(storage) => storage.into(),
        }
    }
}

impl From<VolumesRefused> for Refusal {
    fn from(error: VolumesRefused) -> Self {
        match &error {
            VolumesRefused::WrongEpoch(wrong) => wrong.into(),
            VolumesRefused::OtherName { .. }
            | VolumesRefused::Count { .. }
            | VolumesRefused::Shrinks { .. }
            | VolumesRefused::Gone(_) => Self::new(RefusalReason::WrongVolumes, error),
            VolumesRefused::CycleOpen(_) => Self::new(RefusalReason::WrongCycle, error),
            VolumesRefused::Broken(_) => Self::new(RefusalReason::Storage, error),
            VolumesRefused::Storage(storage) => storage.into(),
        }
    }
}

impl From<AppendRefused> for Refusal {
    fn from(error: AppendRefused) -> Self {
        match &error {
            AppendRefused::WrongEpoch(wrong) => wrong.into(),
            AppendRefused::NotBegun { .. } | AppendRefused::NoOpenCycle => {
                Self::new(RefusalReason::WrongCycle, error)
            }
            AppendRefused::Gap { .. } => Self::new(RefusalReason::Gap, error),
            AppendRefused::UnknownVolume { .. } | AppendRefused::OutOfBounds { .. } => {
                Self::new(RefusalReason::BadFrame, error)
            }
            AppendRefused::Broken(_) => Self::new(RefusalReason::Storage, error),
            AppendRefused::Storage(storage) => storage.into(),
        }
    }
}

impl From<SyncRefused> for Refusal {
    fn from(error: SyncRefused) -> Self {
        match &error {
            SyncRefused::NoOpenCycle => Self::new(RefusalReason::WrongCycle, error),
            SyncRefused::Broken(_) => Self::new(RefusalReason::Storage, error),
            SyncRefused::Storage(storage) => storage.into(),
        }
    }
}

impl From<AbandonRefused> for Refusal {
    fn from(error: AbandonRefused) -> Self {
        match &error {
            AbandonRefused::WrongEpoch(wrong) => wrong.into(),
            AbandonRefused::NoOpenCycle | AbandonRefused::OtherCycle { .. } => {
                Self::new(RefusalReason::WrongCycle, error)
            }
            AbandonRefused::Broken(_) => Self::new(RefusalReason::Storage, error),
            AbandonRefused::Storage(storage) => storage.into(),
        }
    }
}

impl From<SealRefused> for Refusal {
    fn from(error: SealRefused) -> Self {
        match &error {
            SealRefused::WrongEpoch(wrong) => wrong.into(),
            SealRefused::NotBegun { .. } | SealRefused::NoOpenCycle | SealRefused::OtherCycle { .. } => {
                Self::new(RefusalReason::WrongCycle, error)
            }
            SealRefused::WrongSequence { .. } | SealRefused::WrongParent { .. } => {
                Self::new(RefusalReason::WrongBase, error)
            }
            SealRefused::Messages { .. } | SealRefused::Counts { .. } => Self::new(RefusalReason::Gap, error),
            SealRefused::VolumeCount { .. } => Self::new(RefusalReason::Malformed, error),
            SealRefused::ChangeDigest { .. } | SealRefused::SealedOtherwise { .. } => {
                Self::new(RefusalReason::WrongDigest, error)
            }
            SealRefused::Broken(_) => Self::new(RefusalReason::Storage, error),
            SealRefused::Storage(storage) => storage.into(),
        }
    }
}
