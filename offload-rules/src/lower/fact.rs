//! Facts about NICs, each with its source.

/// Something known of a NIC, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub source: &'static str,
}

impl<T> Fact<T> {
    /// A fact.
    #[must_use]
    pub const fn new(value: T, source: &'static str) -> Self {
        Self { value, source }
    }
}

/// A fact as text, for operators and documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactText {
    /// The name of the fact.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Where it is written.
    pub source: &'static str,
}

/// Short for [`Fact::new`].
pub(super) const fn fact<T>(value: T, source: &'static str) -> Fact<T> {
    Fact::new(value, source)
}
