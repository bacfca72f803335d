//! Rules of IPsec: where the NIC opens what comes to a tunnel, and where it seals what goes into one.
//!
//! One rule for each SA that is received, one for each tunnel that sends. Flows name the tunnel, never the SA.

use super::{
    Action, Field, HeaderCheck, Ipsec, Item, Meta, NicProfile, OpenRule, Rule, Session, Table, Unsupported, priority,
    proactive::{push_link, tags_of},
};
use crate::{
    NexthopId, VifId,
    forwarding::{IpsecTunnel, NAT_T_PORT, NexthopKind, Sa, Snapshot, Vif},
};

const ESP: u8 = 50;
const UDP: u8 = 17;

/// The vif that the outer packets of a tunnel leave by, and are expected from: the one that the route to its far end names. A session
/// belongs to one port. `None`: there is no such route, it spreads over several vifs, or leads into another tunnel.
#[must_use]
pub fn underlay(snapshot: &Snapshot, tunnel: &IpsecTunnel) -> Option<VifId> {
    let route = snapshot.route(tunnel.vrf, tunnel.destination.into())?;
    let link = leaves_by(snapshot, route.nexthop)?;
    snapshot.vif(link)?.has_ethernet().then_some(link)
}

fn leaves_by(snapshot: &Snapshot, nexthop: NexthopId) -> Option<VifId> {
    match &snapshot.nexthop(nexthop)?.kind {
        NexthopKind::Encap { oif, .. } | NexthopKind::Resolve { oif, .. } => Some(*oif),
        NexthopKind::Composite { members } => {
            let mut links = members.iter().flatten().map(|member| {
                // A composite has no composite in it.
                match &snapshot.nexthop(member.nexthop)?.kind {
                    NexthopKind::Encap { oif, .. } | NexthopKind::Resolve { oif, .. } => Some(*oif),
                    _ => None,
                }
            });
            let first = links.next()??;
            links.all(|link| link == Some(first)).then_some(first)
        }
        _ => None,
    }
}

/// An IPsec tunnel, and where its packets come in.
#[derive(Debug, Clone, Copy)]
pub struct TunnelEnd<'a> {
    /// The tunnel's vif.
    pub vif: VifId,
    /// Its configuration.
    pub tunnel: &'a IpsecTunnel,
    /// The vif that its ESP packets come in on.
    pub link: VifId,
}

/// The session that opens the packets of an inbound SA.
#[derive(Debug, Clone, Copy)]
pub struct Opener<'a> {
    /// The SA.
    pub sa: &'a Sa,
    /// Its session in the NIC.
    pub session: Session,
    /// How much of ESP the session does.
    pub kind: Ipsec,
}

/// The rule that opens the packets of an inbound SA of a tunnel. What a session of
/// the whole protocol has opened goes on where the flows of opened packets are, if the NIC can; otherwise it goes to software, as does
/// what a session has only deciphered.
///
/// # Errors
/// [`Unsupported`].
pub fn open_rule(
    snapshot: &Snapshot,
    profile: &NicProfile,
    tunnel: &TunnelEnd<'_>,
    opener: &Opener<'_>,
) -> Result<Rule, Unsupported> {
    let TunnelEnd { vif, tunnel, link } = *tunnel;
    let Opener { sa, session, kind } = *opener;
    let link = snapshot.vif(link).ok_or(Unsupported::ForeignPort)?;
    let items = match profile.dialect.open.value {
        OpenRule::Steered | OpenRule::Terminating => exact_esp(snapshot, profile, tunnel, link, sa)?,
        OpenRule::Table => table_entry(snapshot, tunnel, link, sa)?,
    };
    let mut actions = Vec::with_capacity(3);
    let table = if profile.does.jump.value { Table::Steering } else { Table::Flows };
    if kind == Ipsec::InlineProtocol && profile.seals_between_ports() {
        actions.push(Action::SetMeta(Meta::Opened(vif)));
        actions.push(Action::Security(session));
        actions.push(Action::Jump(Table::Opened));
    } else {
        // The session's user data tells the tunnel.
        actions.push(Action::Security(session));
        if profile.dialect.open.value == OpenRule::Steered {
            actions.push(Action::Rss);
        }
    }
    Ok(Rule { table, priority: priority::TERMINATION, items, actions })
}

/// ESP packets of an SA, matched as exactly as the NIC can.
fn exact_esp(
    snapshot: &Snapshot,
    profile: &NicProfile,
    tunnel: &IpsecTunnel,
    link: &Vif,
    sa: &Sa,
) -> Result<Vec<Item>, Unsupported> {
    let can = &profile.matches;
    let tags = tags_of(link);
    if tags.iter().flatten().count() > usize::from(can.vlan_tags.value) {
        return Err(Unsupported::Vlan);
    }
    let mut items = Vec::with_capacity(7);
    push_link(&mut items, snapshot.port_of(link.id), tags, can);
    if let (Some(Item::Eth { dst, .. }), true) = (items.get_mut(1), can.eth_dst.value) {
        *dst = link.mac;
    }
    if matches!(can.header_check.value, HeaderCheck::OneItem | HeaderCheck::EachLevel) {
        items.insert(1, Item::Integrity { level: 0, ipv4_checksum_ok: true, l3_ok: true });
    }
    let proto = if tunnel.nat_t.is_some() { UDP } else { ESP };
    let outer = OuterIpv4 { proto: Some(proto), no_options: can.no_options.value, whole: can.whole.value };
    push_esp(&mut items, tunnel, sa, outer);
    Ok(items)
}

/// The entry of a table of SPIs and destinations. An SPI is one SA's of this node, so that nothing else need be matched; whether
/// frames with a tag are looked up is not known, so the link has none.
fn table_entry(snapshot: &Snapshot, tunnel: &IpsecTunnel, link: &Vif, sa: &Sa) -> Result<Vec<Item>, Unsupported> {
    if tags_of(link).iter().any(Option::is_some) {
        return Err(Unsupported::Vlan);
    }
    let mut items = vec![Item::Port(snapshot.port_of(link.id)), Item::Eth { dst: None, has_vlan: None }];
    push_esp(&mut items, tunnel, sa, OuterIpv4 { proto: None, no_options: false, whole: false });
    Ok(items)
}

/// What is matched of the outer IPv4 header beside its destination.
struct OuterIpv4 {
    proto: Option<u8>,
    /// No options.
    no_options: bool,
    /// No fragment.
    whole: bool,
}

fn push_esp(items: &mut Vec<Item>, tunnel: &IpsecTunnel, sa: &Sa, outer: OuterIpv4) {
    let OuterIpv4 { proto, no_options, whole } = outer;
    items.push(Item::Ipv4 {
        src: None,
        dst: Some(tunnel.source),
        proto,
        tos: Field { spec: 0, mask: 0 },
        ttl: None,
        no_options,
        whole,
        max_len: None,
    });
    if tunnel.nat_t.is_some() {
        items.push(Item::Udp { sport: None, dport: Some(NAT_T_PORT), no_checksum: false });
    }
    items.push(Item::Esp { spi: sa.spi });
}

/// The rule that seals what goes into the tunnel `vif` and sends it on the device of the vif `port`; at one of two priorities, so
/// that the next session's is there before this one's is gone.
///
/// # Errors
/// [`Unsupported`].
pub fn seal_rule(
    profile: &NicProfile,
    vif: VifId,
    port: VifId,
    session: Session,
    alternate: bool,
) -> Result<Rule, Unsupported> {
    if !profile.seals_between_ports() {
        return Err(Unsupported::Ipsec);
    }
    Ok(Rule {
        table: Table::Seal,
        priority: if alternate { priority::FLOW_ALTERNATE } else { priority::FLOW },
        items: vec![Item::Meta(Meta::ToSeal(vif))],
        actions: vec![Action::Security(session), Action::Port(port)],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarding::{
        NatT, SaDirection, State, VifKind,
        testing::{base, ipsec, sa, sa_id, vif, vif_id},
    };

    /// A tunnel with one SA each way, over the first port.
    fn state() -> State {
        let mut state = base();
        state.sas.extend([sa(1, SaDirection::Outbound), sa(2, SaDirection::Inbound)]);
        state.vifs.push(vif(7, ipsec(&[1], &[2], 8), 8, &[]));
        state
    }

    /// The rule of the inbound SA, where the tunnel's packets come in on this vif.
    fn open(state: State, name: &str, link: u32) -> Result<Rule, Unsupported> {
        let snapshot = Snapshot::empty().with_state(state).unwrap();
        let profile = NicProfile::by_name(name).unwrap();
        let kind = profile.ipsec.value.first().copied().unwrap_or(Ipsec::InlineCrypto);
        let tunnel = snapshot.vif(vif_id(7)).and_then(|vif| vif.kind.tunnel()).unwrap().clone();
        let sa = snapshot.sa(sa_id(2)).unwrap();
        open_rule(
            &snapshot,
            &profile,
            &TunnelEnd { vif: vif_id(7), tunnel: &tunnel, link: vif_id(link) },
            &Opener { sa, session: Session(9), kind },
        )
    }

    fn change(state: &mut State, change: impl FnOnce(&mut IpsecTunnel)) {
        let Some(VifKind::Tunnel(tunnel)) = state.vifs.last_mut().map(|vif| &mut vif.kind) else { panic!() };
        change(tunnel);
    }

    /// ixgbe_flow.c:223, txgbe_flow.c:189: SECURITY, END, and the addresses of the first IP item. iavf_ipsec_crypto.c:1656, 1721: ETH, IP,
    /// ESP, and SECURITY, END.
    #[test]
    fn intels_drivers_get_spi_and_destination_and_nothing_after_security() {
        for name in ["ixgbe", "txgbe", "iavf"] {
            let rule = open(state(), name, 1).unwrap();
            assert_eq!(rule.actions, [Action::Security(Session(9))], "{name}");
            assert_eq!((rule.table, rule.priority), (Table::Flows, 0), "{name}");
            let [Item::Port(port), Item::Eth { dst: None, has_vlan: None }, ip, Item::Esp { spi: 0x1002 }] =
                rule.items.as_slice()
            else {
                panic!("{name}: {:?}", rule.items)
            };
            assert_eq!(*port, vif_id(1));
            let Item::Ipv4 { src: None, dst: Some(dst), proto: None, tos, ttl: None, no_options, whole, max_len: None } =
                ip
            else {
                panic!("{name}: {ip:?}")
            };
            assert_eq!(dst.octets(), [172, 28, 13, 36], "{name}");
            assert_eq!((*tos, *no_options, *whole), (Field { spec: 0, mask: 0 }, false, false), "{name}");
        }
        let mut in_udp = state();
        change(&mut in_udp, |tunnel| {
            tunnel.nat_t = Some(NatT { source_port: 4500, destination_port: 4500, keepalive_secs: 0 });
        });
        let rule = open(in_udp, "iavf", 1).unwrap();
        assert!(matches!(rule.items[3], Item::Udp { sport: None, dport: Some(4500), no_checksum: false }));
    }

    /// roc_npc.c:606: exactly one terminating action, and SECURITY is one.
    #[test]
    fn cnxk_gets_security_as_the_one_terminating_action_and_its_full_key() {
        let rule = open(state(), "cnxk", 1).unwrap();
        assert_eq!(rule.actions, [Action::Security(Session(9))]);
        assert!(rule.items.iter().all(|item| !matches!(item, Item::Integrity { .. } | Item::Meta(_))), "VOID to it");
        assert!(open(state(), "cnxk", 3).unwrap().items.iter().any(|item| matches!(item, Item::Vlan { .. })));
    }

    #[test]
    fn without_tag_matching_an_sa_on_a_tagged_link_stays_in_software() {
        for name in ["ixgbe", "txgbe", "iavf"] {
            assert_eq!(open(state(), name, 3), Err(Unsupported::Vlan), "{name}");
        }
        assert!(open(state(), "cnxk", 3).is_ok(), "its rule has the tag");
    }
}
