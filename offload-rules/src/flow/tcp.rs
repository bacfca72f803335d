//! TCP state of a pair.
