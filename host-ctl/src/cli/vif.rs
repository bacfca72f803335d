//! `vif --list` and `vif --get`.

use std::fmt;

use offload_rules::MacAddr;
use proto::v1::{ListVifsResponse, OperState, SaDirection, SaInfo, Vif, VifInfo, VifType};

use super::{sa, text::joined};

const LEGEND: &str = "\
Vrouter Interface Table

Flags: P=Policy, X=Cross Connect, S=Service Chain, Mr=Receive Mirror
Mt=Transmit Mirror, Tc=Transmit Checksum Offload, L3=Layer 3, L2=Layer 2
D=DHCP, Vp=Vhost Physical, Pr=Promiscuous, Vnt=Native Vlan Tagged
Mnp=No MAC Proxy, Dpdk=DPDK PMD Interface, Rfl=Receive Filtering Offload, Mon=Interface is Monitored
Nf=Dont Fragment, Vof=VLAN insert/strip offload, Mq=MultiQ, L=MAC Learning Enabled
Proxy=MAC Requests Proxied Always, Fr=Force Recv, Mn=Mirror without Vlan Tag, TTL=TTL not modified
Df=Drop New Flows, Tun=Tunnel, NoArp=No ARP interface, RawIp=RAW IP interface(No L2 header)
Npers=Non-Persistent, NoRPF=No RPF Checks, SynC=Syn Cookies, Gro=GRO Enabled
";

/// The legend, then each vif.
///
/// # Errors
/// Those of `out`.
pub fn render(response: &ListVifsResponse, out: &mut impl fmt::Write) -> fmt::Result {
    out.write_str(LEGEND)?;
    for info in &response.vifs {
        writeln!(out)?;
        vif(info, out)?;
    }
    Ok(())
}

fn vif(info: &VifInfo, out: &mut impl fmt::Write) -> fmt::Result {
    let default = Vif::default();
    let vif = info.vif.as_ref().unwrap_or(&default);
    let (class, kind) = type_names(vif.r#type());
    write!(out, "vif0/{} {class}: {}", vif.id, vif.name)?;
    vlan(vif, out)?;
    match vif.parent {
        0 => writeln!(out, " Parent:vif0/-1")?,
        parent => writeln!(out, " Parent:vif0/{parent}")?,
    }
    let driver = format!("Driver: {}", info.driver);
    writeln!(out, "Type:{kind} HWaddr:{} {}", short_mac(&info.mac), driver.trim_end())?;
    match info.oper_state() {
        OperState::Up => {}
        OperState::Unknown => writeln!(out, "State: Unknown")?,
        OperState::Down if info.oper_error.is_empty() => writeln!(out, "State: Down")?,
        OperState::Down => writeln!(out, "State: Down ({})", info.oper_error)?,
    }
    if !vif.addresses.is_empty() {
        let bare = vif.addresses.iter().map(|address| address.split('/').next().unwrap_or_default());
        writeln!(out, "Address: {}", joined(bare))?;
    }
    let (vrf, flags) = (vif.vrf, &info.flags);
    writeln!(out, "Vrf:{vrf} Mcast Vrf:{vrf} VN:{:#x} Flags:{flags} Ref:{}", vif.vn, info.references)?;
    write!(out, "MTU: {}", if info.mtu == 0 { vif.mtu } else { info.mtu })?;
    if info.mtu != 0 && info.mtu != vif.mtu {
        write!(out, " (configured {})", vif.mtu)?;
    }
    writeln!(out, " EncMSS: {} NH: {}", vif.enc_mss, vif.nexthop)?;
    info.sas.iter().try_for_each(|sa| association(sa, out))?;
    if !vif.nat_pool.is_empty() {
        writeln!(out, "NAT Pool: {}", joined(&vif.nat_pool))?;
    }
    counters(info, out)?;
    for (name, acls) in [("Ingress", &vif.ingress_acls), ("Egress", &vif.egress_acls), ("Service", &vif.service_acls)] {
        if !acls.is_empty() {
            writeln!(out, "{name} ACL: {}", joined(acls))?;
        }
    }
    Ok(())
}

/// Two lines for each security association of a tunnel.
fn association(info: &SaInfo, out: &mut impl fmt::Write) -> fmt::Result {
    let (id, window, inbound) = match &info.sa {
        Some(sa) => (sa.id, sa.replay_window, sa.direction() == SaDirection::Inbound),
        None => (0, 0, false),
    };
    let (side, vif) = if inbound { ("Inbound", info.vif) } else { ("Outbound", 0) };
    writeln!(out, "{side} SA:SAId: {id:#x} Tunnel SRC:{} Tunnel DST:{}", info.source, info.destination)?;
    writeln!(out, "Tunnel Mode:Tunnel Window size:{window} VIF: {vif} State: {}", sa::state(info.state()))
}

fn counters(info: &VifInfo, out: &mut impl fmt::Write) -> fmt::Result {
    if let Some(port) = &info.port {
        writeln!(out, "RX port packets:{} errors:{}", port.rx_packets, port.rx_errors)?;
    }
    if !info.rx_queue_packets.is_empty() {
        writeln!(out, "RX queue packets to lcore {}", joined(&info.rx_queue_packets))?;
    }
    if !info.rx_queue_errors.is_empty() {
        writeln!(out, "RX queue errors to lcore {}", joined(&info.rx_queue_errors))?;
    }
    let c = info.counters.unwrap_or_default();
    writeln!(out, "RX packets:{} bytes:{} errors:{}", c.rx_packets, c.rx_bytes, c.rx_errors)?;
    writeln!(out, "TX packets:{} bytes:{} errors:{}", c.tx_packets, c.tx_bytes, c.tx_errors)?;
    writeln!(out, "Drops:{}", c.drops)?;
    if c.tcp_resets_ignored > 0 {
        writeln!(out, "TCP reset ignored:{}", c.tcp_resets_ignored)?;
    }
    if let Some(port) = &info.port {
        writeln!(out, "TX port packets:{} errors:{}", port.tx_packets, port.tx_errors)?;
    }
    Ok(())
}

/// The class before the name, and the type.
const fn type_names(kind: VifType) -> (&'static str, &'static str) {
    match kind {
        VifType::Unspecified => ("Ethernet", "Unknown"),
        VifType::Physical => ("Ethernet", "Physical"),
        VifType::PhysicalVlan => ("Ethernet", "Physical(Vlan)"),
        VifType::Virtual => ("Ethernet", "Virtual"),
        VifType::Tunnel => ("Virtual", "Tunnel"),
        VifType::Host => ("Ethernet", "Host"),
        VifType::Agent => ("Ethernet", "Agent"),
        VifType::Ip6Flow => ("Ethernet", "IP6Flow"),
    }
}

/// Outer and inner VLAN: with a single tag both numbers are its VID. `S` marks an outer S-tag (802.1ad).
fn vlan(vif: &Vif, out: &mut impl fmt::Write) -> fmt::Result {
    let Some(outer) = &vif.outer_vlan else { return Ok(()) };
    let inner = vif.inner_vlan.as_ref().unwrap_or(outer);
    let s_tag = if outer.tpid == 0x88a8 { ",S" } else { "" };
    write!(out, " Vlan(o/i)(,S): {}/{}{s_tag} (Speed 0, Duplex 0)", outer.vid, inner.vid)
}

/// `0:c:29:f:f4:a1`: no leading zeros.
fn short_mac(mac: &str) -> String {
    mac.parse::<MacAddr>().map_or_else(
        |_| mac.to_owned(),
        |mac| {
            let [a, b, c, d, e, f] = mac.0;
            format!("{a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{f:x}")
        },
    )
}

#[cfg(test)]
mod tests {
    use proto::v1::{Counters, VlanTag};

    use super::*;

    fn rendered(vifs: Vec<VifInfo>) -> String {
        let mut text = String::new();
        render(&ListVifsResponse { vifs }, &mut text).unwrap();
        text
    }

    fn lists() -> Vif {
        Vif {
            ingress_acls: vec![65, 67],
            egress_acls: vec![65, 67],
            service_acls: vec![65, 67],
            enc_mss: 130,
            mtu: 1500,
            ..Vif::default()
        }
    }

    #[test]
    fn case_07_the_mtu_in_force_is_shown_beside_the_one_that_is_configured() {
        let of = |mtu| VifInfo { vif: Some(lists()), mtu, ..VifInfo::default() };
        assert!(rendered(vec![of(1450)]).contains("\nMTU: 1450 (configured 1500) EncMSS: 130 NH: 0\n"));
        for same in [1500, 0] {
            assert!(rendered(vec![of(same)]).contains("\nMTU: 1500 EncMSS: 130 NH: 0\n"), "{same}");
        }
    }

    #[test]
    fn a_sub_interface_looks_like_vif_4113_of_the_second_customer_edge() {
        let tag = Some(VlanTag { vid: 302, tpid: 0x8100 });
        let vif = Vif {
            id: 4113,
            name: "ens224.302".into(),
            r#type: VifType::PhysicalVlan.into(),
            parent: 24,
            outer_vlan: tag,
            vrf: 17,
            addresses: vec!["192.168.3.1/24".into()],
            nexthop: 498,
            nat_pool: vec!["192.168.3.1".into(), "192.168.3.1".into()],
            ..lists()
        };
        let info = VifInfo {
            vif: Some(vif),
            flags: "PL3".into(),
            driver: "vr_vlan".into(),
            mac: "00:0c:29:0f:f4:a1".into(),
            oper_state: OperState::Up.into(),
            references: 5,
            counters: Some(Counters {
                rx_packets: 19135,
                rx_bytes: 1_545_288,
                tx_packets: 19748,
                tx_bytes: 1_162_588,
                drops: 11,
                ..Counters::default()
            }),
            rx_queue_errors: vec![0; 12],
            ..VifInfo::default()
        };
        insta::assert_snapshot!(rendered(vec![info]), @"
        Vrouter Interface Table

        Flags: P=Policy, X=Cross Connect, S=Service Chain, Mr=Receive Mirror
        Mt=Transmit Mirror, Tc=Transmit Checksum Offload, L3=Layer 3, L2=Layer 2
        D=DHCP, Vp=Vhost Physical, Pr=Promiscuous, Vnt=Native Vlan Tagged
        Mnp=No MAC Proxy, Dpdk=DPDK PMD Interface, Rfl=Receive Filtering Offload, Mon=Interface is Monitored
        Nf=Dont Fragment, Vof=VLAN insert/strip offload, Mq=MultiQ, L=MAC Learning Enabled
        Proxy=MAC Requests Proxied Always, Fr=Force Recv, Mn=Mirror without Vlan Tag, TTL=TTL not modified
        Df=Drop New Flows, Tun=Tunnel, NoArp=No ARP interface, RawIp=RAW IP interface(No L2 header)
        Npers=Non-Persistent, NoRPF=No RPF Checks, SynC=Syn Cookies, Gro=GRO Enabled

        vif0/4113 Ethernet: ens224.302 Vlan(o/i)(,S): 302/302 (Speed 0, Duplex 0) Parent:vif0/24
        Type:Physical(Vlan) HWaddr:0:c:29:f:f4:a1 Driver: vr_vlan
        Address: 192.168.3.1
        Vrf:17 Mcast Vrf:17 VN:0x0 Flags:PL3 Ref:5
        MTU: 1500 EncMSS: 130 NH: 498
        NAT Pool: 192.168.3.1 192.168.3.1
        RX queue errors to lcore 0 0 0 0 0 0 0 0 0 0 0 0
        RX packets:19135 bytes:1545288 errors:0
        TX packets:19748 bytes:1162588 errors:0
        Drops:11
        Ingress ACL: 65 67
        Egress ACL: 65 67
        Service ACL: 65 67
        ");
    }

    #[test]
    fn a_virtual_vif_looks_like_vif_4_of_the_customer_edge() {
        let vif =
            Vif { id: 4, name: "vethbfd0".into(), r#type: VifType::Virtual.into(), vrf: 2, nexthop: 13, ..lists() };
        let info = VifInfo {
            vif: Some(vif),
            flags: "PL3ProxyTTL".into(),
            driver: "net_af_packet".into(),
            mac: "00:00:5e:00:01:00".into(),
            oper_state: OperState::Up.into(),
            references: 14,
            port: Some(Counters { rx_packets: 1_964_185, tx_packets: 1_962_700, ..Counters::default() }),
            counters: Some(Counters {
                rx_packets: 1_964_185,
                rx_bytes: 127_759_282,
                tx_packets: 1_962_700,
                tx_bytes: 127_658_180,
                drops: 753,
                ..Counters::default()
            }),
            rx_queue_errors: vec![0; 13],
            ..VifInfo::default()
        };
        let text = rendered(vec![info]);
        insta::assert_snapshot!(text.strip_prefix(LEGEND).unwrap().trim_start(), @"
        vif0/4 Ethernet: vethbfd0 Parent:vif0/-1
        Type:Virtual HWaddr:0:0:5e:0:1:0 Driver: net_af_packet
        Vrf:2 Mcast Vrf:2 VN:0x0 Flags:PL3ProxyTTL Ref:14
        MTU: 1500 EncMSS: 130 NH: 13
        RX port packets:1964185 errors:0
        RX queue errors to lcore 0 0 0 0 0 0 0 0 0 0 0 0 0
        RX packets:1964185 bytes:127759282 errors:0
        TX packets:1962700 bytes:127658180 errors:0
        Drops:753
        TX port packets:1962700 errors:0
        Ingress ACL: 65 67
        Egress ACL: 65 67
        Service ACL: 65 67
        ");
    }

    #[test]
    fn a_tunnel_looks_like_vif_4111_of_the_customer_edge() {
        let vif = Vif {
            id: 4111,
            name: "tunnel_ty8-tky_0".into(),
            r#type: VifType::Tunnel.into(),
            vrf: 8,
            mtu: 1370,
            nexthop: 85,
            nat_pool: vec!["10.101.10.39".into()],
            service_acls: vec![65, 67],
            ..Vif::default()
        };
        let info = VifInfo {
            vif: Some(vif),
            flags: "L3Tun".into(),
            oper_state: OperState::Up.into(),
            references: 67,
            counters: Some(Counters {
                rx_packets: 86_228_068,
                rx_bytes: 54_213_735_085,
                tx_packets: 83_300_681,
                tx_bytes: 44_061_827_864,
                tx_errors: 18,
                drops: 39093,
                tcp_resets_ignored: 36,
                ..Counters::default()
            }),
            rx_queue_errors: vec![0; 12],
            sas: vec![sa::tests::outbound(), sa::tests::inbound()],
            ..VifInfo::default()
        };
        let text = rendered(vec![info]);
        insta::assert_snapshot!(text.strip_prefix(LEGEND).unwrap().trim_start(), @"
        vif0/4111 Virtual: tunnel_ty8-tky_0 Parent:vif0/-1
        Type:Tunnel HWaddr: Driver:
        Vrf:8 Mcast Vrf:8 VN:0x0 Flags:L3Tun Ref:67
        MTU: 1370 EncMSS: 0 NH: 85
        Outbound SA:SAId: 0xffff0060 Tunnel SRC:172.28.13.36 Tunnel DST:103.135.56.40
        Tunnel Mode:Tunnel Window size:0 VIF: 0 State: Active
        Inbound SA:SAId: 0xffff5f70 Tunnel SRC:103.135.56.40 Tunnel DST:172.28.13.36
        Tunnel Mode:Tunnel Window size:1024 VIF: 4111 State: Expiring
        NAT Pool: 10.101.10.39
        RX queue errors to lcore 0 0 0 0 0 0 0 0 0 0 0 0
        RX packets:86228068 bytes:54213735085 errors:0
        TX packets:83300681 bytes:44061827864 errors:18
        Drops:39093
        TCP reset ignored:36
        Service ACL: 65 67
        ");
    }

    #[test]
    fn a_vif_that_is_down_says_why_and_shows_both_tags() {
        let vif = Vif {
            id: 7,
            name: "ens224.10.20".into(),
            r#type: VifType::PhysicalVlan.into(),
            parent: 1,
            outer_vlan: Some(VlanTag { vid: 10, tpid: 0x88a8 }),
            inner_vlan: Some(VlanTag { vid: 20, tpid: 0x8100 }),
            vn: 0x10006,
            ..Vif::default()
        };
        let info = VifInfo {
            vif: Some(vif),
            oper_state: OperState::Down.into(),
            oper_error: "ens224: no such device".into(),
            counters: Some(Counters { tcp_resets_ignored: 36, ..Counters::default() }),
            ..VifInfo::default()
        };
        let text = rendered(vec![info]);
        insta::assert_snapshot!(text.strip_prefix(LEGEND).unwrap().trim_start(), @"
        vif0/7 Ethernet: ens224.10.20 Vlan(o/i)(,S): 10/20,S (Speed 0, Duplex 0) Parent:vif0/1
        Type:Physical(Vlan) HWaddr: Driver:
        State: Down (ens224: no such device)
        Vrf:0 Mcast Vrf:0 VN:0x10006 Flags: Ref:0
        MTU: 0 EncMSS: 0 NH: 0
        RX packets:0 bytes:0 errors:0
        TX packets:0 bytes:0 errors:0
        Drops:0
        TCP reset ignored:36
        ");
    }
}
