//! What is wrong with a state, and where.

/// One thing that is wrong with a state or a delta.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {problem}")]
pub struct StateError {
    /// The object, as a user knows it: `nexthop 489`, `route vrf 18 192.168.1.0/24`.
    pub object: String,
    /// The field: `direct_nexthop`.
    pub field: String,
    /// What is wrong and what to do.
    pub problem: String,
}

impl StateError {
    /// An error about a field of an object.
    pub fn new(object: impl Into<String>, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { object: object.into(), field: field.into(), problem: problem.into() }
    }
}

/// All that is wrong with a state, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateErrors(pub Vec<StateError>);

impl std::fmt::Display for StateErrors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for StateErrors {}
