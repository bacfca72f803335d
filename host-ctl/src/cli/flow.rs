//! `flow --get` and `flow --list`.

use std::fmt;

use proto::v1::{AddressFamily, Flow, FlowAction, FlowPair, FlowTier};

use super::text::{self, protocol, separated};

const LEGEND: &str = "\
Action:F=Forward, D=Drop, N=NAT(S=SNAT, D=DNAT, Ps=SPAT, Pd=DPAT)
Flags:I=Initiator of the pair
TCP(r=reverse):S=SYN, F=FIN, R=RST, C=HalfClose, E=Established, D=Dead
Other:K(Idx)=Key Interface, E=ECMP member by level, S(nh)=RPF Nexthop, D(nh)=Nexthop, D(L)=Label, SPort=Tunnel UDP source port
Tier:where it runs(why not in hardware), HW=of these in hardware
";

/// Legend and column names of `flow --list`.
///
/// # Errors
/// Those of `out`.
pub fn render_heading(out: &mut impl fmt::Write) -> fmt::Result {
    out.write_str(LEGEND)?;
    writeln!(out, "\n{:<22} {:<47} Proto(V)", "Index", "Source:Port/Destination:Port")
}

/// `flow --list`: one direction, in two lines.
///
/// # Errors
/// Those of `out`.
pub fn render_line(flow: &Flow, out: &mut impl fmt::Write) -> fmt::Result {
    let index = format!("{}<=>{}", flow.index, reverse_index(flow));
    let ends = format!("{} {}", source(flow, false), destination(flow, false));
    let vrfs = if flow.destination_vrf == 0 || flow.destination_vrf == flow.vrf {
        flow.vrf.to_string()
    } else {
        format!("{}->{}", flow.vrf, flow.destination_vrf)
    };
    writeln!(out, "{index:<22} {ends:<47} {} ({vrfs})", flow.proto)?;
    let action = match flow.action() {
        FlowAction::Unspecified => "-".to_owned(),
        FlowAction::Forward => "F".to_owned(),
        FlowAction::Drop => format!("D({})", flow.drop_reason),
        FlowAction::Nat => "N".to_owned(),
    };
    let flags = if flow.initiator { "I" } else { "" };
    write!(out, "(Gen: {}, K(Idx):{}, Action:{action}, Flags:{flags}, ", flow.generation, flow.vif)?;
    if !flow.tcp_state.is_empty() {
        write!(out, "TCP:{}, ", flow.tcp_state)?;
    }
    write!(out, "Stats:{}/{}", flow.packets, flow.bytes)?;
    for (level, member) in flow.ecmp_index.iter().enumerate() {
        write!(out, " E{level}:{member}")?;
    }
    if flow.hardware_packets > 0 {
        write!(out, " HW:{}/{}", flow.hardware_packets, flow.hardware_bytes)?;
    }
    write!(out, ", QOS:-1, S(nh):{}, D(nh):{}", flow.source_nexthop, flow.nexthop)?;
    if let Some(label) = flow.label {
        write!(out, ", D(L):{label}")?;
    }
    write!(out, ", SPort: {}, CPU: {}, Created: {}", flow.tunnel_source_port, flow.worker, flow.created_ms)?;
    write!(out, ", LastSeen: {}, Changed: {}, ACL: {}/{}", flow.last_seen_ms, flow.changed_ms, flow.acl, flow.ace)?;
    writeln!(out, ", Tier: {})", tier(flow))
}

/// `flow --get`: the flow with the index that was asked for, then the other direction.
///
/// # Errors
/// Those of `out`.
pub fn render(index: u64, pair: &FlowPair, out: &mut impl fmt::Write) -> fmt::Result {
    let mut flows: Vec<&Flow> = pair.forward.iter().chain(&pair.reverse).collect();
    flows.sort_by_key(|flow| flow.index != index);
    for (i, flow) in flows.into_iter().enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        details(flow, out)?;
    }
    Ok(())
}

fn details(flow: &Flow, out: &mut impl fmt::Write) -> fmt::Result {
    line(out, "Flow Index", flow.index)?;
    line(out, "Flow Generation ID", flow.generation)?;
    line(out, "Reverse Flow Index", reverse_index(flow))?;
    line(out, "VRF", flow.vrf)?;
    line(out, "Destination VRF", if flow.destination_vrf == 0 { flow.vrf } else { flow.destination_vrf })?;
    line(out, "Flow Source", source(flow, true))?;
    line(out, "Flow Destination", destination(flow, true))?;
    line(out, "Flow Protocol", protocol(flow.proto))?;
    line(
        out,
        "Flow Action",
        match flow.action() {
            FlowAction::Unspecified => "Unknown".to_owned(),
            FlowAction::Forward => "FORWARD".to_owned(),
            FlowAction::Drop => format!("DROP ({})", flow.drop_reason),
            FlowAction::Nat => "NAT".to_owned(),
        },
    )?;
    if !flow.tcp_state.is_empty() {
        line(out, "TCP State", &flow.tcp_state)?;
    }
    let role = if flow.initiator { "Initiator" } else { "Responder" };
    line(out, "Role", role)?;
    match flow.vif {
        0 => line(out, "Key Interface", "Tunnel")?,
        vif => line(out, "Key Interface", format!("vif0/{vif}"))?,
    }
    line(out, "Source Nexthop (RPF)", flow.source_nexthop)?;
    line(out, "Nexthop", flow.nexthop)?;
    if let Some(label) = flow.label {
        line(out, "Label", label)?;
    }
    if flow.tunnel_source_port != 0 {
        line(out, "Tunnel Source Port", flow.tunnel_source_port)?;
    }
    if !flow.ecmp_index.is_empty() {
        line(out, "ECMP Index", separated(&flow.ecmp_index, ", "))?;
    }
    line(out, "ACL/Entry", format!("{}/{}", flow.acl, flow.ace))?;
    line(out, "Statistics", format!("{} packets, {} bytes", flow.packets, flow.bytes))?;
    line(out, "Created", format!("{} ms", flow.created_ms))?;
    line(out, "Last Seen", format!("{} ms", flow.last_seen_ms))?;
    line(out, "Changed", format!("{} ms", flow.changed_ms))?;
    line(out, "Worker", flow.worker)?;
    line(out, "Tier", tier(flow))?;
    if flow.hardware_packets > 0 || matches!(flow.tier(), FlowTier::Hardware) {
        line(out, "In Hardware", format!("{} packets, {} bytes", flow.hardware_packets, flow.hardware_bytes))?;
    }
    for (i, op) in flow.ops.iter().enumerate() {
        let name = if i == 0 { "Operations:" } else { "" };
        writeln!(out, "{name:<27}{op}")?;
    }
    Ok(())
}

fn line(out: &mut impl fmt::Write, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(out, "{:<27}{value}", format!("{name}:"))
}

/// The index of the other direction; `-` when there is none.
fn reverse_index(flow: &Flow) -> String {
    flow.reverse_index.map_or_else(|| "-".to_owned(), |index| index.to_string())
}

/// Where the flow runs, and why not in hardware.
fn tier(flow: &Flow) -> String {
    text::tier(flow.tier(), &flow.not_offloaded_reason)
}

fn source(flow: &Flow, brackets: bool) -> String {
    end(flow.family(), &flow.source, flow.source_port, brackets)
}

fn destination(flow: &Flow, brackets: bool) -> String {
    end(flow.family(), &flow.destination, flow.destination_port, brackets)
}

/// `192.168.3.100:80`; IPv6 always has brackets.
fn end(family: AddressFamily, address: &str, port: u32, brackets: bool) -> String {
    if brackets || family == AddressFamily::Inet6 { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flow 19524 of the second customer edge.
    fn flow() -> Flow {
        Flow {
            index: 19524,
            generation: 17,
            reverse_index: Some(229_888),
            vrf: 17,
            destination_vrf: 15,
            vif: 4113,
            proto: 6,
            source: "192.168.3.100".into(),
            destination: "192.168.3.1".into(),
            source_port: 80,
            destination_port: 51219,
            action: FlowAction::Nat.into(),
            tcp_state: "SSrEEr".into(),
            packets: 355,
            bytes: 90737,
            ecmp_index: vec![0],
            source_nexthop: 524,
            nexthop: 525,
            label: Some(278),
            tunnel_source_port: 56013,
            worker: 12,
            created_ms: 3_089_255_928,
            last_seen_ms: 3_089_268_274,
            acl: 65,
            ace: 1,
            tier: FlowTier::Software.into(),
            not_offloaded_reason: "no hardware".into(),
            ..Flow::default()
        }
    }

    #[test]
    fn a_line_pair_looks_like_that_of_flow_19524() {
        let mut text = String::new();
        render_heading(&mut text).unwrap();
        render_line(&flow(), &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        Action:F=Forward, D=Drop, N=NAT(S=SNAT, D=DNAT, Ps=SPAT, Pd=DPAT)
        Flags:I=Initiator of the pair
        TCP(r=reverse):S=SYN, F=FIN, R=RST, C=HalfClose, E=Established, D=Dead
        Other:K(Idx)=Key Interface, E=ECMP member by level, S(nh)=RPF Nexthop, D(nh)=Nexthop, D(L)=Label, SPort=Tunnel UDP source port
        Tier:where it runs(why not in hardware), HW=of these in hardware

        Index                  Source:Port/Destination:Port                    Proto(V)
        19524<=>229888         192.168.3.100:80 192.168.3.1:51219              6 (17->15)
        (Gen: 17, K(Idx):4113, Action:N, Flags:, TCP:SSrEEr, Stats:355/90737 E0:0, QOS:-1, S(nh):524, D(nh):525, D(L):278, SPort: 56013, CPU: 12, Created: 3089255928, LastSeen: 3089268274, Changed: 0, ACL: 65/1, Tier: Software(no hardware))
        ");
    }

    #[test]
    fn a_dropped_flow_names_its_reason_and_a_new_one_its_single_vrf() {
        let dropped = Flow {
            index: 5,
            reverse_index: None,
            vrf: 18,
            destination_vrf: 18,
            vif: 7,
            family: AddressFamily::Inet6.into(),
            proto: 58,
            source: "fe80:2:0:1:6:0:c0a8:6464".into(),
            destination: "ff::13:6c00:2".into(),
            source_port: 99,
            destination_port: 128,
            action: FlowAction::Drop.into(),
            drop_reason: "Policy Deny".into(),
            initiator: true,
            tier: FlowTier::Hardware.into(),
            packets: 7,
            bytes: 700,
            hardware_packets: 5,
            hardware_bytes: 500,
            ..Flow::default()
        };
        let mut text = String::new();
        render_line(&dropped, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        5<=>-                  [fe80:2:0:1:6:0:c0a8:6464]:99 [ff::13:6c00:2]:128 58 (18)
        (Gen: 0, K(Idx):7, Action:D(Policy Deny), Flags:I, Stats:7/700 HW:5/500, QOS:-1, S(nh):0, D(nh):0, SPort: 0, CPU: 0, Created: 0, LastSeen: 0, Changed: 0, ACL: 0/0, Tier: Hardware)
        ");
    }

    #[test]
    fn a_flow_in_hardware_shows_what_the_nic_has_forwarded() {
        let details = |tier: FlowTier, packets: u64| {
            let flow = Flow {
                tier: tier.into(),
                packets: 9,
                hardware_packets: packets,
                hardware_bytes: packets * 64,
                ..flow()
            };
            let mut text = String::new();
            render(19524, &FlowPair { forward: Some(flow), reverse: None }, &mut text).unwrap();
            text
        };
        let text = details(FlowTier::Hardware, 8);
        assert!(text.contains("In Hardware:               8 packets, 512 bytes\n"), "{text}");
        // It has been there, or it is and nothing has come yet.
        assert!(details(FlowTier::Software, 1).contains("In Hardware:               1 packets"));
        assert!(details(FlowTier::Hardware, 0).contains("In Hardware:               0 packets"));
        assert!(!details(FlowTier::Software, 0).contains("In Hardware:"));
    }

    #[test]
    fn the_details_look_like_those_of_flow_19524() {
        let forward = Flow { ops: vec!["decrement TTL".into(), "push label 278".into()], ..flow() };
        let reverse = Flow {
            index: 229_888,
            reverse_index: Some(19524),
            vrf: 15,
            destination_vrf: 17,
            action: FlowAction::Forward.into(),
            initiator: true,
            proto: 17,
            source: "192.168.3.1".into(),
            ..Flow::default()
        };
        let pair = FlowPair { forward: Some(reverse), reverse: Some(forward) };
        let mut text = String::new();
        render(19524, &pair, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        Flow Index:                19524
        Flow Generation ID:        17
        Reverse Flow Index:        229888
        VRF:                       17
        Destination VRF:           15
        Flow Source:               [192.168.3.100]:80
        Flow Destination:          [192.168.3.1]:51219
        Flow Protocol:             TCP
        Flow Action:               NAT
        TCP State:                 SSrEEr
        Role:                      Responder
        Key Interface:             vif0/4113
        Source Nexthop (RPF):      524
        Nexthop:                   525
        Label:                     278
        Tunnel Source Port:        56013
        ECMP Index:                0
        ACL/Entry:                 65/1
        Statistics:                355 packets, 90737 bytes
        Created:                   3089255928 ms
        Last Seen:                 3089268274 ms
        Changed:                   0 ms
        Worker:                    12
        Tier:                      Software(no hardware)
        Operations:                decrement TTL
                                   push label 278

        Flow Index:                229888
        Flow Generation ID:        0
        Reverse Flow Index:        19524
        VRF:                       15
        Destination VRF:           17
        Flow Source:               [192.168.3.1]:0
        Flow Destination:          []:0
        Flow Protocol:             UDP
        Flow Action:               FORWARD
        Role:                      Initiator
        Key Interface:             Tunnel
        Source Nexthop (RPF):      0
        Nexthop:                   0
        ACL/Entry:                 0/0
        Statistics:                0 packets, 0 bytes
        Created:                   0 ms
        Last Seen:                 0 ms
        Changed:                   0 ms
        Worker:                    0
        Tier:                      Unknown
        ");
    }
}
