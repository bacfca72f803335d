//! Identifiers as newtypes, so that a label is never taken for a nexthop.

use std::{fmt, str::FromStr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A value that is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Outside the range of the type.
    #[error("{value} is out of range, use {min}..={max}")]
    OutOfRange {
        /// What was given.
        value: u64,
        /// Smallest valid value.
        min: u64,
        /// Largest valid value.
        max: u64,
    },
    /// Not six hexadecimal octets.
    #[error("'{0}' is not a MAC address, write it as 00:00:5e:00:01:00")]
    Mac(String),
}

macro_rules! small_id {
    ($(#[$doc:meta])* $name:ident, $repr:ty, $min:expr, $max:expr) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        #[repr(transparent)]
        pub struct $name($repr);

        impl $name {
            /// The identifier with this number.
            ///
            /// # Errors
            /// [`IdError::OutOfRange`] when the number is not an identifier of this kind.
            pub const fn new(value: u32) -> Result<Self, IdError> {
                if value < $min || value > $max {
                    return Err(IdError::OutOfRange { value: value as u64, min: $min as u64, max: $max as u64 });
                }
                Ok(Self(value as $repr))
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> $repr {
                self.0
            }

            /// The number as an index.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

small_id!(
    /// Interface index, 1..=65535. [`VifId::TUNNEL`] (0) stands in a flow key for "came out of an MPLS tunnel".
    VifId, u16, 1, 65535);
small_id!(
    /// VRF (tenant network, segment) number, 1..=65535.
    VrfId, u16, 1, 65535);
small_id!(
    /// Nexthop number, 1..=16777215. [`NexthopId::NONE`] (0) is the built-in "no nexthop".
    NexthopId, u32, 1, 0x00ff_ffff);
small_id!(
    /// MPLS label, 16..=1048575 (RFC 3032 §2.1 reserves 0..=15).
    Label, u32, 16, 0x000f_ffff);
small_id!(
    /// Access list number.
    AclId, u32, 1, u32::MAX);
small_id!(
    /// Security association number.
    SaId, u32, 1, u32::MAX);

impl VifId {
    /// In a flow key: the packet came out of an MPLS tunnel, on whichever underlay interface.
    pub const TUNNEL: Self = Self(0);
}

impl NexthopId {
    /// No nexthop.
    pub const NONE: Self = Self(0);
    /// First number of the nexthops that the node makes itself for neighbours it has resolved.
    pub const FIRST_LEARNED: u32 = 0x0100_0000;

    /// The nexthop number of the neighbour entry in `slot`.
    #[must_use]
    pub const fn learned(slot: u32) -> Self {
        Self(Self::FIRST_LEARNED + slot)
    }
}

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// Address of all virtual vifs (VRRP's range, RFC 9568 §7.3).
    pub const VIRTUAL: Self = Self([0x00, 0x00, 0x5e, 0x00, 0x01, 0x00]);

    /// Group bit set: multicast or broadcast.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = IdError;

    fn from_str(s: &str) -> Result<Self, IdError> {
        let bad = || IdError::Mac(s.to_owned());
        let mut octets = [0u8; 6];
        let mut parts = s.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().ok_or_else(bad)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Self(octets))
    }
}
