//! Messages that hold secrets, as they may be shown.

use std::fmt;

use crate::v1::SecurityAssociation;

/// Stands where a key was.
pub const REDACTED: &str = "redacted";

impl fmt::Debug for SecurityAssociation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecurityAssociation")
            .field("id", &self.id)
            .field("spi", &self.spi)
            .field("direction", &self.direction())
            .field("key", &REDACTED)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::v1::{ForwardingDelta, ForwardingState, SecurityAssociation};

    #[test]
    fn no_message_formats_a_key() {
        let sa = SecurityAssociation { id: 7, key: "00112233445566778899".to_owned(), ..Default::default() };
        let state = ForwardingState { sas: vec![sa.clone()], ..Default::default() };
        let delta = ForwardingDelta { sas: vec![sa.clone()], ..Default::default() };
        for text in [format!("{sa:?}"), format!("{state:?}"), format!("{delta:#?}")] {
            assert!(text.contains("redacted") && !text.contains("0011"), "{text}");
        }
    }
}
