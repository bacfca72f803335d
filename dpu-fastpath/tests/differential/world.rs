//! Forwarding states: variations of the L3VPN example, and changes of them.
//!
//! Two tenants with the same prefixes on two devices, by tags and without; two tunnels over two underlay devices.

use std::fmt::Write as _;

use super::{packets::Mac, rng::Rng};

pub(crate) const ROUTER: Mac = [2, 0, 0, 0, 0, 0xfe];
/// This node's ends of the two tunnels.
pub(crate) const OWN: [&str; 2] = ["10.101.10.39", "10.101.10.40"];
/// The labels that lead into the two tenants' VRFs.
pub(crate) const LABELS: [u32; 2] = [279, 282];
pub(crate) const VRFS: [u32; 2] = [18, 19];
/// The prefixes behind the tunnels, by second octet: the first tunnel's, the second's, and that of both.
pub(crate) const REMOTE: [u8; 3] = [9, 8, 7];

/// A tenant's subnet on a vif.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) vif: u32,
    pub(crate) port: u32,
    /// Index into [`VRFS`].
    pub(crate) tenant: usize,
    /// The second octet of its prefix.
    pub(crate) subnet: u8,
    /// TPID and VLAN id, the outer one first; 0: none.
    pub(crate) tags: [(u16, u16); 2],
}

const NONE: (u16, u16) = (0, 0);
pub(crate) const SEGMENTS: [Segment; 6] = [
    Segment { vif: 1, port: 1, tenant: 0, subnet: 1, tags: [NONE; 2] },
    Segment { vif: 11, port: 1, tenant: 0, subnet: 2, tags: [(0x8100, 100), NONE] },
    Segment { vif: 12, port: 1, tenant: 1, subnet: 1, tags: [(0x8100, 200), NONE] },
    Segment { vif: 2, port: 2, tenant: 1, subnet: 2, tags: [NONE; 2] },
    Segment { vif: 21, port: 2, tenant: 0, subnet: 3, tags: [(0x8100, 100), NONE] },
    Segment { vif: 13, port: 1, tenant: 0, subnet: 4, tags: [(0x88a8, 300), (0x8100, 5)] },
];

/// The MAC of a device.
pub(crate) fn port_mac(port: u32) -> Mac {
    [2, 0, 0, 0, 0x41, port as u8]
}

/// The MAC of host `host` of a segment, of which there are several for when it changes.
pub(crate) fn host_mac(segment: usize, host: u8, life: u8) -> Mac {
    [2, 0x10, segment as u8, host, 0, life]
}

pub(crate) fn host_address(subnet: u8, host: u8, v6: bool) -> String {
    if v6 { format!("fd00:{subnet}::{host:x}") } else { format!("10.{subnet}.0.{host}") }
}

fn mac_text(mac: Mac) -> String {
    mac.iter().fold(String::new(), |mut text, octet| {
        let _ = write!(text, "{octet:02x}");
        text
    })
}

fn header(to: Mac, from: Mac, tags: &[(u16, u16)]) -> String {
    let mut text = mac_text(to) + &mac_text(from);
    for (tpid, vid) in tags.iter().filter(|tag| tag.1 != 0) {
        let _ = write!(text, "{tpid:04x}{vid:04x}");
    }
    text + "0800"
}

/// What a state is made of, as far as it varies.
#[derive(Debug, Clone)]
pub(crate) struct World {
    /// MTU by place in [`Self::VIFS`].
    mtus: Vec<u16>,
    flags: Vec<&'static str>,
    acls: Vec<&'static str>,
    list: usize,
    dscp: [bool; 2],
    udp_port: [u16; 2],
    /// The second tunnel's end is in a subnet of the underlay.
    pub(crate) on_link: bool,
    /// The underlay's second device is used with this tag.
    pub(crate) wan_tag: bool,
    direct: [&'static str; 2],
    members: [u32; 2],
    router_life: u8,
    /// Tunnel nexthop and label of each remote prefix of each tenant.
    remote: [[u32; 3]; 2],
    labels: [u32; 2],
    /// Hosts with a nexthop of their own; the others are found by ARP and ND.
    fixed: bool,
    /// The underlay's first member is a gateway by address.
    gateway: bool,
    base_mtu: [u16; 4],
    /// Neither vifs nor labels have policy: nothing makes a flow.
    flowless: bool,
}

const LISTS: [&str; 5] = [
    r#"{"id": 1, "action": "PERMIT"}"#,
    r#"{"id": 1, "action": "DENY", "proto": 17, "destinationPorts": {"first": 2000, "last": 2099}}, {"id": 2, "action": "DENY", "proto": 132}, {"id": 3, "action": "PERMIT"}"#,
    r#"{"id": 1, "action": "PERMIT", "scope": "ACL_SCOPE_STATELESS", "destinationPorts": {"first": 3000, "last": 3099}, "proto": 17}, {"id": 2, "action": "DENY", "proto": 17, "sourcePorts": {"first": 3000, "last": 3099}}, {"id": 3, "action": "PERMIT"}"#,
    r#"{"id": 1, "action": "DENY", "source": "10.1.0.11/32"}, {"id": 2, "action": "DENY", "proto": 47}, {"id": 3, "action": "PERMIT"}"#,
    r#"{"id": 1, "action": "DENY", "proto": 6, "destinationPorts": {"first": 80, "last": 80}}, {"id": 2, "action": "PERMIT"}"#,
];

impl World {
    /// Vifs: the devices, the tenants' sub-interfaces, one of the underlay.
    const VIFS: [u32; 9] = [1, 2, 3, 4, 11, 12, 21, 13, 41];

    /// The device of a vif, from 0.
    fn device(at: usize) -> usize {
        [0, 1, 2, 3, 0, 0, 1, 0, 3][at]
    }

    /// The plain example: nothing is special.
    pub(crate) fn plain() -> Self {
        Self {
            mtus: vec![1500; 9],
            flags: vec![""; 9],
            acls: vec![""; 9],
            list: 0,
            dscp: [false; 2],
            udp_port: [6635; 2],
            on_link: false,
            wan_tag: false,
            direct: [r#", "directNexthop": 532"#; 2],
            members: [85, 86],
            router_life: 0,
            remote: [[489, 490, 491]; 2],
            labels: [513, 514],
            fixed: true,
            gateway: false,
            base_mtu: [1500; 4],
            flowless: false,
        }
    }

    /// The underlay alone, as JSON: its devices, and where tunnels end.
    pub(crate) fn edge() -> String {
        let mut world = Self::plain();
        world.widen();
        let vifs = [2, 3, 8].map(|at| world.vif(at)).join(", ");
        format!(
            r#"{{"generation": "1", "node": "pe", "vrfs": [{{"id": 8, "name": "underlay"}}], "vifs": [{vifs}],
            "nexthops": [{{"id": 516, "vrf": 8, "receive": {{"terminateMplsOUdp": true}}}}],
            "routes": [{{"vrf": 8, "prefix": "{}/32", "nexthop": 516}}]}}"#,
            OWN[0]
        )
    }

    pub(crate) fn random(rng: &mut Rng) -> Self {
        let mut world = Self::plain();
        world.base_mtu = std::array::from_fn(|_| rng.pick(&[1500, 1500, 1500, 1400, 3000]));
        for (at, vif) in Self::VIFS.iter().enumerate() {
            world.mtus[at] = world.base_mtu[Self::device(at)];
            if *vif > 4 && rng.chance(25) {
                world.mtus[at] = world.mtus[at].min(rng.pick(&[1280, 1400]));
            }
        }
        for (at, flags) in world.flags.iter_mut().enumerate() {
            if !matches!(at, 2 | 3 | 8) {
                *flags = rng.pick(&[
                    "",
                    "",
                    "",
                    "",
                    r#", "ttlUnmodified": true"#,
                    r#", "noRpf": true"#,
                    r#", "noFragment": true"#,
                ]);
            }
        }
        for (at, acls) in world.acls.iter_mut().enumerate() {
            if !matches!(at, 2 | 3 | 8) {
                let lists = [
                    "",
                    "",
                    r#", "ingressAcls": [66]"#,
                    r#", "egressAcls": [66]"#,
                    r#", "ingressAcls": [65], "egressAcls": [66]"#,
                ];
                *acls = rng.pick(&lists);
            }
        }
        world.list = rng.below(LISTS.len());
        world.dscp = [rng.chance(30), rng.chance(30)];
        world.udp_port = [rng.pick(&[6635, 6635, 51234]), 6635];
        world.on_link = rng.chance(30);
        world.wan_tag = rng.chance(30);
        world.direct =
            std::array::from_fn(|_| rng.pick(&[r#", "directNexthop": 532"#, r#", "directNexthop": 85"#, ""]));
        world.fixed = rng.chance(50);
        world
    }

    /// All devices take large packets.
    pub(crate) fn widen(&mut self) {
        self.mtus.fill(9000);
    }

    /// Those of the underlay take 1,500 octets.
    pub(crate) fn narrow_underlay(&mut self) {
        for at in [2, 3, 8] {
            self.mtus[at] = 1500;
        }
    }

    /// UDP to the ports 2000 to 2099 is denied to all.
    pub(crate) fn deny(&mut self) {
        self.list = 1;
        for at in [0, 1, 4, 5, 6, 7] {
            self.acls[at] = r#", "ingressAcls": [66]"#;
        }
    }

    /// Everything is permitted to all, by a list.
    pub(crate) fn permit(&mut self) {
        for at in [0, 1, 4, 5, 6, 7] {
            self.acls[at] = r#", "ingressAcls": [65]"#;
        }
    }

    /// Hosts are found by ARP and ND.
    pub(crate) fn resolve(&mut self) {
        self.fixed = false;
    }

    /// The largest IP packet that fits the device.
    pub(crate) fn port_mtu(&self, port: u32) -> usize {
        let at = Self::VIFS.iter().position(|vif| *vif == port).unwrap();
        self.mtus[at].into()
    }

    /// The other ends of the tunnels.
    pub(crate) fn far_end(&self, tunnel: usize) -> &'static str {
        match (tunnel, self.on_link) {
            (0, _) => "10.101.9.245",
            (_, false) => "10.101.9.246",
            (_, true) => "172.28.13.99",
        }
    }

    fn vif(&self, at: usize) -> String {
        let id = Self::VIFS[at];
        let (mtu, flags, acls) = (self.mtus[at], self.flags[at], self.acls[at]);
        let common = format!(r#""id": {id}, "name": "v{id}", "mtu": {mtu}"#);
        let mac = |port: u32| port_mac(port).map(|octet| format!("{octet:02x}")).join(":");
        if let Some(segment) = SEGMENTS.iter().find(|segment| segment.vif == id) {
            let vrf = VRFS[segment.tenant];
            let (subnet, policy) = (segment.subnet, !self.flowless);
            let kind = match segment.tags {
                [NONE, _] => format!(r#""type": "PHYSICAL", "mac": "{}""#, mac(segment.port)),
                [(tpid, vid), NONE] => format!(
                    r#""type": "PHYSICAL_VLAN", "parent": {}, "outerVlan": {{"vid": {vid}, "tpid": {tpid}}}"#,
                    segment.port
                ),
                [(tpid, vid), (inner, second)] => format!(
                    r#""type": "PHYSICAL_VLAN", "parent": {}, "outerVlan": {{"vid": {vid}, "tpid": {tpid}}}, "innerVlan": {{"vid": {second}, "tpid": {inner}}}"#,
                    segment.port
                ),
            };
            return format!(
                r#"{{{common}, {kind}, "vrf": {vrf}, "flags": {{"policy": {policy}{flags}}}{acls}, "addresses": ["10.{subnet}.0.1/24", "fd00:{subnet}::1/64"]}}"#
            );
        }
        match id {
            41 => format!(
                r#"{{{common}, "type": "PHYSICAL_VLAN", "parent": 4, "outerVlan": {{"vid": 500}}, "vrf": 8, "addresses": ["172.28.15.36/24"]}}"#
            ),
            _ => format!(
                r#"{{{common}, "type": "PHYSICAL", "mac": "{}", "vrf": 8, "addresses": ["172.28.{}.36/24"]}}"#,
                mac(id),
                10 + id
            ),
        }
    }

    fn router(&self) -> Mac {
        let [a, b, c, d, e, f] = ROUTER;
        [a, b, c, d, e ^ self.router_life, f]
    }

    /// All outer packets go through the station at 172.28.13.99, by its address.
    pub(crate) fn through_gateway(&mut self) {
        self.gateway = true;
        self.one_uplink();
    }

    /// The underlay has room for a tunnel's headers around what the first device sends and takes, and no more.
    pub(crate) fn fit_underlay(&mut self) {
        let tunnelled = self.mtus[0] + 32;
        for at in [2, 3, 8] {
            self.mtus[at] = tunnelled;
            self.base_mtu[Self::device(at)] = tunnelled;
        }
    }

    /// No vif and no label asks for flows.
    pub(crate) fn without_flows(&mut self) {
        self.flowless = true;
        self.acls.fill("");
        self.fixed = true;
    }

    /// All outer packets leave by the underlay's first device.
    pub(crate) fn one_uplink(&mut self) {
        self.members = [85, 0];
    }

    fn encap(&self, id: u32) -> String {
        if self.gateway && id == 85 {
            return r#"{"id": 85, "vrf": 8, "resolve": {"oif": 3, "gateway": "172.28.13.99"}}"#.to_owned();
        }
        let (oif, tags) = match id {
            85 => (3, NONE),
            _ if self.wan_tag => (41, (0x8100, 500)),
            _ => (4, NONE),
        };
        let port = if id == 85 { 3 } else { 4 };
        let data = header(self.router(), port_mac(port), &[tags]);
        format!(r#"{{"id": {id}, "vrf": 8, "encap": {{"oif": {oif}, "encapData": "{data}"}}}}"#)
    }

    fn tunnel(&self, at: usize) -> String {
        let map =
            if self.dscp[at] { r#", "dscpMap": [{"inner": 46, "outer": 0}, {"inner": 10, "outer": 34}]"# } else { "" };
        let direct = if at == 1 && self.on_link { "" } else { self.direct[at] };
        format!(
            r#"{{"id": {}, "vrf": 8, "tunnel": {{"type": "MPLS_O_UDP", "sip": "{}", "dip": "{}", "udpPort": {}{map}{direct}}}}}"#,
            489 + at,
            OWN[at],
            self.far_end(at),
            self.udp_port[at]
        )
    }

    fn underlay(&self) -> String {
        let [a, b] = self.members;
        format!(
            r#"{{"id": 532, "vrf": 8, "composite": {{"members": [{{"nexthop": {a}, "weight": 100}}, {{"nexthop": {b}, "weight": 100}}]}}}}"#
        )
    }

    fn remote(&self, tenant: usize, at: usize) -> [String; 2] {
        let (vrf, prefix, nexthop) = (VRFS[tenant], REMOTE[at], self.remote[tenant][at]);
        if nexthop == 0 {
            return [String::new(), String::new()];
        }
        let label = 280 + tenant as u32 + if nexthop == 490 { 10 } else { 0 };
        [format!("10.{prefix}.0.0/16"), format!("fd00:{prefix}::/64")]
            .map(|prefix| format!(r#"{{"vrf": {vrf}, "prefix": "{prefix}", "nexthop": {nexthop}, "label": {label}}}"#))
    }

    /// Where a label leads.
    fn entrance(&self, id: u32, vrf: u32) -> String {
        format!(r#"{{"id": {id}, "policy": {}, "vrfTranslate": {{"vrf": {vrf}}}}}"#, !self.flowless)
    }

    fn acl(&self) -> String {
        format!(r#"{{"id": 66, "name": "some", "entries": [{}]}}"#, LISTS[self.list])
    }

    fn label(&self, at: usize) -> String {
        format!(r#"{{"label": {}, "nexthop": {}}}"#, LABELS[at], self.labels[at])
    }

    /// The state as JSON.
    pub(crate) fn state(&self) -> String {
        let vifs: Vec<String> = (0..Self::VIFS.len()).map(|at| self.vif(at)).collect();
        let mut nexthops = vec![
            self.encap(85),
            self.encap(86),
            self.underlay(),
            self.tunnel(0),
            self.tunnel(1),
            r#"{"id": 491, "vrf": 8, "composite": {"members": [{"nexthop": 489}, {"nexthop": 490, "label": 295}]}}"#
                .to_owned(),
            self.entrance(513, 18),
            self.entrance(514, 19),
            r#"{"id": 516, "vrf": 8, "receive": {"terminateMplsOUdp": true}}"#.to_owned(),
            r#"{"id": 517, "vrf": 8, "resolve": {"oif": 3}}"#.to_owned(),
            r#"{"id": 518, "vrf": 8, "receive": {}}"#.to_owned(),
        ];
        let mut routes = vec![
            r#"{"vrf": 8, "prefix": "0.0.0.0/0", "nexthop": 532}"#.to_owned(),
            r#"{"vrf": 8, "prefix": "172.28.13.0/24", "nexthop": 517}"#.to_owned(),
            r#"{"vrf": 8, "prefix": "172.28.13.36/32", "nexthop": 518}"#.to_owned(),
        ];
        routes.extend(OWN.map(|own| format!(r#"{{"vrf": 8, "prefix": "{own}/32", "nexthop": 516}}"#)));
        for (at, segment) in SEGMENTS.iter().enumerate() {
            let (vrf, subnet) = (VRFS[segment.tenant], segment.subnet);
            nexthops.push(format!(r#"{{"id": {}, "vrf": {vrf}, "resolve": {{"oif": {}}}}}"#, 600 + at, segment.vif));
            nexthops.push(format!(r#"{{"id": {}, "vrf": {vrf}, "receive": {{}}}}"#, 620 + at));
            for (prefix, own) in [
                (format!("10.{subnet}.0.0/24"), format!("10.{subnet}.0.1/32")),
                (format!("fd00:{subnet}::/64"), format!("fd00:{subnet}::1/128")),
            ] {
                routes.push(format!(r#"{{"vrf": {vrf}, "prefix": "{prefix}", "nexthop": {}}}"#, 600 + at));
                routes.push(format!(r#"{{"vrf": {vrf}, "prefix": "{own}", "nexthop": {}}}"#, 620 + at));
            }
            if self.fixed {
                for host in [10, 11] {
                    let id = 640 + at as u32 * 2 + u32::from(host) - 10;
                    let data = header(host_mac(at, host, 0), port_mac(segment.port), &segment.tags);
                    nexthops.push(format!(
                        r#"{{"id": {id}, "vrf": {vrf}, "encap": {{"oif": {}, "encapData": "{data}"}}}}"#,
                        segment.vif
                    ));
                    for (v6, length) in [(false, 32), (true, 128)] {
                        let address = host_address(subnet, host, v6);
                        routes.push(format!(r#"{{"vrf": {vrf}, "prefix": "{address}/{length}", "nexthop": {id}}}"#));
                    }
                }
            }
        }
        for tenant in 0..2 {
            for at in 0..REMOTE.len() {
                routes.extend(self.remote(tenant, at).into_iter().filter(|route| !route.is_empty()));
            }
        }
        let labels: Vec<String> = (0..2).filter(|at| self.labels[*at] != 0).map(|at| self.label(at)).collect();
        format!(
            r#"{{"generation": "1", "node": "ce", "settings": {{"maxFlows": 2048}},
            "vrfs": [{{"id": 8, "name": "underlay"}}, {{"id": 18, "name": "blue"}}, {{"id": 19, "name": "red"}}],
            "vifs": [{}], "nexthops": [{}], "routes": [{}], "labels": [{}],
            "acls": [{{"id": 65, "name": "all", "entries": [{{"id": 1, "action": "PERMIT"}}]}}, {}]}}"#,
            vifs.join(", "),
            nexthops.join(", "),
            routes.join(", "),
            labels.join(", "),
            self.acl()
        )
    }

    /// Changes something; the delta as JSON, without generations.
    pub(crate) fn change(&mut self, rng: &mut Rng) -> String {
        match rng.below(10) {
            0 => {
                self.router_life ^= 1;
                format!(r#"{{"nexthops": [{}, {}]}}"#, self.encap(85), self.encap(86))
            }
            1 => {
                self.members = rng.pick(&[[85, 86], [85, 0], [0, 86], [86, 85]]);
                format!(r#"{{"nexthops": [{}]}}"#, self.underlay())
            }
            2 | 3 => {
                let (tenant, at) = (rng.below(2), rng.below(3));
                self.remote[tenant][at] = rng.pick(&[489, 490, 491]);
                format!(r#"{{"routes": [{}]}}"#, self.remote(tenant, at).join(", "))
            }
            4 => {
                self.list = rng.below(LISTS.len());
                format!(r#"{{"acls": [{}]}}"#, self.acl())
            }
            5 => {
                let at = rng.below(2);
                self.dscp[at] ^= true;
                format!(r#"{{"nexthops": [{}]}}"#, self.tunnel(at))
            }
            6 => {
                let at = rng.below(2);
                self.labels[at] = rng.pick(&[513, 514, 0]);
                if self.labels[at] == 0 {
                    format!(r#"{{"removeLabels": [{}]}}"#, LABELS[at])
                } else {
                    format!(r#"{{"labels": [{}]}}"#, self.label(at))
                }
            }
            7 => {
                let (tenant, at) = (rng.below(2), rng.below(3));
                if self.remote[tenant][at] == 0 {
                    self.remote[tenant][at] = 489;
                    return format!(r#"{{"routes": [{}]}}"#, self.remote(tenant, at).join(", "));
                }
                self.remote[tenant][at] = 0;
                let (vrf, prefix) = (VRFS[tenant], REMOTE[at]);
                format!(
                    r#"{{"removeRoutes": [{{"vrf": {vrf}, "prefix": "10.{prefix}.0.0/16"}}, {{"vrf": {vrf}, "prefix": "fd00:{prefix}::/64"}}]}}"#
                )
            }
            8 => {
                // Not the devices': what can arrive stays what it was.
                let at = rng.pick(&[4, 5, 6, 7]);
                self.mtus[at] = rng.pick(&[1280, 1400, 1500, 3000]).min(self.base_mtu[Self::device(at)]);
                format!(r#"{{"vifs": [{}]}}"#, self.vif(at))
            }
            _ => {
                let at = rng.pick(&[0, 1, 4, 5, 6, 7]);
                self.acls[at] = rng.pick(&["", r#", "ingressAcls": [66]"#, r#", "egressAcls": [66]"#]);
                format!(r#"{{"vifs": [{}]}}"#, self.vif(at))
            }
        }
    }
}
