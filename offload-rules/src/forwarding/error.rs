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

/// Errors as they are found. Reports the first [`Self::LIMIT`]; the others are counted.
#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: Vec<StateError>,
    more: usize,
}

impl Findings {
    const LIMIT: usize = 100;

    /// One more error. Texts are made only for those that will be shown.
    pub(super) fn push(
        &mut self,
        object: impl std::fmt::Display,
        field: impl std::fmt::Display,
        problem: impl std::fmt::Display,
    ) {
        if self.errors.len() < Self::LIMIT {
            self.errors.push(StateError::new(object.to_string(), field.to_string(), problem.to_string()));
        } else {
            self.more += 1;
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// `Ok` when nothing has been found.
    pub(super) fn into_result(mut self) -> Result<(), StateErrors> {
        if self.errors.is_empty() {
            return Ok(());
        }
        if self.more > 0 {
            let problem =
                format!("{} more errors are not shown; correct the first {} and try again", self.more, Self::LIMIT);
            self.errors.push(StateError::new("state", "errors", problem));
        }
        Err(StateErrors(self.errors))
    }
}
