//! Both rte_flow backends against the NIC twin: rules are created, frames meet them, and what comes out on the wire is judged.
//!
//! The twin is a driver in a shared library, loaded as any other. `NIC_TWIN` names it; without it, it is built.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[allow(dead_code, reason = "shared with other tests")]
mod dpdk;
mod twin;

use std::{
    ffi::{CStr, CString},
    sync::{
        MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
};

use dpdk::Wire;
use dpu_fastpath::{
    port::{PortRegistry, StartedPort},
    rte_flow::{Asynchronous, FieldStyle, Sizes, Style, Synchronous, configure},
};
use offload_engine::{Completion, Failure, Hits, RuleBackend, Token};
use offload_rules::{
    Label, MacAddr,
    lower::{Action, FailureClass, Field, Item, Rule, Table},
};
use test_kit::vif;

const ROUTER: MacAddr = MacAddr([0x00, 0x00, 0x5e, 0x00, 0x01, 0x00]);
const NEXT: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const SIZES: Sizes = Sizes { queue: 16, table: 1024, counters: 1024 };

fn load() {
    let path = CString::new(twin::library().into_os_string().into_encoded_bytes()).unwrap();
    // SAFETY: a driver; its constructor registers it with DPDK, before EAL starts.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if handle.is_null() {
        // SAFETY: the last dlopen failed, so there is a message.
        panic!("{}", unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy());
    }
}

/// Two ports of one NIC. Their wires are rings; vif 3 is on the first, vif 4 on the second.
struct Nic {
    wires: [Wire; 2],
    twins: [String; 2],
    ports: [u16; 2],
    control: tempfile::NamedTempFile,
    _turn: MutexGuard<'static, ()>,
}

impl Nic {
    /// With these arguments of the twin; ports are configured for templates where `templates`.
    fn new(arguments: &str, templates: bool) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let turn = dpdk::eal(load);
        let control = tempfile::NamedTempFile::new().unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let wires = ["a", "b"].map(|side| Wire::new(&format!("{side}{number}")));
        let twins = ["a", "b"].map(|side| format!("net_twin{side}{number}"));
        let mut ports = [0; 2];
        for ((wire, twin), port) in wires.iter().zip(&twins).zip(&mut ports) {
            let path = control.path().display();
            let arguments = CString::new(format!("port={},control={path},{arguments}", wire.name)).unwrap();
            let name = CString::new(twin.as_str()).unwrap();
            // SAFETY: EAL runs; the strings end in NUL.
            unsafe {
                let code = dpdk_sys::rte_eal_hotplug_add(c"vdev".as_ptr(), name.as_ptr(), arguments.as_ptr());
                assert_eq!(code, 0, "{twin} is not made from {arguments:?}");
                assert_eq!(dpdk_sys::rte_eth_dev_get_port_by_name(name.as_ptr(), port), 0);
            }
        }
        for port in ports {
            dpdk::start(port, || {
                if templates {
                    assert_eq!(configure(port, SIZES).unwrap().queue, SIZES.queue);
                }
            });
        }
        Self { wires, twins, ports, control, _turn: turn }
    }

    fn map(&self) -> PortRegistry {
        let [a, b] = self.ports.map(|ethdev| StartedPort { ethdev, queues: 1 });
        PortRegistry::new([(vif(3), a), (vif(4), b)])
    }

    fn synchronous(&self) -> Box<dyn RuleBackend> {
        Box::new(Synchronous::new(self.map(), Style::default(), 16))
    }

    fn asynchronous(&self, style: Style) -> Box<dyn RuleBackend> {
        Box::new(Asynchronous::new(self.map(), style, SIZES))
    }

    /// Says something to the twin, which looks at its control file now and then.
    fn say(&mut self, line: &str) {
        use std::io::Write;
        writeln!(self.control, "{line}").unwrap();
    }

    /// A frame arrives at the first port: where it goes.
    fn pass(&self, frame: &[u8]) -> Exit {
        self.pass_from(0, frame)
    }

    /// A frame arrives at one port: software gets it, or it leaves on the other.
    fn pass_from(&self, side: usize, frame: &[u8]) -> Exit {
        self.wires[side].arrive(frame);
        dpdk::wait("a frame comes out somewhere", || {
            if let Some(frame) = dpdk::receive(self.ports[side]).pop() {
                return Some(Exit::Software(frame));
            }
            self.wires[1 - side].sent().map(Exit::Wire)
        })
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        for (twin, port) in self.twins.iter().zip(self.ports) {
            let name = CString::new(twin.as_str()).unwrap();
            // SAFETY: the port is this NIC's own, and nobody polls it any more.
            unsafe {
                dpdk_sys::rte_eth_dev_stop(port);
                dpdk_sys::rte_eal_hotplug_remove(c"vdev".as_ptr(), name.as_ptr());
            }
        }
    }
}

/// Where a frame came out of the NIC.
#[derive(Debug, PartialEq, Eq)]
enum Exit {
    Software(Vec<u8>),
    Wire(Vec<u8>),
}

/// A packet of an established TCP connection.
fn frame(dst: MacAddr, src: [u8; 6], ttl: u8, sport: u16) -> Vec<u8> {
    let mut frame = [&dst.0[..], &src, &[0x08, 0x00]].concat();
    let mut ip = [&[0x45, 0, 0, 60, 0, 1, 0x40, 0, ttl, 6, 0, 0], &[10, 0, 0, 1, 10, 0, 1, 1][..]].concat();
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = !(((sum & 0xffff) + (sum >> 16)) as u16);
    ip[10..12].copy_from_slice(&folded.to_be_bytes());
    frame.extend(ip);
    frame.extend(sport.to_be_bytes());
    frame.extend([0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(74, 0x5a);
    frame
}

fn arriving(ttl: u8) -> Vec<u8> {
    frame(ROUTER, [2, 0, 0, 0, 0, 1], ttl, 4000)
}

/// From vif 3 to vif 4, in a table.
fn flow(table: Table, sport: u16) -> Rule {
    Rule {
        table,
        priority: 2,
        items: vec![
            Item::Port(vif(3)),
            Item::Eth { dst: Some(ROUTER), has_vlan: Some(false) },
            Item::Ipv4 {
                src: Some([10, 0, 0, 1].into()),
                dst: Some([10, 0, 1, 1].into()),
                proto: Some(6),
                tos: Field { spec: 0, mask: 0 },
                ttl: Some(64),
                no_options: true,
                whole: true,
                max_len: None,
            },
            Item::Tcp { sport: Some(sport), dport: Some(443), flags: Field { spec: 0x10, mask: 0x17 } },
        ],
        actions: vec![
            Action::Count,
            Action::SetMacs { dst: NEXT, src: ROUTER },
            Action::SetTtl { version: 4, ttl: 63 },
            Action::Port(vif(4)),
        ],
    }
}

/// Pushes and pulls until this many operations are done.
fn settle(backend: &mut dyn RuleBackend, count: usize) -> Vec<Completion> {
    let mut done = Vec::new();
    dpdk::wait("operations complete", || {
        backend.push().unwrap();
        backend.pull(&mut done).unwrap();
        (done.len() >= count).then_some(())
    });
    done
}

fn create(backend: &mut dyn RuleBackend, token: Token, rule: &Rule) {
    backend.create(token, rule).unwrap();
    assert_eq!(settle(backend, 1), [Completion::Created(token)]);
}

/// The life of a rule: before, during and after it.
fn a_flow_is_forwarded(nic: &Nic, backend: &mut dyn RuleBackend, table: Table) {
    let rule = flow(table, 4000);
    backend.validate(&rule).unwrap();
    assert_eq!(nic.pass(&arriving(64)), Exit::Software(arriving(64)), "no rule yet");

    create(backend, 7, &rule);
    let expected = frame(NEXT, ROUTER.0, 63, 4000);
    assert_eq!(nic.pass(&arriving(64)), Exit::Wire(expected.clone()));
    assert_eq!(nic.pass(&arriving(64)), Exit::Wire(expected));
    assert_eq!(nic.pass(&arriving(65)), Exit::Software(arriving(65)), "another TTL is software's");
    let hits = dpdk::wait("the counter is read", || backend.query_one(7).ok().filter(|hits| hits.packets >= 2));
    assert_eq!(hits, Hits { packets: 2, bytes: 148 });

    backend.destroy(7).unwrap();
    assert_eq!(settle(backend, 1), [Completion::Destroyed(7)]);
    assert_eq!(nic.pass(&arriving(64)), Exit::Software(arriving(64)), "the rule is gone");
    assert_eq!(backend.query_one(7).unwrap_err().errno, libc::ENOENT);
}

#[test]
fn a_flow_is_forwarded_by_the_synchronous_api() {
    let nic = Nic::new("profile=twin", false);
    let mut backend = nic.synchronous();
    a_flow_is_forwarded(&nic, &mut *backend, Table::Flows);
}

#[test]
fn a_flow_is_forwarded_by_the_template_api() {
    let nic = Nic::new("profile=twin", true);
    let mut backend = nic.asynchronous(Style::default());
    a_flow_is_forwarded(&nic, &mut *backend, Table::Flows);
}

#[test]
fn a_shape_with_more_rules_than_its_table_holds_gets_another_table() {
    let nic = Nic::new("profile=twin", true);
    let mut backend = nic.asynchronous(Style::default());
    // The twin refuses a rule that is one too many for its table (ENOSPC).
    let rules = SIZES.table + 2;
    for token in 0..Token::from(rules) {
        create(&mut *backend, token, &flow(Table::Flows, 4000 + token as u16));
    }
    let last = (4000 + rules - 1) as u16;
    assert_eq!(nic.pass(&frame(ROUTER, [2, 0, 0, 0, 0, 1], 64, last)), Exit::Wire(frame(NEXT, ROUTER.0, 63, last)));
    assert_eq!(nic.pass(&arriving(64)), Exit::Wire(frame(NEXT, ROUTER.0, 63, 4000)), "and the first is there still");
    // The place of one that goes is taken by the next.
    backend.destroy(0).unwrap();
    assert_eq!(settle(&mut *backend, 1), [Completion::Destroyed(0)]);
    create(&mut *backend, Token::from(rules), &flow(Table::Flows, 3999));
    backend.flush().unwrap();
}

#[test]
fn a_port_tells_what_has_left_by_it_and_not_what_a_nic_counts_and_drops() {
    let mut nic = Nic::new("profile=twin", false);
    let mut backend = nic.synchronous();
    create(&mut *backend, 7, &flow(Table::Flows, 4000));
    assert_eq!(backend.transmitted(vif(4)), Some(0));
    for _ in 0..3 {
        assert!(matches!(nic.pass(&arriving(64)), Exit::Wire(_)));
    }
    assert_eq!(
        (backend.transmitted(vif(4)), backend.transmitted(vif(3))),
        (Some(3), Some(0)),
        "those that the NIC has forwarded"
    );
    assert_eq!(backend.transmitted(vif(9)), None, "no port");

    // As mlx5's switch does from wire to wire (rdma-core dr_action.c, DR_ACTION_TYP_VPORT).
    nic.say("swallow=1");
    let counted = |backend: &mut dyn RuleBackend| backend.query_one(7).unwrap().packets;
    dpdk::wait("the fault is in force", || {
        nic.wires[0].arrive(&arriving(64));
        assert!(dpdk::receive(nic.ports[0]).is_empty(), "software gets none");
        let left = std::iter::from_fn(|| nic.wires[1].sent()).count();
        (left == 0).then_some(())
    });
    let (before, left) = (counted(&mut *backend), backend.transmitted(vif(4)));
    for _ in 0..5 {
        nic.wires[0].arrive(&arriving(64));
        dpdk::receive(nic.ports[0]);
    }
    assert_eq!((counted(&mut *backend), backend.transmitted(vif(4))), (before + 5, left));
}

#[test]
fn a_flow_behind_a_jump_is_forwarded_as_mlx5_steers_in_hardware() {
    let nic = Nic::new("profile=mlx5-hws,refresh=1", true);
    let mut backend = nic.asynchronous(Style { field: FieldStyle::Modify, ..Style::default() });
    let jump = Rule {
        table: Table::Steering,
        priority: 0,
        items: vec![Item::Port(vif(3)), Item::Eth { dst: Some(ROUTER), has_vlan: Some(false) }],
        actions: vec![Action::Jump(Table::Tenant)],
    };
    create(&mut *backend, 1, &jump);
    a_flow_is_forwarded(&nic, &mut *backend, Table::Tenant);
}

/// Ethernet, IPv4, UDP and a label: what a tunnel puts before a packet; lengths and checksum are the NIC's.
fn outer() -> Vec<u8> {
    let ip = [0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, 17, 0, 0, 198, 51, 100, 1, 198, 51, 100, 2];
    let udp = [0xc0, 0x01, 0x19, 0xeb, 0, 0, 0, 0];
    let label = [0x00, 0x03, 0xe1, 63];
    [&NEXT.0[..], &ROUTER.0, &[0x08, 0x00], &ip, &udp, &label].concat()
}

/// The flow of [`flow`] into the tunnel.
fn encap() -> Rule {
    Rule {
        actions: vec![
            Action::Count,
            Action::SetTtl { version: 4, ttl: 63 },
            Action::Reformat { off: vec![0; 14], on: outer() },
            Action::Port(vif(4)),
        ],
        ..flow(Table::Flows, 4000)
    }
}

/// What [`encap`] sends, out of the tunnel again.
fn decap() -> Rule {
    let mut inner = flow(Table::Flows, 4000).items.split_off(2);
    if let Some(Item::Ipv4 { ttl, .. }) = inner.first_mut() {
        *ttl = Some(63);
    }
    let mut items = vec![
        Item::Port(vif(4)),
        Item::Eth { dst: Some(NEXT), has_vlan: Some(false) },
        Item::Ipv4 {
            src: Some([198, 51, 100, 1].into()),
            dst: Some([198, 51, 100, 2].into()),
            proto: Some(17),
            tos: Field { spec: 0, mask: 1 },
            ttl: None,
            no_options: true,
            whole: true,
            max_len: None,
        },
        Item::Udp { sport: None, dport: Some(6635), no_checksum: true },
        Item::Mpls { label: Label::new(62).unwrap(), bottom: true, ttl: Some(63) },
    ];
    items.append(&mut inner);
    let ethernet = [&[2, 0, 0, 0, 0, 5][..], &ROUTER.0, &[0x08, 0x00]].concat();
    Rule {
        table: Table::Flows,
        priority: 2,
        items,
        actions: vec![
            Action::Reformat { off: outer(), on: ethernet },
            Action::Count,
            Action::SetTtl { version: 4, ttl: 62 },
            Action::Port(vif(3)),
        ],
    }
}

#[test]
fn a_packet_goes_into_a_tunnel_and_comes_out_of_it() {
    for templates in [false, true] {
        let nic = Nic::new("profile=twin", templates);
        let mut backend = if templates { nic.asynchronous(Style::default()) } else { nic.synchronous() };
        create(&mut *backend, 1, &encap());
        create(&mut *backend, 2, &decap());
        let Exit::Wire(tunnelled) = nic.pass(&arriving(64)) else { panic!("not forwarded") };

        let mut expected = outer();
        expected[16..18].copy_from_slice(&92_u16.to_be_bytes());
        expected[38..40].copy_from_slice(&72_u16.to_be_bytes());
        expected.extend(&frame(NEXT, ROUTER.0, 63, 4000)[14..]);
        let checksum = tunnelled[24..26].to_vec();
        expected[24..26].copy_from_slice(&checksum);
        assert_eq!(tunnelled, expected);
        let sum: u32 = tunnelled[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the outer header's checksum");

        let plain = frame(MacAddr([2, 0, 0, 0, 0, 5]), ROUTER.0, 62, 4000);
        assert_eq!(nic.pass_from(1, &tunnelled), Exit::Wire(plain));
        let mut other = tunnelled;
        other[43] = 0xd1;
        assert!(matches!(nic.pass_from(1, &other), Exit::Software(_)), "another label is software's");
    }
}

#[test]
fn a_slow_nic_completes_late_and_a_rule_on_its_way_cannot_be_destroyed() {
    let nic = Nic::new("profile=twin,slow=100", true);
    let mut backend = nic.asynchronous(Style::default());
    backend.create(1, &flow(Table::Flows, 4000)).unwrap();
    backend.push().unwrap();
    assert_eq!(backend.destroy(1).unwrap_err().class, FailureClass::Busy);
    assert_eq!(settle(&mut *backend, 1), [Completion::Created(1)]);
    assert!(matches!(nic.pass(&arriving(64)), Exit::Wire(_)));
    backend.destroy(1).unwrap();
    assert_eq!(settle(&mut *backend, 1), [Completion::Destroyed(1)]);
}

#[test]
fn a_rule_that_marks_gives_packets_to_software_by_a_queue() {
    for templates in [false, true] {
        let nic = Nic::new("profile=twin", templates);
        let mut backend = if templates { nic.asynchronous(Style::default()) } else { nic.synchronous() };
        for (token, fate) in [(1, Action::Queue(0)), (2, Action::Rss)] {
            let actions = vec![Action::Mark(77), Action::Count, fate];
            create(&mut *backend, token, &Rule { actions, ..flow(Table::Flows, 4000) });
            assert_eq!(nic.pass(&arriving(64)), Exit::Software(arriving(64)));
            assert_eq!(backend.query_one(token).unwrap().packets, 1);
            backend.destroy(token).unwrap();
            settle(&mut *backend, 1);
        }
    }
}

#[test]
fn a_range_is_matched_by_the_synchronous_api_and_refused_by_templates() {
    let nic = Nic::new("profile=twin", true);
    let limited = |max| {
        let mut rule = flow(Table::Flows, 4000);
        if let Item::Ipv4 { max_len, .. } = &mut rule.items[2] {
            *max_len = Some(max);
        }
        rule
    };
    let mut backend = nic.synchronous();
    create(&mut *backend, 1, &limited(60));
    assert!(matches!(nic.pass(&arriving(64)), Exit::Wire(_)));
    backend.flush().unwrap();
    create(&mut *backend, 2, &limited(59));
    assert!(matches!(nic.pass(&arriving(64)), Exit::Software(_)), "one octet too long");
    let mut backend = nic.asynchronous(Style::default());
    assert_eq!(backend.create(3, &limited(60)).unwrap_err().class, FailureClass::Shape);
}

#[test]
fn a_full_nic_says_so_and_keeps_what_it_has() {
    let nic = Nic::new("profile=twin,full_at=1", true);
    let mut backend = nic.synchronous();
    create(&mut *backend, 1, &flow(Table::Flows, 4000));
    let failure: Failure = backend.create(2, &flow(Table::Flows, 4001)).unwrap_err();
    assert_eq!((failure.class, failure.errno), (FailureClass::Capacity, libc::ENOSPC), "{failure}");
    assert!(matches!(nic.pass(&arriving(64)), Exit::Wire(_)));
    backend.flush().unwrap();

    let mut backend = nic.asynchronous(Style::default());
    create(&mut *backend, 1, &flow(Table::Flows, 4000));
    backend.create(2, &flow(Table::Flows, 4001)).unwrap();
    let [Completion::CreateFailed(2, failure)] = &settle(&mut *backend, 1)[..] else { panic!("created") };
    assert_eq!(failure.errno, libc::EIO, "a completion has no reason");
    assert!(matches!(nic.pass(&arriving(64)), Exit::Wire(_)));
    // The handle of the failed rule was let go of: its table and the port's queue are as before.
    backend.destroy(1).unwrap();
    assert_eq!(settle(&mut *backend, 1), [Completion::Destroyed(1)]);
    create(&mut *backend, 3, &flow(Table::Flows, 4001));
}

#[test]
fn more_operations_than_a_queue_holds_are_busy_or_wait_and_none_is_lost() {
    let nic = Nic::new("profile=twin", true);
    let mut backend = nic.asynchronous(Style::default());
    let mut created = Vec::new();
    for token in 0..100 {
        let rule = flow(Table::Flows, 5000 + u16::try_from(token).unwrap());
        dpdk::wait("the queue takes a rule", || match backend.create(token, &rule) {
            Ok(()) => Some(()),
            Err(failure) => {
                assert_eq!(failure.class, FailureClass::Busy, "{failure}");
                backend.pull(&mut created).unwrap();
                None
            }
        });
    }
    created.extend(settle(&mut *backend, 100 - created.len()));
    let mut tokens: Vec<Token> = created
        .iter()
        .map(|completion| match completion {
            Completion::Created(token) => *token,
            other => panic!("{other:?}"),
        })
        .collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (0..100).collect::<Vec<_>>());
    backend.flush().unwrap();
    assert_eq!(backend.query_one(0).unwrap_err().errno, libc::ENOENT);
    create(&mut *backend, 200, &flow(Table::Flows, 4000));
    assert!(matches!(nic.pass(&arriving(64)), Exit::Wire(_)));
}

#[test]
fn a_reset_is_found_out_once_and_rules_can_be_made_again() {
    for templates in [false, true] {
        let mut nic = Nic::new("profile=twin", templates);
        let mut backend = if templates { nic.asynchronous(Style::default()) } else { nic.synchronous() };
        create(&mut *backend, 1, &flow(Table::Flows, 4000));
        assert!(backend.alive());
        nic.say("reset");
        dpdk::wait("the reset is found out", || (!backend.alive()).then_some(()));
        assert!(backend.alive());
        assert_eq!(backend.query_one(1).unwrap_err().errno, libc::ENOENT, "the token is done with");
        assert!(matches!(nic.pass(&arriving(64)), Exit::Software(_)));
        create(&mut *backend, 2, &flow(Table::Flows, 4000));
        assert!(matches!(nic.pass(&arriving(64)), Exit::Wire(_)));
    }
}

#[test]
fn a_rule_that_a_reset_took_counts_as_destroyed() {
    let mut nic = Nic::new("profile=twin", false);
    let mut backend = nic.synchronous();
    create(&mut *backend, 1, &flow(Table::Flows, 4000));
    nic.say("reset");
    dpdk::wait("the rule is lost", || backend.query_one(1).is_err().then_some(()));
    backend.destroy(1).unwrap();
    assert_eq!(settle(&mut *backend, 1), [Completion::Destroyed(1)]);
}
