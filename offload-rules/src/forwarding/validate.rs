//! Whether a state is consistent: every reference, range, overlap and cycle.
