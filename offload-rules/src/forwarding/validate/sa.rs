//! Security associations, and the tunnels that use them.

use std::collections::HashMap;

use super::Check;
use crate::{
    SaId, VifId,
    forwarding::{IKE_SAS, IKE_SPIS, IpsecTunnel, KEY_LENGTHS, MAX_WINDOW, MIN_SPI, Sa, SaDirection},
};

/// Where an SA is named: the vif, and by which field.
type Uses = HashMap<SaId, (VifId, &'static str)>;

impl<'a> Check<'a> {
    /// Each SA by itself, and all of them with the tunnels that use them.
    pub(super) fn all_sas(&mut self) {
        let tables = self.tables;
        let mut spis: HashMap<u32, SaId> = HashMap::new();
        let mut keys: HashMap<&'a [u8], SaId> = HashMap::new();
        let has_ike = tables.vifs.values().any(|entry| entry.configured.kind.tunnel().is_some_and(|tunnel| tunnel.ike));
        for sa in tables.sas.values().map(|entry| &*entry.object) {
            self.sa(sa);
            let object = format_args!("sa {}", sa.id);
            if sa.direction == SaDirection::Inbound
                && let Some(owner) = spis.insert(sa.spi, sa.id)
            {
                let problem = format_args!("{:#x} is that of sa {owner} too; packets must tell them apart", sa.spi);
                self.found.push(object, "spi", problem);
            }
            if has_ike && sa.direction == SaDirection::Inbound && IKE_SPIS.contains(&sa.spi) {
                let problem = format_args!("{:#x} is kept for IKE: use one outside of 0xc0000000..=0xcfffffff", sa.spi);
                self.found.push(object, "spi", problem);
            }
            // Two counters under one key would use each sequence number, and so each nonce, twice.
            if let Some(owner) = keys.insert(sa.key.material(), sa.id) {
                let problem = format_args!("is that of sa {owner} too; each needs a key of its own (RFC 4106 §2)");
                self.found.push(object, "key", problem);
            }
        }
        let mut uses = Uses::new();
        for vif in tables.vifs.values().map(|entry| &*entry.configured) {
            if let Some(tunnel) = vif.kind.tunnel() {
                self.ipsec_tunnel(vif.id, tunnel, &mut uses);
            }
        }
    }

    fn sa(&mut self, sa: &Sa) {
        let object = format_args!("sa {}", sa.id);
        if IKE_SAS.contains(&sa.id.get()) {
            let (first, last) = (IKE_SAS.start(), IKE_SAS.end());
            let problem = format_args!("is kept for SAs that IKE negotiates; use one outside of {first}..={last}");
            self.found.push(object, "id", problem);
        }
        if sa.spi < MIN_SPI {
            let problem = format_args!("{} is reserved; use {MIN_SPI} and above (RFC 4303 §2.1)", sa.spi);
            self.found.push(object, "spi", problem);
        }
        let octets = sa.key.material().len();
        if !KEY_LENGTHS.contains(&octets) {
            let problem = format_args!(
                "has {octets} octets; AES-GCM takes 16 or 32 and a salt of 4, 20 or 36 together (RFC 4106 §8.1)"
            );
            self.found.push(object, "key", problem);
        }
        match sa.direction {
            SaDirection::Inbound => {
                if sa.window == 0 || sa.window > MAX_WINDOW || !sa.window.is_multiple_of(32) {
                    let problem =
                        format_args!("{} is no window; use a multiple of 32 from 32 to {MAX_WINDOW}", sa.window);
                    self.found.push(object, "replay_window", problem);
                }
            }
            SaDirection::Outbound => {
                let last = if sa.esn { u64::MAX - 1 } else { u32::MAX.into() };
                if sa.first == 0 || sa.first > last {
                    let problem = format_args!("{} is out of range; use 1..={last}", sa.first);
                    self.found.push(object, "first_sequence", problem);
                }
            }
        }
        for (name, soft) in sa.soft.limits() {
            if let Some((_, hard)) = sa.hard.limits().find(|(other, hard)| *other == name && *hard < soft) {
                let problem = format_args!("{soft} is behind the end, {hard}; use a smaller number");
                self.found.push(object, format_args!("soft.{name}"), problem);
            }
        }
    }

    fn ipsec_tunnel(&mut self, vif: VifId, tunnel: &IpsecTunnel, uses: &mut Uses) {
        let object = format_args!("vif {vif}");
        for (field, address) in [("source", tunnel.source), ("destination", tunnel.destination)] {
            if tunnel.ike && field == "destination" && address.is_unspecified() {
                continue;
            }
            if address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback() {
                let problem =
                    format_args!("{address} is no address of one node; use the unicast address of a tunnel end");
                self.found.push(object, format_args!("tunnel.{field}"), problem);
            }
        }
        if tunnel.source == tunnel.destination {
            let problem = format_args!("{} is the source too; use the address of the other end", tunnel.destination);
            self.found.push(object, "tunnel.destination", problem);
        }
        if let Some(nat_t) = tunnel.nat_t {
            for (field, port) in [("source_port", nat_t.source_port), ("destination_port", nat_t.destination_port)] {
                if port == 0 {
                    self.found.push(object, format_args!("tunnel.nat_t.{field}"), "0 is no port; use 4500");
                }
            }
        }
        if tunnel.ike && !(tunnel.outbound.is_empty() && tunnel.inbound.is_empty() && tunnel.nat_t.is_none()) {
            let problem = "negotiates SAs and NAT traversal; leave outbound_sas, inbound_sas and nat_t out";
            self.found.push(object, "tunnel.ike", problem);
        }
        if let Some(dscp) = tunnel.dscp.filter(|dscp| *dscp > 63) {
            self.found.push(object, "tunnel.dscp", format_args!("{dscp} is out of range; use 0..=63"));
        }
        self.vrf_reference(object, "tunnel.vrf", tunnel.vrf);
        let lists = [
            ("outbound_sas", SaDirection::Outbound, &tunnel.outbound),
            ("inbound_sas", SaDirection::Inbound, &tunnel.inbound),
        ];
        for (field, direction, sas) in lists {
            for (i, id) in sas.iter().enumerate() {
                let place = format_args!("tunnel.{field}[{i}]");
                match self.tables.sas.get(id.get()).map(|entry| entry.object.direction) {
                    None => {
                        let problem = format_args!("sa {id} does not exist; define it or name another");
                        self.found.push(object, place, problem);
                    }
                    Some(found) if found != direction => {
                        let problem =
                            format_args!("sa {id} is {}; name one that is {}", found.name(), direction.name());
                        self.found.push(object, place, problem);
                    }
                    Some(_) => {}
                }
                if let Some((owner, list)) = uses.insert(*id, (vif, field)) {
                    let problem = format_args!("sa {id} is named in {list} of vif {owner} already; use it once");
                    self.found.push(object, place, problem);
                }
            }
        }
    }
}
