use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use offload_engine::{Failures, Hits, MismatchKind, ProbeResult, ShapeStatus, Totals};
use offload_rules::{
    Label, MacAddr, VifId,
    lower::{Action, Field, Item, PortFacts, Role, Rule, Table, Unsupported},
};
use proto::v1::offload_server::Offload as _;
use tonic::Code;

use super::*;

const ID: OffloadId = OffloadId { worker: 0, entry: 7, generation: 3 };

/// Flows 8 and 9 are a pair, 12 is denied, 20 was never asked for; 30 names a reverse that is another's by now.
struct Table8;

#[tonic::async_trait]
impl Flows for Table8 {
    async fn flow(&self, index: u64) -> Result<Option<KnownFlow>, Ended> {
        let flow = |reverse_index, initiator, tier: pb::FlowTier| pb::Flow {
            index,
            reverse_index,
            initiator,
            tier: tier.into(),
            not_offloaded_reason: if tier == pb::FlowTier::Hardware { "" } else { "waiting" }.into(),
            ..pb::Flow::default()
        };
        let hardware = pb::FlowTier::Hardware;
        Ok(match index {
            8 => Some(KnownFlow { flow: flow(Some(9), true, hardware), id: Some(ID) }),
            9 => Some(KnownFlow { flow: flow(Some(8), false, hardware), id: Some(ID) }),
            12 => Some(KnownFlow { flow: flow(None, true, hardware), id: Some(ID) }),
            20 => Some(KnownFlow { flow: flow(Some(20), true, pb::FlowTier::Software), id: None }),
            30 => Some(KnownFlow { flow: flow(Some(8), true, hardware), id: Some(ID) }),
            _ => None,
        })
    }

    async fn reasons(&self) -> Result<BTreeMap<NotOffloaded, u64>, Ended> {
        let icmp = NotOffloaded::Unsupported(Unsupported::Icmp);
        Ok(BTreeMap::from([(NotOffloaded::Off, 3), (icmp, 5), (NotOffloaded::Pending, 0)]))
    }

    async fn indices(&self, ids: BTreeSet<OffloadId>) -> Result<BTreeMap<(OffloadId, u8), u64>, Ended> {
        assert!(!ids.is_empty());
        Ok(if ids.contains(&ID) { BTreeMap::from([((ID, 0), 8), ((ID, 1), 9)]) } else { BTreeMap::new() })
    }
}

#[derive(Default)]
struct Engine {
    status: EngineStatus,
    diff: Vec<Mismatch>,
    switch: Mutex<Vec<bool>>,
    has_ended: AtomicBool,
}

impl Engine {
    fn alive<T>(&self, answer: T) -> Result<T, Ended> {
        if self.has_ended.load(Ordering::Relaxed) { Err(Ended) } else { Ok(answer) }
    }
}

#[tonic::async_trait]
impl OffloadView for Engine {
    async fn status(&self) -> Result<EngineStatus, Ended> {
        self.alive(self.status.clone())
    }

    async fn rules_of(&self, id: OffloadId) -> Result<Vec<InstalledRule>, Ended> {
        let rule = |direction: u8, packets| InstalledRule {
            token: packets,
            flow: Some((id, direction)),
            rule: Arc::new(encap_rule()),
            hits: Hits { packets, bytes: packets * 100 },
            live: true,
            needed_by: u32::from(packets == 20),
        };
        self.alive(vec![rule(0, 10), rule(1, 20), rule(1, 21)])
    }

    async fn diff(&self) -> Result<Vec<Mismatch>, Ended> {
        self.alive(self.diff.clone())
    }

    async fn set_enabled(&self, enabled: bool) -> Result<Switched, Ended> {
        self.switch.lock().unwrap().push(enabled);
        self.alive(Switched { changed: true, drained: 3, draining: 1 })
    }
}

fn vif(id: u32) -> VifId {
    VifId::new(id).unwrap()
}

/// An ordinary rule of a tenant's TCP flow into a tunnel.
fn encap_rule() -> Rule {
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    Rule {
        table: Table::Tenant,
        priority: 2,
        items: vec![
            Item::Port(vif(4121)),
            Item::Eth { dst: Some(mac), has_vlan: Some(true) },
            Item::Vlan { tpid: 0x8100, tci: Field { spec: 300, mask: 0x0fff }, has_more: Some(false) },
            Item::Ipv4 {
                src: Some(Ipv4Addr::new(192, 168, 1, 7)),
                dst: None,
                proto: Some(6),
                tos: Field { spec: 0, mask: 0 },
                ttl: Some(64),
                no_options: true,
                whole: true,
                max_len: Some(1468),
            },
            Item::Tcp { sport: Some(80), dport: Some(51219), flags: Field { spec: 0x10, mask: 0x17 } },
        ],
        actions: vec![
            Action::Count,
            Action::SetTtl { version: 4, ttl: 63 },
            Action::Reformat { off: vec![0x08], on: vec![0x0a, 0xff] },
            Action::Port(vif(4111)),
        ],
    }
}

fn about() -> AboutNic {
    let port = |device: &str, ethdev: &str, role, domain| {
        let facts = PortFacts { role, domain };
        AboutPort { device: device.to_owned(), ethdev: ethdev.to_owned(), facts }
    };
    AboutNic {
        driver: "net_twin".to_owned(),
        dpdk: "22.11.11".to_owned(),
        layout: "switch".to_owned(),
        engine: "templates".to_owned(),
        ports: vec![port("wan", "net_twin0", Role::Wire, Some(3)), port("lan", "net_twin1", Role::Function, None)],
        findings: vec!["the firmware is old: update it".to_owned()],
        abilities: "forwards nothing; drops nothing; marks from tenants IPv4".to_owned(),
    }
}

fn service(engine: Engine) -> OffloadService<Engine, Table8> {
    OffloadService::new(engine, Table8, about())
}

#[tokio::test]
async fn the_engine_s_state_becomes_a_message() {
    let shape = |name: &str, probe, refused, created| ShapeStatus {
        shape: name.to_owned(),
        probe,
        refused,
        created,
        proven: created > 0,
        doubts: 0,
    };
    let status = EngineStatus {
        profile: "twin".into(),
        enabled: false,
        blocked: Some(NotOffloaded::Off),
        shapes: vec![
            shape("a", Some(ProbeResult::Works), None, 9),
            shape("b", Some(ProbeResult::Refused("ENOTSUP".into())), Some(Unsupported::Probe.into()), 0),
            shape("c", Some(ProbeResult::Unsure("EBUSY".into())), Some(NotOffloaded::NotHonoured), 0),
            shape("d", None, None, 0),
        ],
        rules: 6,
        capacity: Some(100),
        hardware: 2,
        in_flight: 1,
        insert_rate: 40,
        latency_p50: 1,
        latency_p99: 511,
        totals: Totals {
            created: 9,
            destroyed: 3,
            failed: Failures { capacity: 4, ..Failures::default() },
            resets: 2,
            ..Totals::default()
        },
        ..EngineStatus::default()
    };
    let engine = Engine { status, ..Engine::default() };
    let shown = service(engine).get_offload_status(Request::new(pb::GetOffloadStatusRequest {})).await.unwrap();
    let shown = shown.into_inner();
    assert_eq!((shown.profile.as_str(), shown.driver.as_str(), shown.enabled), ("twin", "net_twin", false));
    assert_eq!(
        (shown.layout.as_str(), shown.engine.as_str(), shown.dpdk_version.as_str()),
        ("switch", "templates", "22.11.11")
    );
    let ports: Vec<_> =
        shown.ports.iter().map(|port| (port.device.as_str(), port.role.as_str(), port.switch_domain)).collect();
    assert_eq!(ports, [("wan", "wire", Some(3)), ("lan", "function", None)]);
    assert_eq!(shown.findings, ["the firmware is old: update it"]);
    assert_eq!(shown.abilities, "forwards nothing; drops nothing; marks from tenants IPv4");
    assert_eq!(shown.blocked_reason, "offload is switched off");
    let outcomes: Vec<_> = shown.shapes.iter().map(|shape| (shape.outcome(), shape.detail.as_str())).collect();
    let want = [
        (pb::ProbeOutcome::ProbePassed, ""),
        (pb::ProbeOutcome::ProbeRefused, "ENOTSUP"),
        (pb::ProbeOutcome::ProbeUnsure, "EBUSY"),
        (pb::ProbeOutcome::ProbeNotTried, ""),
    ];
    assert_eq!(outcomes, want);
    assert!(shown.shapes[1].refused_reason.contains("canary") && shown.shapes[0].proven);
    assert_eq!(shown.not_honoured, ["c"]);
    assert_eq!(shown.tables, [pb::OffloadTable { name: "all".into(), entries: 6, capacity: 100 }]);
    assert_eq!(shown.flows.unwrap().hardware, 2);
    let failures: Vec<_> = shown.failures.iter().map(|f| (f.class.as_str(), f.count)).collect();
    assert_eq!(failures.iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>(), [&("capacity", 4)]);
    assert_eq!(failures.len(), 6);
    let totals = shown.totals.unwrap();
    assert_eq!((totals.installed, totals.removed, totals.resets), (9, 3, 2));
    assert_eq!((shown.latency_p50_us, shown.latency_p99_us), (Some(1000), Some(511_000)));
}

#[tokio::test]
async fn an_engine_that_has_installed_nothing_tells_no_latency() {
    let shown = service(Engine::default()).get_offload_status(Request::new(pb::GetOffloadStatusRequest {})).await;
    assert_eq!(shown.unwrap().into_inner().latency_p50_us, None);
}

#[tokio::test]
async fn reasons_come_most_flows_first_and_without_those_of_no_flow() {
    let off = NotOffloaded::Off;
    let icmp = NotOffloaded::Unsupported(Unsupported::Icmp);
    let response =
        service(Engine::default()).list_reasons(Request::new(pb::ListReasonsRequest {})).await.unwrap().into_inner();
    let shown: Vec<_> = response.reasons.iter().map(|count| (count.reason.clone(), count.flows)).collect();
    assert_eq!(shown, [(icmp.to_string(), 5), (off.to_string(), 3)]);
}

async fn rules(flow: u64) -> Result<pb::FlowRules, Status> {
    service(Engine::default()).get_rules(Request::new(pb::GetRulesRequest { flow })).await.map(Response::into_inner)
}

#[tokio::test]
async fn each_direction_has_its_own_rules_whichever_was_asked_for() {
    let packets = |direction: &pb::DirectionRules| direction.rules.iter().map(|rule| rule.packets).collect::<Vec<_>>();
    for (asked, own, other, others) in [(8, vec![10], 9, vec![20, 21]), (9, vec![20, 21], 8, vec![10])] {
        let shown = rules(asked).await.unwrap();
        let (forward, reverse) = (shown.forward.unwrap(), shown.reverse.unwrap());
        assert_eq!((forward.flow, packets(&forward)), (asked, own));
        assert_eq!((reverse.flow, packets(&reverse)), (other, others));
    }
    let rule = rules(12).await.unwrap().forward.unwrap().rules.remove(0);
    assert_eq!((rule.vif, rule.table.as_str(), rule.tier()), (4121, "tenant", pb::FlowTier::Hardware));
    assert!(rule.live && rule.bytes == 1000);
    let needed: Vec<_> = rules(9).await.unwrap().forward.unwrap().rules.iter().map(|rule| rule.needed_by).collect();
    assert_eq!(needed, [1, 0]);
}

#[tokio::test]
async fn a_flow_without_rules_shows_its_reason_and_a_removed_one_is_not_found() {
    let shown = rules(20).await.unwrap();
    let forward = shown.forward.unwrap();
    assert_eq!((forward.not_offloaded_reason.as_str(), forward.rules.len()), ("waiting", 0));
    assert_eq!(shown.reverse, None, "a flow that is its own other direction is shown once");
    assert_eq!(rules(30).await.unwrap().reverse, None, "8 belongs to 9");
    assert_eq!(rules(7).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn differences_name_their_flow_while_it_is_there() {
    let other = OffloadId { generation: 4, ..ID };
    let mismatch = |kind, flow| Mismatch { kind, flow, rule: Arc::new(encap_rule()) };
    let diff = vec![
        mismatch(MismatchKind::Missing, Some((ID, 1))),
        mismatch(MismatchKind::Extra, Some((other, 0))),
        mismatch(MismatchKind::Different, None),
    ];
    let engine = Engine { diff, ..Engine::default() };
    let shown = service(engine).get_diff(Request::new(pb::GetDiffRequest {})).await.unwrap().into_inner().differences;
    assert_eq!(
        shown.iter().map(|d| (d.kind(), d.flow)).collect::<Vec<_>>(),
        [
            (pb::DifferenceKind::Missing, Some(9)),
            (pb::DifferenceKind::Extra, None),
            (pb::DifferenceKind::Different, None),
        ]
    );
    assert!(shown[1].detail.ends_with("its flow is gone") && !shown[2].detail.contains("gone"));
}

#[tokio::test]
async fn the_switch_is_turned_and_tells_what_it_did() {
    let service = service(Engine::default());
    let result =
        service.set_enabled(Request::new(pb::SetEnabledRequest { enabled: false })).await.unwrap().into_inner();
    let want = pb::SetEnabledResult { enabled: false, changed: true, flows_drained: 3, flows_draining: 1 };
    assert_eq!(result, want);
    assert_eq!(*service.engine.switch.lock().unwrap(), [false]);
}

#[tokio::test]
async fn an_engine_that_has_ended_is_unavailable() {
    let service = service(Engine { has_ended: AtomicBool::new(true), ..Engine::default() });
    let status = service.get_offload_status(Request::new(pb::GetOffloadStatusRequest {})).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(rules_code(&service).await, Code::Unavailable);
}

async fn rules_code(service: &OffloadService<Engine, Table8>) -> Code {
    service.get_rules(Request::new(pb::GetRulesRequest { flow: 8 })).await.unwrap_err().code()
}

#[test]
fn a_rule_reads_like_one_of_testpmd() {
    assert_eq!(
        rule(&encap_rule()),
        "table tenant priority 2 pattern represented_port vif is 4121 / eth dst is 02:00:00:00:00:01 has_vlan is 1 / \
         vlan tpid is 0x8100 tci spec 0x12c tci mask 0xfff has_more_vlan is 0 / \
         ipv4 src is 192.168.1.7 proto is 6 ttl is 64 version_ihl is 0x45 fragment_offset spec 0x0 fragment_offset mask 0x3fff \
         length spec 0 length last 1468 / tcp src is 80 dst is 51219 flags spec 0x10 flags mask 0x17 / end actions \
         count / set_ttl 63 / raw_decap 08 raw_encap 0aff / represented_port vif 4111 / end"
    );
}

#[test]
fn every_matched_field_of_an_item_is_in_its_text() {
    let label = Label::new(280).unwrap();
    let field = |spec, mask| Field { spec, mask };
    for (shown, want) in [
        (item(&Item::Mpls { label, bottom: true, ttl: Some(62) }), "mpls label is 280 s is 1 ttl is 62"),
        (item(&Item::Mpls { label, bottom: false, ttl: None }), "mpls label is 280"),
        (item(&Item::Udp { sport: None, dport: Some(6635), no_checksum: true }), "udp dst is 6635 checksum is 0"),
        (item(&Item::Sctp { sport: Some(1), dport: Some(2) }), "sctp src is 1 dst is 2"),
        (
            item(&Item::Ipv6 {
                src: None,
                dst: Some("fd00::1".parse().unwrap()),
                proto: Some(17),
                tos: field(0xb8, 0xff),
                ttl: Some(9),
                whole: true,
                max_len: Some(1428),
            }),
            "ipv6 dst is fd00::1 proto is 17 tc is 0xb8 has_frag_ext is 0 hop is 9 payload_length spec 0 payload_length last 1428",
        ),
        (
            item(&Item::Integrity { level: 2, ipv4_checksum_ok: true, l3_ok: false }),
            "integrity level is 2 ipv4_csum_ok is 1 l3_ok is 0",
        ),
    ] {
        assert_eq!(shown, want);
    }
    for (shown, want) in [
        (action(&Action::Mark(77)), "mark id 77"),
        (action(&Action::SetTtl { version: 6, ttl: 5 }), "set_hop 5"),
        (action(&Action::PushVlan { tpid: 0x88a8, tci: 300 }), "of_push_vlan ethertype 0x88a8 tci 0x012c"),
        (action(&Action::Jump(Table::Tunnel)), "jump table tunnel"),
    ] {
        assert_eq!(shown, want);
    }
}
