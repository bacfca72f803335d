//! `vrf` and `vrfstats`.

use std::fmt;

use proto::v1::{ListVrfsResponse, VrfInfo};

use super::text::row;

/// `vrf --list`: number, name and routes.
///
/// # Errors
/// Those of `out`.
pub fn render(response: &ListVrfsResponse, out: &mut impl fmt::Write) -> fmt::Result {
    const WIDTHS: [usize; 3] = [8, 14, 14];
    row(out, &WIDTHS, &[&"Vrf", &"Inet routes", &"Inet6 routes", &"Name"])?;
    for vrf in &response.vrfs {
        row(out, &WIDTHS, &[&vrf.id, &vrf.routes_v4, &vrf.routes_v6, &vrf.name])?;
    }
    Ok(())
}

/// `vrfstats`: what became of each VRF's packets. Counters of what the node does not do are 0.
///
/// # Errors
/// Those of `out`.
pub fn render_stats(response: &ListVrfsResponse, out: &mut impl fmt::Write) -> fmt::Result {
    for (i, vrf) in response.vrfs.iter().enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        stats(vrf, out)?;
    }
    Ok(())
}

fn stats(vrf: &VrfInfo, out: &mut impl fmt::Write) -> fmt::Result {
    writeln!(out, "Vrf: {}", vrf.id)?;
    writeln!(
        out,
        "Discards {}, Resolves {}, Receives {}, L2 Receives 0, Vrf Translates {}, Unknown Unicast Floods 0",
        vrf.discards, vrf.resolves, vrf.receives, vrf.vrf_translates
    )?;
    writeln!(
        out,
        "Ecmp Composites {}, L2 Mcast Composites 0, Fabric Composites 0, Encap Composites 0, Evpn Composites 0",
        vrf.ecmp_composites
    )?;
    writeln!(
        out,
        "Udp Tunnels 0, Udp Mpls Tunnels {}, Gre Mpls Tunnels 0, Vxlan Tunnels 0, Pbb Tunnels 0, IP Tunnels 0",
        vrf.udp_mpls_tunnels
    )?;
    writeln!(out, "L2 Encaps 0, Encaps {}, NAT {}", vrf.encaps, vrf.nat)?;
    writeln!(out, "GROs 0, GRO merged 0, Diags 0")?;
    writeln!(
        out,
        "Arp Virtual Proxys {}, Arp Virtual Stitches 0, Arp Virtual Floods {}, Arp Physical Stitches 0, Arp Tor Proxys 0, \
         Arp Physical Floods 0, Arp Physical Proxys {}",
        vrf.arp_virtual_proxys, vrf.arp_floods, vrf.arp_physical_proxys
    )?;
    writeln!(out, "SRV6 tunnels 0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_look_like_those_of_the_first_edges_vrfs_2_and_3() {
        let response = ListVrfsResponse {
            vrfs: vec![
                VrfInfo { id: 2, discards: 835, encaps: 2_105_042, arp_virtual_proxys: 87391, ..VrfInfo::default() },
                VrfInfo { id: 3, discards: 831, arp_virtual_proxys: 17, ..VrfInfo::default() },
            ],
        };
        let mut text = String::new();
        render_stats(&response, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        Vrf: 2
        Discards 835, Resolves 0, Receives 0, L2 Receives 0, Vrf Translates 0, Unknown Unicast Floods 0
        Ecmp Composites 0, L2 Mcast Composites 0, Fabric Composites 0, Encap Composites 0, Evpn Composites 0
        Udp Tunnels 0, Udp Mpls Tunnels 0, Gre Mpls Tunnels 0, Vxlan Tunnels 0, Pbb Tunnels 0, IP Tunnels 0
        L2 Encaps 0, Encaps 2105042, NAT 0
        GROs 0, GRO merged 0, Diags 0
        Arp Virtual Proxys 87391, Arp Virtual Stitches 0, Arp Virtual Floods 0, Arp Physical Stitches 0, Arp Tor Proxys 0, Arp Physical Floods 0, Arp Physical Proxys 0
        SRV6 tunnels 0

        Vrf: 3
        Discards 831, Resolves 0, Receives 0, L2 Receives 0, Vrf Translates 0, Unknown Unicast Floods 0
        Ecmp Composites 0, L2 Mcast Composites 0, Fabric Composites 0, Encap Composites 0, Evpn Composites 0
        Udp Tunnels 0, Udp Mpls Tunnels 0, Gre Mpls Tunnels 0, Vxlan Tunnels 0, Pbb Tunnels 0, IP Tunnels 0
        L2 Encaps 0, Encaps 0, NAT 0
        GROs 0, GRO merged 0, Diags 0
        Arp Virtual Proxys 17, Arp Virtual Stitches 0, Arp Virtual Floods 0, Arp Physical Stitches 0, Arp Tor Proxys 0, Arp Physical Floods 0, Arp Physical Proxys 0
        SRV6 tunnels 0
        ");
    }

    #[test]
    fn vrfs_are_listed_with_their_routes() {
        let vrf = |id, name: &str, routes_v4, routes_v6| VrfInfo {
            id,
            name: name.into(),
            routes_v4,
            routes_v6,
            ..VrfInfo::default()
        };
        let response = ListVrfsResponse { vrfs: vec![vrf(8, "underlay", 4, 0), vrf(18, "demo-red", 19, 31)] };
        let mut text = String::new();
        render(&response, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        Vrf     Inet routes   Inet6 routes  Name
        8       4             0             underlay
        18      19            31            demo-red
        ");
    }
}
