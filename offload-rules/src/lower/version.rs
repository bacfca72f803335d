//! DPDK's version: what a driver takes differs by it.

use std::fmt;

/// Year and month of a DPDK release, as in 22.11. Stable updates (22.11.11) add no capabilities and are not told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DpdkVersion {
    /// Year of the century.
    pub year: u8,
    /// Month.
    pub month: u8,
}

impl DpdkVersion {
    /// The oldest release that is supported.
    pub const V22_11: Self = Self::new(22, 11);
    /// Templates of actions carry masks, `rte_security` has its opaque context.
    pub const V23_11: Self = Self::new(23, 11);
    /// The release whose drivers the profiles were compared with.
    pub const V24_11: Self = Self::new(24, 11);

    /// A release.
    #[must_use]
    pub const fn new(year: u8, month: u8) -> Self {
        Self { year, month }
    }

    /// Is it this release or a later one?
    #[must_use]
    pub const fn since(self, release: Self) -> bool {
        self.year > release.year || (self.year == release.year && self.month >= release.month)
    }
}

impl fmt::Display for DpdkVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}.{:02}", self.year, self.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_later_by_its_year_before_its_month() {
        assert!(DpdkVersion::V24_11.since(DpdkVersion::V22_11));
        assert!(DpdkVersion::new(24, 3).since(DpdkVersion::V23_11));
        assert!(DpdkVersion::V22_11.since(DpdkVersion::V22_11));
        assert!(!DpdkVersion::V22_11.since(DpdkVersion::new(23, 3)));
        assert_eq!(DpdkVersion::new(24, 3).to_string(), "24.03");
    }
}
