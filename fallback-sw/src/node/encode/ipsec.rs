//! IPsec tunnels and security associations.

use std::fmt::Write as _;

use offload_rules::forwarding::{DfPolicy, IpsecTunnel, Lifetime, Sa, SaDirection};
use proto::{REDACTED, v1 as pb};

/// What becomes of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// For the API: "redacted" in their place.
    Redacted,
    /// For the file that the node begins with when it is started again.
    Written,
}

/// A security association.
#[must_use]
pub fn sa(sa: &Sa, keys: Keys) -> pb::SecurityAssociation {
    let inbound = sa.direction == SaDirection::Inbound;
    pb::SecurityAssociation {
        id: sa.id.get(),
        spi: sa.spi,
        direction: if inbound { pb::SaDirection::Inbound } else { pb::SaDirection::Outbound }.into(),
        key: match keys {
            Keys::Redacted => REDACTED.to_owned(),
            Keys::Written => hexadecimal(sa.key.material()),
        },
        esn: sa.esn,
        replay_window: sa.window,
        soft: lifetime(&sa.soft),
        hard: lifetime(&sa.hard),
        first_sequence: if inbound { 0 } else { sa.first },
        worker: sa.worker,
    }
}

fn hexadecimal(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len() * 2);
    for octet in octets {
        // Writing to a string does not fail.
        let _ = write!(text, "{octet:02x}");
    }
    text
}

fn lifetime(lifetime: &Lifetime) -> Option<pb::Lifetime> {
    let Lifetime { packets, bytes, seconds } = *lifetime;
    (*lifetime != Lifetime::default()).then_some(pb::Lifetime { packets, bytes, seconds })
}

/// The outside of a tunnel.
pub(super) fn tunnel(tunnel: &IpsecTunnel) -> pb::IpsecTunnel {
    pb::IpsecTunnel {
        source: tunnel.source.to_string(),
        destination: if tunnel.destination.is_unspecified() { String::new() } else { tunnel.destination.to_string() },
        nat_t: tunnel.nat_t.map(|nat_t| pb::NatTraversal {
            source_port: nat_t.source_port.into(),
            destination_port: nat_t.destination_port.into(),
            keepalive_secs: nat_t.keepalive_secs,
            no_keepalive: nat_t.keepalive_secs == 0,
        }),
        outbound_sas: tunnel.outbound.iter().map(|id| id.get()).collect(),
        inbound_sas: tunnel.inbound.iter().map(|id| id.get()).collect(),
        vrf: tunnel.vrf.get().into(),
        df: match tunnel.df {
            DfPolicy::Copy => pb::DfPolicy::DfCopy,
            DfPolicy::Set => pb::DfPolicy::DfSet,
            DfPolicy::Clear => pb::DfPolicy::DfClear,
        }
        .into(),
        dscp: tunnel.dscp.map(Into::into),
        ike: tunnel.ike.then_some(pb::IkeKeys {}),
    }
}
