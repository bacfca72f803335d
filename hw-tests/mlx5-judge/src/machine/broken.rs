//! Why a packet cannot be executed.

/// What the device can't do with a packet as it is asked: the rule is not what its maker thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The header that is to be written or taken off is not there.
    #[error("there is no {0} header")]
    NoHeader(&'static str),
    /// A field that no rule of ours writes.
    #[error("modify-header field {0:#x} is not modelled")]
    Field(u32),
    /// An operation that no rule of ours uses.
    #[error("modify-header operation {0} is not modelled")]
    Command(u32),
    /// Not whole, or bits that a field does not have.
    #[error("modify-header commands beyond their field")]
    Commands,
    /// An action that no rule of ours uses.
    #[error("{0} is not modelled")]
    Action(&'static str),
    /// What is named is not in the record.
    #[error("{0} is not in the record")]
    Missing(&'static str),
    /// From table to table without end.
    #[error("tables lead to each other without end")]
    Endless,
}
