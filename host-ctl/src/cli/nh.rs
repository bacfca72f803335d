//! `nh --list` and `nh --get`.

use std::fmt;

use proto::v1::{
    AddressFamily, CompositeNexthop, EncapNexthop, ListNexthopsResponse, NatNexthop, Nexthop, NexthopInfo,
    ReceiveNexthop, TunnelNexthop, nexthop::Kind,
};

use super::{
    neigh::state_name,
    text::{joined, separated},
};

/// Where the lines after the first one start.
const INDENT: &str = "            ";
/// UDP destination port that goes without saying (RFC 7510 §3).
const MPLS_O_UDP_PORT: u32 = 6635;

/// Each nexthop, a blank line between two.
///
/// # Errors
/// Those of `out`.
pub fn render(response: &ListNexthopsResponse, out: &mut impl fmt::Write) -> fmt::Result {
    for (i, info) in response.nexthops.iter().enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        nexthop(info, out)?;
    }
    Ok(())
}

fn nexthop(info: &NexthopInfo, out: &mut impl fmt::Write) -> fmt::Result {
    let default = Nexthop::default();
    let nexthop = info.nexthop.as_ref().unwrap_or(&default);
    let family = match info.family() {
        AddressFamily::Inet => "AF_INET",
        AddressFamily::Inet6 => "AF_INET6",
    };
    // A VRF translation is known by the VRF that it leads to.
    let vrf = match &nexthop.kind {
        Some(Kind::VrfTranslate(translate)) => translate.vrf,
        _ => nexthop.vrf,
    };
    let kind = type_name(nexthop.kind.as_ref());
    writeln!(out, "Id:{:<9}Type:{kind:<13}  Fmly:{family:>8}  Rid:0  Vrf:{vrf}", nexthop.id)?;
    let learned = info.learned.then_some("Learned");
    let flags = info.flags.iter().map(String::as_str).chain(learned).chain(["Tunnel: None"]);
    writeln!(out, "{INDENT}Flags:{}", separated(flags, ", "))?;
    match &nexthop.kind {
        None | Some(Kind::Drop(_) | Kind::VrfTranslate(_)) => Ok(()),
        Some(Kind::Encap(kind)) => encap(kind, out),
        Some(Kind::Tunnel(kind)) => tunnel(kind, out),
        Some(Kind::Composite(kind)) => composite(kind, out),
        Some(Kind::Receive(kind)) => receive(kind, out),
        Some(Kind::Nat(kind)) => nat(kind, out),
        Some(Kind::Resolve(kind)) if kind.gateway.is_empty() => writeln!(out, "{INDENT}Oif:{}", kind.oif),
        Some(Kind::Resolve(kind)) => {
            writeln!(out, "{INDENT}Oif:{}", kind.oif)?;
            let mac = if info.gateway_mac.is_empty() { "-" } else { &info.gateway_mac };
            writeln!(out, "{INDENT}Gateway:{} Mac:{mac} State:{}", kind.gateway, state_name(info.gateway_state()))
        }
    }
}

const fn type_name(kind: Option<&Kind>) -> &'static str {
    match kind {
        None => "Unknown",
        Some(Kind::Drop(_)) => "Drop",
        Some(Kind::Encap(_)) => "Encap",
        Some(Kind::Tunnel(_)) => "Tunnel",
        Some(Kind::Composite(_)) => "Composite",
        Some(Kind::VrfTranslate(_)) => "Vrf_Translate",
        Some(Kind::Receive(_)) => "Receive",
        Some(Kind::Nat(_)) => "NAT",
        Some(Kind::Resolve(_)) => "Resolve",
    }
}

fn encap(encap: &EncapNexthop, out: &mut impl fmt::Write) -> fmt::Result {
    let octets = octets(&encap.encap_data);
    writeln!(out, "{INDENT}Oif:{} Len:{}", encap.oif, octets.len())?;
    writeln!(out, "{INDENT}{}", format!("Encap Data: {}", joined(octets)).trim_end())
}

/// Pairs of digits, however the state that was applied separates them.
fn octets(data: &str) -> Vec<String> {
    let digits: Vec<char> = data.chars().filter(char::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| pair.iter().collect::<String>().to_ascii_lowercase()).collect()
}

fn tunnel(tunnel: &TunnelNexthop, out: &mut impl fmt::Write) -> fmt::Result {
    if tunnel.direct_nexthop != 0 {
        writeln!(out, "{INDENT}Direct NH(label): {}", tunnel.direct_nexthop)?;
    }
    // The outer packet gets its Ethernet header from the nexthop that it is handed to; a tunnel's own is blank.
    writeln!(out, "{INDENT}Oif:0  Len:14 Data:{}", joined(["00"; 14]))?;
    writeln!(out, "{INDENT}Sip:{} Dip:{}", tunnel.sip, tunnel.dip)?;
    if tunnel.udp_port != 0 && tunnel.udp_port != MPLS_O_UDP_PORT {
        writeln!(out, "{INDENT}Udp Port:{}", tunnel.udp_port)?;
    }
    if !tunnel.dscp_map.is_empty() {
        let pairs = tunnel.dscp_map.iter().map(|mapping| format!("{}->{}", mapping.inner, mapping.outer));
        writeln!(out, "{INDENT}Dscp(inner->outer): {}", joined(pairs))?;
    }
    Ok(())
}

fn composite(composite: &CompositeNexthop, out: &mut impl fmt::Write) -> fmt::Result {
    writeln!(out, "{INDENT}Composite Flags:")?;
    let members = composite.members.iter().map(|member| match member.nexthop {
        // A hole.
        0 => "-1".to_owned(),
        nexthop => {
            // Absent is the default.
            let weight = member.weight.unwrap_or(100);
            format!("{nexthop}({})(W:{weight})", member.label.unwrap_or_default())
        }
    });
    writeln!(out, "{INDENT}{}", format!("Sub NH(label): {}", joined(members)).trim_end())
}

/// The listener table three times, as the vRouter keeps it: single ports, all as ranges, and the defaults. A default is
/// also there as a range 0-0: what has no port.
fn receive(receive: &ReceiveNexthop, out: &mut impl fmt::Write) -> fmt::Result {
    let mut ranges: Vec<(u32, u32, u32, u32)> = receive
        .listeners
        .iter()
        .map(|l| (l.proto, l.first_port, if l.last_port == 0 { l.first_port } else { l.last_port }, l.nexthop))
        .collect();
    let single = |range: &&(u32, u32, u32, u32)| range.1 == range.2;
    let mut exact: Vec<_> = ranges.iter().filter(single).copied().collect();
    for default in &receive.defaults {
        if !ranges.iter().any(|(proto, first, ..)| (*proto, *first) == (default.proto, 0)) {
            ranges.push((default.proto, 0, 0, default.nexthop));
        }
    }
    exact.sort_unstable();
    ranges.sort_unstable();

    writeln!(out, "{INDENT}Oif:0")?;
    let entries = exact.iter().map(|(proto, port, _, nexthop)| format!("({proto}/{port}/{nexthop})"));
    table("Ports(Proto/Port/NH)", entries.collect(), out)?;
    let entries = ranges.iter().map(|(proto, first, last, nexthop)| format!("({proto}/{first}-{last}/{nexthop})"));
    table("Ports(Proto/Port/NH)", entries.collect(), out)?;
    let entries = receive.defaults.iter().map(|default| format!("({}/{})", default.proto, default.nexthop));
    table("Default Port Match(Proto/NH)", entries.collect(), out)?;
    if receive.terminate_mpls_o_udp {
        writeln!(out, "{INDENT}Terminates: MPLSoUDP")?;
    }
    Ok(())
}

fn table(title: &str, entries: Vec<String>, out: &mut impl fmt::Write) -> fmt::Result {
    writeln!(out, "{INDENT}{title}:")?;
    for line in entries.chunks(6) {
        writeln!(out, "{INDENT}        {},", separated(line, ", "))?;
    }
    Ok(())
}

fn nat(nat: &NatNexthop, out: &mut impl fmt::Write) -> fmt::Result {
    let letters = [(nat.source, "S"), (nat.source_port, "Sp"), (nat.destination, "D"), (nat.destination_port, "Dp")];
    let letters: String = letters.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter).collect();
    writeln!(out, "{INDENT}NAT: {letters} VRF: {}", nat.vrf)
}

#[cfg(test)]
mod tests {
    use proto::v1::{
        CompositeMember, DefaultListener, DropNexthop, DscpMapping, Listener, NeighbourState, ResolveNexthop,
        TunnelType, VrfTranslateNexthop,
    };

    use super::*;

    fn info(id: u32, vrf: u32, flags: &[&str], kind: Kind) -> NexthopInfo {
        NexthopInfo {
            nexthop: Some(Nexthop { id, vrf, kind: Some(kind), ..Nexthop::default() }),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            ..NexthopInfo::default()
        }
    }

    fn rendered(nexthops: Vec<NexthopInfo>) -> String {
        let mut text = String::new();
        render(&ListNexthopsResponse { nexthops }, &mut text).unwrap();
        text
    }

    fn to(oif: u32, data: &str) -> Kind {
        Kind::Encap(EncapNexthop { oif, encap_data: data.into() })
    }

    #[test]
    fn a_tunnel_its_composite_and_its_members_look_like_489_532_85_and_86() {
        let tunnel = TunnelNexthop {
            r#type: TunnelType::MplsOUdp.into(),
            sip: "10.101.10.39".into(),
            dip: "10.101.9.245".into(),
            direct_nexthop: 532,
            udp_port: 6635,
            ..TunnelNexthop::default()
        };
        let member = |nexthop| CompositeMember { nexthop, weight: Some(100), label: None };
        let members = vec![member(85), member(86)];
        let data = "00 00 5e 00 01 00 00 00 5e 00 01 00 08 00";
        insta::assert_snapshot!(rendered(vec![
            info(489, 8, &["Valid", "MPLSoUDP", "Indirect"], Kind::Tunnel(tunnel)),
            info(532, 0, &["Valid", "Ecmp"], Kind::Composite(CompositeNexthop { members })),
            info(85, 8, &["Valid"], to(4111, data)),
            info(86, 8, &["Valid"], to(4109, data)),
        ]), @"
        Id:489      Type:Tunnel         Fmly: AF_INET  Rid:0  Vrf:8
                    Flags:Valid, MPLSoUDP, Indirect, Tunnel: None
                    Direct NH(label): 532
                    Oif:0  Len:14 Data:00 00 00 00 00 00 00 00 00 00 00 00 00 00
                    Sip:10.101.10.39 Dip:10.101.9.245

        Id:532      Type:Composite      Fmly: AF_INET  Rid:0  Vrf:0
                    Flags:Valid, Ecmp, Tunnel: None
                    Composite Flags:
                    Sub NH(label): 85(0)(W:100) 86(0)(W:100)

        Id:85       Type:Encap          Fmly: AF_INET  Rid:0  Vrf:8
                    Flags:Valid, Tunnel: None
                    Oif:4111 Len:14
                    Encap Data: 00 00 5e 00 01 00 00 00 5e 00 01 00 08 00

        Id:86       Type:Encap          Fmly: AF_INET  Rid:0  Vrf:8
                    Flags:Valid, Tunnel: None
                    Oif:4109 Len:14
                    Encap Data: 00 00 5e 00 01 00 00 00 5e 00 01 00 08 00
        ");
    }

    #[test]
    fn a_receive_nexthop_and_what_it_leads_to_look_like_584() {
        let listener = |proto, first_port, nexthop| Listener { proto, first_port, last_port: 0, nexthop };
        let receive = ReceiveNexthop {
            listeners: vec![listener(1, 8, 34), listener(6, 53, 1), listener(6, 80, 585), listener(17, 53, 71)],
            defaults: vec![DefaultListener { proto: 1, nexthop: 585 }, DefaultListener { proto: 58, nexthop: 34 }],
            terminate_mpls_o_udp: false,
        };
        let mut proxy = info(585, 17, &["Valid", "Policy"], to(4121, "00:00:5e:00:02:00-00005E000100-86dd"));
        proxy.family = AddressFamily::Inet6.into();
        insta::assert_snapshot!(rendered(vec![
            info(584, 17, &["Valid", "Policy"], Kind::Receive(receive)),
            info(1, 0, &["Valid"], Kind::Drop(DropNexthop {})),
            proxy,
        ]), @"
        Id:584      Type:Receive        Fmly: AF_INET  Rid:0  Vrf:17
                    Flags:Valid, Policy, Tunnel: None
                    Oif:0
                    Ports(Proto/Port/NH):
                            (1/8/34), (6/53/1), (6/80/585), (17/53/71),
                    Ports(Proto/Port/NH):
                            (1/0-0/585), (1/8-8/34), (6/53-53/1), (6/80-80/585), (17/53-53/71), (58/0-0/34),
                    Default Port Match(Proto/NH):
                            (1/585), (58/34),

        Id:1        Type:Drop           Fmly: AF_INET  Rid:0  Vrf:0
                    Flags:Valid, Tunnel: None

        Id:585      Type:Encap          Fmly:AF_INET6  Rid:0  Vrf:17
                    Flags:Valid, Policy, Tunnel: None
                    Oif:4121 Len:14
                    Encap Data: 00 00 5e 00 02 00 00 00 5e 00 01 00 86 dd
        ");
    }

    #[test]
    fn a_vrf_translation_looks_like_513() {
        let kind = Kind::VrfTranslate(VrfTranslateNexthop { vrf: 18 });
        insta::assert_snapshot!(rendered(vec![info(513, 0, &["Valid", "Policy"], kind)]), @"
        Id:513      Type:Vrf_Translate  Fmly: AF_INET  Rid:0  Vrf:18
                    Flags:Valid, Policy, Tunnel: None
        ");
    }

    #[test]
    fn a_gateway_is_shown_with_its_mac_and_whether_it_answers() {
        let via = |gateway: &str| Kind::Resolve(ResolveNexthop { oif: 2, gateway: gateway.into() });
        let mut known = info(12, 1, &["Valid"], via("198.51.100.254"));
        known.gateway_mac = "02:00:00:00:00:fe".into();
        known.gateway_state = NeighbourState::Reachable.into();
        let mut asked = info(13, 1, &["Valid"], via("fe80::fe"));
        asked.family = AddressFamily::Inet6.into();
        asked.gateway_state = NeighbourState::Resolving.into();
        let mut dead = info(14, 1, &["Valid"], via("198.51.100.253"));
        dead.gateway_mac = "02:00:00:00:00:fd".into();
        dead.gateway_state = NeighbourState::Failed.into();
        let connected = info(15, 1, &["Valid"], via(""));
        insta::assert_snapshot!(rendered(vec![known, asked, dead, connected]), @"
        Id:12       Type:Resolve        Fmly: AF_INET  Rid:0  Vrf:1
                    Flags:Valid, Tunnel: None
                    Oif:2
                    Gateway:198.51.100.254 Mac:02:00:00:00:00:fe State:Reachable

        Id:13       Type:Resolve        Fmly:AF_INET6  Rid:0  Vrf:1
                    Flags:Valid, Tunnel: None
                    Oif:2
                    Gateway:fe80::fe Mac:- State:Resolving

        Id:14       Type:Resolve        Fmly: AF_INET  Rid:0  Vrf:1
                    Flags:Valid, Tunnel: None
                    Oif:2
                    Gateway:198.51.100.253 Mac:02:00:00:00:00:fd State:Failed

        Id:15       Type:Resolve        Fmly: AF_INET  Rid:0  Vrf:1
                    Flags:Valid, Tunnel: None
                    Oif:2
        ");
    }

    #[test]
    fn what_the_dumps_do_not_show_is_shown_too() {
        let tunnel = TunnelNexthop {
            sip: "10.0.0.1".into(),
            dip: "10.0.0.2".into(),
            udp_port: 51234,
            dscp_map: vec![DscpMapping { inner: 46, outer: 10 }],
            ..TunnelNexthop::default()
        };
        let members = vec![CompositeMember { nexthop: 85, weight: None, label: Some(300) }, CompositeMember::default()];
        let mut learned = info(16_777_217, 17, &["Valid"], to(3, ""));
        learned.learned = true;
        let receive = ReceiveNexthop {
            listeners: vec![Listener { proto: 6, first_port: 8000, last_port: 8099, nexthop: 9 }],
            defaults: vec![],
            terminate_mpls_o_udp: true,
        };
        insta::assert_snapshot!(rendered(vec![
            info(1, 8, &["Valid", "MPLSoUDP"], Kind::Tunnel(tunnel)),
            info(2, 0, &["Ecmp"], Kind::Composite(CompositeNexthop { members })),
            learned,
            info(4, 8, &["Valid"], Kind::Receive(receive)),
        ]), @"
        Id:1        Type:Tunnel         Fmly: AF_INET  Rid:0  Vrf:8
                    Flags:Valid, MPLSoUDP, Tunnel: None
                    Oif:0  Len:14 Data:00 00 00 00 00 00 00 00 00 00 00 00 00 00
                    Sip:10.0.0.1 Dip:10.0.0.2
                    Udp Port:51234
                    Dscp(inner->outer): 46->10

        Id:2        Type:Composite      Fmly: AF_INET  Rid:0  Vrf:0
                    Flags:Ecmp, Tunnel: None
                    Composite Flags:
                    Sub NH(label): 85(300)(W:100) -1

        Id:16777217 Type:Encap          Fmly: AF_INET  Rid:0  Vrf:17
                    Flags:Valid, Learned, Tunnel: None
                    Oif:3 Len:0
                    Encap Data:

        Id:4        Type:Receive        Fmly: AF_INET  Rid:0  Vrf:8
                    Flags:Valid, Tunnel: None
                    Oif:0
                    Ports(Proto/Port/NH):
                    Ports(Proto/Port/NH):
                            (6/8000-8099/9),
                    Default Port Match(Proto/NH):
                    Terminates: MPLSoUDP
        ");
    }
}
