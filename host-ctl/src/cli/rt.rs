//! `rt --dump` and `rt --get`.

use std::fmt;

use proto::v1::{AddressFamily, ListRoutesResponse, Route, RouteInfo};

use super::text::{joined, row, table_family};

const LEGEND: &str = "\
Flags: L=Label Valid, P=Proxy ARP, T=Trap ARP, F=Flood ARP, H=Proxy ARP for host interface, V=Preferred VRF
Labels/Misc: S=SiteId N=NetworkId
";
const WIDTHS: [usize; 5] = [20, 9, 11, 11, 11];
/// Policy labels in a line.
const LABELS_PER_LINE: usize = 3;

/// Legend and heading of a table.
///
/// # Errors
/// Those of `out`.
pub fn render_heading(vrf: u32, family: AddressFamily, out: &mut impl fmt::Write) -> fmt::Result {
    out.write_str(LEGEND)?;
    writeln!(out, "vRouter {} routing table 0/{vrf}/unicast", table_family(family))?;
    row(out, &WIDTHS, &[&"Destination", &"PPL", &"Flags", &"Label", &"Nexthop", &"Labels/Misc"])
}

/// What stands under the heading when there is no such table or route.
///
/// # Errors
/// Those of `out`.
pub fn render_not_found(out: &mut impl fmt::Write) -> fmt::Result {
    writeln!(out, "vRouter(Response): [No such file or directory (2)]")
}

/// `rt --dump`: a table.
///
/// # Errors
/// Those of `out`.
pub fn render(
    vrf: u32,
    family: AddressFamily,
    response: &ListRoutesResponse,
    out: &mut impl fmt::Write,
) -> fmt::Result {
    render_heading(vrf, family, out)?;
    writeln!(out, "{:20}Number of routes: {}\n", "", response.routes.len())?;
    response.routes.iter().try_for_each(|info| route(info, out))
}

/// First lines of `rt --get`.
///
/// # Errors
/// Those of `out`.
pub fn render_match_heading(prefix: &str, vrf: u32, out: &mut impl fmt::Write) -> fmt::Result {
    let family = family_of(prefix);
    writeln!(out, "Match {prefix} in vRouter {} table 0/{vrf}/unicast\n", table_family(family))?;
    render_heading(vrf, family, out)
}

/// `rt --get`: the longest match.
///
/// # Errors
/// Those of `out`.
pub fn render_match(prefix: &str, vrf: u32, response: &ListRoutesResponse, out: &mut impl fmt::Write) -> fmt::Result {
    render_match_heading(prefix, vrf, out)?;
    response.routes.iter().try_for_each(|info| route(info, out))
}

fn family_of(prefix: &str) -> AddressFamily {
    if prefix.contains(':') { AddressFamily::Inet6 } else { AddressFamily::Inet }
}

fn route(info: &RouteInfo, out: &mut impl fmt::Write) -> fmt::Result {
    let default = Route::default();
    let route = info.route.as_ref().unwrap_or(&default);
    let length = route.prefix.split_once('/').map_or("", |(_, length)| length);
    let flags = if info.flags.is_empty() { "-" } else { &info.flags };
    let label = route.label.map_or_else(|| "-".to_owned(), |label| label.to_string());
    let misc = joined(misc(route, info));
    row(out, &WIDTHS, &[&route.prefix, &length, &flags, &label, &route.nexthop, &misc])?;
    route.policy_labels.chunks(LABELS_PER_LINE).try_for_each(|labels| writeln!(out, "{:20}{}", "", joined(labels)))
}

fn misc(route: &Route, info: &RouteInfo) -> Vec<String> {
    let mut misc = Vec::new();
    if route.site != 0 || route.network != 0 {
        misc.push(format!("(S,N):{}:{}", route.site, route.network));
    }
    if route.vn != 0 {
        misc.push(format!("VN:{}", route.vn));
    }
    if route.stats_uid != 0 {
        misc.push(format!("Stats UID:{}", route.stats_uid));
    }
    if !info.gateway.is_empty() {
        misc.push(format!("Via:{}", info.gateway));
    }
    if info.learned {
        misc.push("Learned".to_owned());
    }
    misc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(prefix: &str, flags: &str, label: Option<u32>, nexthop: u32) -> RouteInfo {
        let route = Route { prefix: prefix.into(), nexthop, label, ..Route::default() };
        RouteInfo { route: Some(route), flags: flags.into(), ..RouteInfo::default() }
    }

    fn from(mut info: RouteInfo, site: u32, network: u32, stats_uid: u32, labels: &[&str]) -> RouteInfo {
        let route = info.route.as_mut().unwrap();
        (route.site, route.network, route.vn, route.stats_uid) = (site, network, 65543, stats_uid);
        route.policy_labels = labels.iter().map(|label| (*label).to_owned()).collect();
        info
    }

    #[test]
    fn a_table_looks_like_that_of_vrf_18_of_the_first_customer_edge() {
        let labels = ["1:45", "6:21", "35:155"];
        let response = ListRoutesResponse {
            routes: vec![
                route("0.0.0.0/0", "-", None, 0),
                from(route("10.0.10.100/32", "LV", Some(270), 489), 4972, 48217, 10, &["1:45", "35:155"]),
                from(route("192.168.2.0/24", "LV", Some(280), 529), 5446, 48218, 14, &labels),
                from(route("192.168.3.0/24", "LV", Some(279), 489), 4972, 48236, 0, &labels),
                from(
                    route("192.168.100.1/32", "LPV", Some(0), 504),
                    5049,
                    48217,
                    10,
                    &["1:45", "6:6", "6:21", "35:155"],
                ),
            ],
        };
        let mut text = String::new();
        render(18, AddressFamily::Inet, &response, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        Flags: L=Label Valid, P=Proxy ARP, T=Trap ARP, F=Flood ARP, H=Proxy ARP for host interface, V=Preferred VRF
        Labels/Misc: S=SiteId N=NetworkId
        vRouter inet4 routing table 0/18/unicast
        Destination         PPL      Flags      Label      Nexthop    Labels/Misc
                            Number of routes: 5

        0.0.0.0/0           0        -          -          0
        10.0.10.100/32      32       LV         270        489        (S,N):4972:48217 VN:65543 Stats UID:10
                            1:45 35:155
        192.168.2.0/24      24       LV         280        529        (S,N):5446:48218 VN:65543 Stats UID:14
                            1:45 6:21 35:155
        192.168.3.0/24      24       LV         279        489        (S,N):4972:48236 VN:65543
                            1:45 6:21 35:155
        192.168.100.1/32    32       LPV        0          504        (S,N):5049:48217 VN:65543 Stats UID:10
                            1:45 6:6 6:21
                            35:155
        ");
    }

    #[test]
    fn an_inet6_table_aligns_long_prefixes_and_marks_learned_routes() {
        let mut learned = route("fe80:2:0:1:6:0:c0a8:6464/128", "", None, 16_777_217);
        learned.learned = true;
        let response = ListRoutesResponse {
            routes: vec![route("::/0", "L", Some(278), 11), route("ff::13:6c00:2/128", "L", Some(284), 489), learned],
        };
        let mut text = String::new();
        render(16, AddressFamily::Inet6, &response, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        Flags: L=Label Valid, P=Proxy ARP, T=Trap ARP, F=Flood ARP, H=Proxy ARP for host interface, V=Preferred VRF
        Labels/Misc: S=SiteId N=NetworkId
        vRouter inet6 routing table 0/16/unicast
        Destination         PPL      Flags      Label      Nexthop    Labels/Misc
                            Number of routes: 3

        ::/0                0        L          278        11
        ff::13:6c00:2/128   128      L          284        489
        fe80:2:0:1:6:0:c0a8:6464/128 128      -          -          16777217   Learned
        ");
    }

    #[test]
    fn a_route_tells_the_gateway_that_its_nexthop_names() {
        let mut default = route("0.0.0.0/0", "-", None, 12);
        default.gateway = "198.51.100.254".into();
        let mut text = String::new();
        super::route(&default, &mut text).unwrap();
        insta::assert_snapshot!(text, @"0.0.0.0/0           0        -          -          12         Via:198.51.100.254");
    }

    #[test]
    fn a_match_looks_like_that_of_the_second_customer_edge() {
        let info = from(route("192.168.3.100/32", "LV", Some(0), 524), 4972, 48236, 0, &["1:32", "6:175", "21:54"]);
        let mut text = String::new();
        render_match("192.168.3.100/32", 17, &ListRoutesResponse { routes: vec![info] }, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        Match 192.168.3.100/32 in vRouter inet4 table 0/17/unicast

        Flags: L=Label Valid, P=Proxy ARP, T=Trap ARP, F=Flood ARP, H=Proxy ARP for host interface, V=Preferred VRF
        Labels/Misc: S=SiteId N=NetworkId
        vRouter inet4 routing table 0/17/unicast
        Destination         PPL      Flags      Label      Nexthop    Labels/Misc
        192.168.3.100/32    32       LV         0          524        (S,N):4972:48236 VN:65543
                            1:32 6:175 21:54
        ");
    }

    #[test]
    fn an_empty_table_answers_enoent_under_its_heading() {
        let mut text = String::new();
        render_heading(16, AddressFamily::Inet, &mut text).unwrap();
        render_not_found(&mut text).unwrap();
        insta::assert_snapshot!(text, @"
        Flags: L=Label Valid, P=Proxy ARP, T=Trap ARP, F=Flood ARP, H=Proxy ARP for host interface, V=Preferred VRF
        Labels/Misc: S=SiteId N=NetworkId
        vRouter inet4 routing table 0/16/unicast
        Destination         PPL      Flags      Label      Nexthop    Labels/Misc
        vRouter(Response): [No such file or directory (2)]
        ");
    }
}
