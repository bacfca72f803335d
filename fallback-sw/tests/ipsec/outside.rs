//! The outside of a tunnel: NAT-T, keepalives, IKE, DSCP and DF, fragments, the path's MTU.

use crate::{
    common::packets::{Frame, icmp_error, plain, udp},
    net::{CE1_MAC, CE1_WAN, CLIENT, LAN, NAT_T, Net, RE_MAC, RE_WAN, SERVER, TUNNELS, WAN, re, to},
};

const HOST: u32 = 3;

#[test]
fn ike_reaches_the_host_on_both_ports_and_a_keepalive_is_used_up() {
    let mut net = Net::default();
    let ike = [&[0; 4][..], b"an IKE message of some length"].concat();
    for (port, payload) in [(4500, &ike[..]), (500, b"IKE")] {
        let sent = net.ce1.receive(WAN, &to(CE1_MAC, &udp(RE_WAN[0], CE1_WAN, port, port, payload).ip()));
        assert_eq!(sent.len(), 1, "{:?}", net.ce1.all_drops());
        assert_eq!(u32::from(sent[0].port.get()), HOST);
        assert_eq!(&Frame::read(sent[0].packet.data()).ip().body[8..], payload);
    }
    let before = net.ce1.machine.account().consumed;
    assert!(net.ce1.receive(WAN, &to(CE1_MAC, &udp(RE_WAN[0], CE1_WAN, 4500, 4500, &[0xff]).ip())).is_empty());
    assert_eq!(net.ce1.machine.account().consumed, before + 1);
    // Neither IKE, nor ESP, nor a keepalive.
    net.ce1.receive(WAN, &to(CE1_MAC, &udp(RE_WAN[0], CE1_WAN, 4500, 4500, &[1, 2]).ip()));
    assert_eq!(net.ce1.all_drops(), [("ESP Truncated", 1)]);
}

/// An IP packet with more octets at its end than its UDP datagram has, or with a datagram that says to end earlier.
fn with_udp_length(ip: &[u8], len: u16, behind: usize) -> Vec<u8> {
    let octets = Frame::read(&to(RE_MAC, ip)).ip();
    let mut body = [&octets.body[..], &vec![0x5a; behind]].concat();
    body[4..6].copy_from_slice(&len.to_be_bytes());
    plain(&octets.src.to_string(), &octets.dst.to_string(), octets.proto, &body).ip()
}

#[test]
fn case_06_esp_in_udp_ends_with_its_datagram() {
    let mut net = Net::default();
    let sealed = |net: &mut Net| {
        let sent = net.from_client(&udp(CLIENT, SERVER, 5000, 53, b"x").ip());
        let ip = Frame::read(sent[0].packet.data()).ip();
        let len = u16::try_from(ip.body.len()).unwrap();
        (ip.octets, len)
    };
    // What is behind the datagram is no part of it (RFC 768): the check value is before it.
    let (ip, len) = sealed(&mut net);
    assert_eq!(net.re.receive(WAN, &to(RE_MAC, &with_udp_length(&ip, len, 24))).len(), 1);
    // A datagram that ends before is cut, though the octets are there.
    for (short, reason) in [
        (7, "Invalid Packet"),
        (8, "ESP Truncated"),
        (11, "ESP Truncated"),
        (20, "ESP Truncated"),
        (len - 1, "ESP Authentication Failed"),
    ] {
        let (ip, _) = sealed(&mut net);
        let before = net.re.all_drops().iter().find(|(name, _)| *name == reason).map_or(0, |(_, count)| *count);
        assert!(net.re.receive(WAN, &to(RE_MAC, &with_udp_length(&ip, short, 0))).is_empty());
        let after = net.re.all_drops().iter().find(|(name, _)| *name == reason).map_or(0, |(_, count)| *count);
        assert_eq!(after, before + 1, "{short}: {:?}", net.re.all_drops());
    }
    // A keepalive is one octet long, and IKE's mark is inside the datagram (RFC 3948 §2.2, §2.3).
    let keepalive = udp(RE_WAN[0], CE1_WAN, 4500, 4500, &[0xff]).ip();
    let before = net.ce1.machine.account().consumed;
    assert!(net.ce1.receive(WAN, &to(CE1_MAC, &with_udp_length(&keepalive, 9, 11))).is_empty());
    assert_eq!(net.ce1.machine.account().consumed, before + 1);
    let mark = udp(RE_WAN[0], CE1_WAN, 4500, 4500, &[0, 0]).ip();
    assert!(net.ce1.receive(WAN, &to(CE1_MAC, &with_udp_length(&mark, 10, 40))).is_empty());
    assert_eq!(net.ce1.all_drops(), [("ESP Truncated", 1)]);
}

#[test]
fn keepalives_make_a_nat_binding_and_keep_it_each_twenty_idle_seconds() {
    let mut net = Net::default();
    // Nothing was ever sent: the other end could not begin.
    assert_eq!(net.ce1.wait(1_000).len(), 2);
    assert!(net.ce1.wait(18_000).is_empty());
    let sent = net.ce1.wait(3_000);
    assert_eq!(sent.len(), 2);
    for sent in &sent {
        let ip = Frame::read(sent.packet.data()).ip();
        assert_eq!((ip.src.to_string().as_str(), ip.ports(), &ip.body[8..]), (CE1_WAN, (4500, 4500), &[0xff][..]));
        assert!(net.re.receive(WAN, &to(RE_MAC, &ip.octets)).is_empty());
    }
    assert_eq!(net.re.machine.account().consumed, 2);
    // What is sent keeps the binding as well.
    for _ in 0..5 {
        for port in 0..40 {
            net.from_client(&udp(CLIENT, SERVER, 5000 + port, 53, b"x").ip());
        }
        assert!(net.ce1.wait(15_000).is_empty());
    }
    // Bare ESP has no binding to keep.
    assert!(net.ce2.wait(60_000).is_empty());
}

#[test]
fn a_port_that_a_nat_has_chosen_is_written_and_read() {
    let ce1 = crate::net::ce1();
    let re = re().replace(NAT_T, r#", "natT": {"destinationPort": 61234}"#);
    let config = fallback_sw::node::machine::MachineConfig::default();
    let mut net = Net::with(&ce1, &re, &crate::net::ce2(), config);
    let sent = net.ce2.receive(LAN, &crate::common::walk_a::from_client(&udp(SERVER, CLIENT, 53, 5000, b"x").ip()));
    let ip = Frame::read(sent[0].packet.data()).ip();
    let on = net.re.receive(WAN, &to(RE_MAC, &ip.octets));
    assert_eq!(Frame::read(on[0].packet.data()).ip().ports(), (4500, 61234));
    // From the NAT's port to 4500.
    let sent = net.from_client(&udp(CLIENT, SERVER, 5000, 53, b"x").ip());
    let mut ip = Frame::read(sent[0].packet.data()).ip().octets;
    ip[20..22].copy_from_slice(&61234_u16.to_be_bytes());
    assert_eq!(net.re.receive(WAN, &to(RE_MAC, &ip)).len(), 1);
}

#[test]
fn dscp_and_df_of_the_outside_are_as_the_tunnel_says() {
    for (more, df_in, df_out, tos_out) in [
        ("", false, false, 0xb9),
        (r#", "df": "DF_SET""#, false, true, 0xb9),
        (r#", "df": "DF_CLEAR", "dscp": 10"#, false, false, 10 << 2 | 1),
    ] {
        let changed = crate::net::ce1().replace(NAT_T, &format!("{NAT_T}{more}"));
        let config = fallback_sw::node::machine::MachineConfig::default();
        let mut net = Net::with(&changed, &re(), &crate::net::ce2(), config);
        let packet = udp(CLIENT, SERVER, 5000, 53, b"x").tos(0xb9);
        let packet = if df_in { packet.df() } else { packet };
        let sent = net.from_client(&packet.ip());
        let ip = Frame::read(sent[0].packet.data()).ip();
        assert_eq!((ip.df, ip.tos, ip.ttl), (df_out, tos_out, 64), "{more}");
    }
}

#[test]
fn fragments_of_the_outside_are_put_together_before_they_are_opened() {
    let mut net = Net::default();
    for (from_client, mac) in [(true, RE_MAC), (false, RE_MAC)] {
        let sent = if from_client {
            net.from_client(&udp(CLIENT, SERVER, 5000, 53, &[9; 1000]).ip())
        } else {
            net.ce2.receive(LAN, &crate::common::walk_a::from_client(&udp(SERVER, CLIENT, 53, 5000, &[9; 1000]).ip()))
        };
        let whole = Frame::read(sent[0].packet.data()).ip();
        let (src, dst) = (whole.src.to_string(), whole.dst.to_string());
        let outer = crate::common::packets::plain(&src, &dst, whole.proto, &whole.body).id(77);
        assert!(net.re.receive(WAN, &to(mac, &outer.part(504, 4000).ip())).is_empty());
        let on = net.re.receive(WAN, &to(mac, &outer.part(0, 504).ip()));
        assert_eq!(net.carry(on).len(), 1, "{:?}", net.all_drops());
    }
    assert_eq!(net.all_drops(), [vec![], vec![], vec![]]);
}

#[test]
fn a_router_that_takes_no_larger_esp_lowers_what_goes_into_the_tunnel() {
    let df = format!(r#"{NAT_T}, "df": "DF_SET""#);
    let mut net = Net::altered(&[("\"outboundSas\": [18]", "\"outboundSas\": []"), (NAT_T, &df)]);
    let packet = |len: usize| udp(CLIENT, SERVER, 5000, 53, &vec![0; len]).df().ip();
    let sent = net.from_client(&packet(1200));
    let esp = Frame::read(sent[0].packet.data()).ip();
    let mut error = icmp_error("203.0.113.9", CE1_WAN, 3, 4, &esp.octets);
    error.body()[6..8].copy_from_slice(&1000_u16.to_be_bytes());
    error.body()[2..4].fill(0);
    let sum = ones(error.body());
    error.body()[2..4].copy_from_slice(&sum.to_be_bytes());
    assert!(net.ce1.receive(WAN, &to(CE1_MAC, &error.ip())).is_empty());
    let sent = net.from_client(&packet(1200));
    let answer = Frame::read(sent[0].packet.data()).ip();
    assert_eq!(answer.icmp(), (3, 4));
    // 1000 − 28 − 32 = 940 of text, 2 of trailer, 32 of MPLS over UDP.
    assert_eq!(u16::from_be_bytes([answer.body[6], answer.body[7]]), 938 - 32);
    let fits = net.from_client(&packet(938 - 32 - 28));
    assert_eq!(Frame::read(fits[0].packet.data()).ip().octets.len(), 1000);
    assert_eq!(net.ce1.vif_packets(TUNNELS[0]).1, 2);
}

fn ones(octets: &[u8]) -> u16 {
    let mut sum: u32 = octets.chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(p.get(1).copied().unwrap_or(0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
