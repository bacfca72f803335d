//! A node and Debian's stock kernel, in a virtual machine, as the two ends of an IPsec tunnel: ESP bare and in UDP, an L3VPN with
//! the kernel's MPLS and VRF, rekeys, and the end of 32 bits. Never skipped: the machine needs nothing of this kernel but TAP.

use std::{net::SocketAddr, path::Path, time::Duration};

use hw_tests::lab::{
    Capture, KernelPeer, LabError, Outside, Ping, PingReport, Received, Sequence, Service, SharedSa, WebServer,
    check_capture, io::RawSocket, scenario, until,
};
use proto::v1;

/// Time for a program in the machine. It runs many times slower than here.
const IN_MACHINE: Duration = Duration::from_secs(60);
/// Of numbered datagrams; what the emulated processor carries with time to spare.
const INTERVAL: Duration = Duration::from_millis(4);
/// Port of the numbered datagrams.
const NUMBERED: u16 = 7000;
/// First number that needs more than 32 bits.
const END_OF_32_BITS: u64 = 1 << 32;
/// Ping's own pattern, as its data has it from the first octet after the time on.
const PING_DATA: &[u8] = b"\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f !\"#$%&'()*+,-./01234567";

#[test]
fn esp_with_a_stock_kernel() -> Result<(), String> {
    scenario("esp_with_a_stock_kernel", || esp(Outside::Esp))
}

#[test]
fn esp_in_udp_with_a_stock_kernel() -> Result<(), String> {
    scenario("esp_in_udp_with_a_stock_kernel", || esp(Outside::EspInUdp))
}

fn esp(outside: Outside) -> Result<(), LabError> {
    let sas = SharedSa::pair(1);
    let mut peer = KernelPeer::new(Service::Plain, outside, sas)?;
    let capture = Capture::start(peer.lab(), peer.transit(), "to-peer", 50_000)?;

    for destination in [KernelPeer::PEER, KernelPeer::PEER6] {
        peer.host().ping(&Ping::to(destination))?.all_answered()?;
    }
    ping_from_machine(&mut peer, &format!("-I {} {}", KernelPeer::PEER, KernelPeer::HOST))?;
    ping_from_machine(&mut peer, &format!("-6 -I {} {}", KernelPeer::PEER6, KernelPeer::HOST6))?;
    sizes(&mut peer, outside)?;
    if outside == Outside::EspInUdp {
        // While nothing else is sent. The kernel takes it for what it is: it has counted no error below.
        next_frame(&mut from(&peer, "to-node")?, "a keepalive", |frame| frame.get(42..) == Some(&[0xff]))?;
    }
    no_plaintext(&capture.stop()?, outside)?;
    both_count_the_same(&mut peer, sas)?;
    assert_eq!(peer.errors_at_peer()?, Default::default());

    fragments_on_the_way(&mut peer)?;
    replayed_and_forged(&mut peer, sas)?;
    peer.host().ping(&Ping::to(KernelPeer::PEER))?.all_answered()?;
    peer.assert_healthy()
}

/// Packets up to the path MTU, larger ones with and without DF.
fn sizes(peer: &mut KernelPeer, outside: Outside) -> Result<(), LabError> {
    // Outer header, SPI and number, IV, check value; what is left is cut to a multiple of 4, less the two octets of the trailer.
    let outer = if outside == Outside::Esp { 20 } else { 28 };
    let path_mtu: u16 = (1500 - outer - 8 - 8 - 16) / 4 * 4 - 2;
    let host = peer.host();
    let largest = Ping::to(KernelPeer::PEER).size(path_mtu - 28).do_not_fragment();
    host.ping(&largest)?.all_answered()?;
    host.ping(&Ping::to(KernelPeer::PEER6).size(path_mtu - 48).do_not_fragment())?.all_answered()?;
    // DF: the node says how much fits, and the host heeds it.
    host.ping(&Ping::to(KernelPeer::PEER).size(path_mtu - 27).do_not_fragment())?.none_answered()?;
    assert_eq!(host.learnt_mtu(KernelPeer::PEER)?, Some(path_mtu.into()));
    host.forget()?;
    // Fragmented by the node before it seals, by the host, and by both; the answers by the kernel.
    for size in [1472, 4000, 8000] {
        peer.host().ping(&Ping::to(KernelPeer::PEER).size(size))?.all_answered()?;
        ping_from_machine(peer, &format!("-s {size} -I {} {}", KernelPeer::PEER, KernelPeer::HOST))?;
    }
    Ok(())
}

/// A router between both ends takes no packet as large as they send: it fragments the outside, and the ends put it together.
fn fragments_on_the_way(peer: &mut KernelPeer) -> Result<(), LabError> {
    for (end, device) in KernelPeer::ENDS.iter().zip(KernelPeer::TRANSIT_DEVICES) {
        peer.transit().ip(&format!("route add {end}/32 dev {device} mtu lock 1300"))?;
    }
    // DF clear inside, so outside too.
    peer.vm().sh("echo 1 >/proc/sys/net/ipv4/ip_no_pmtu_disc")?;
    peer.host().ping(&Ping::to(KernelPeer::PEER).size(1400))?.all_answered()?;
    ping_from_machine(peer, &format!("-s 1400 -I {} {}", KernelPeer::PEER, KernelPeer::HOST))?;
    let fragmented = peer.transit().run("cat", &["/proc/net/snmp"], Duration::from_secs(5))?.success()?;
    assert!(snmp(&fragmented, "FragOKs") >= 6, "the router has fragmented nothing:\n{fragmented}");
    for end in KernelPeer::ENDS {
        peer.transit().ip(&format!("route del {end}/32"))?;
    }
    Ok(())
}

/// A packet that comes once more, and one with a flipped bit, at both ends: refused, counted as what they are, and nothing else.
fn replayed_and_forged(peer: &mut KernelPeer, [to_peer, to_node]: [SharedSa; 2]) -> Result<(), LabError> {
    let before = peer.errors_at_peer()?;
    let mut sockets = [from(peer, "to-node")?, from(peer, "to-peer")?];
    peer.host().ping(&Ping::to(KernelPeer::PEER).count(1))?.all_answered()?;
    let [node_side, peer_side] = &mut sockets;
    let esp = |frame: &[u8]| frame.get(12..14) == Some(&[8, 0]) && frame.len() > 60 + 42;
    let request = next_frame(node_side, "a packet of the node", esp)?;
    let answer = next_frame(peer_side, "a packet of the machine", esp)?;
    let [to_node_mac, to_peer_mac] = KernelPeer::MACS;
    for flip in [0, 1] {
        // Each to where it went, past the router.
        for (socket, frame, mac) in [(&*peer_side, &request, to_peer_mac), (&*node_side, &answer, to_node_mac)] {
            let mut frame = frame.clone();
            frame[..6].copy_from_slice(&mac);
            // A number that was not received yet, so that the check value decides.
            let number = 14 + 20 + if frame[23] == 17 { 8 } else { 0 } + 4;
            frame[number + 2] ^= flip;
            assert!(socket.send(&frame)?);
        }
        let seen = until("both ends to refuse it", Duration::from_secs(5), || {
            let (node, machine) = (peer.sa_at_node(to_node)?, peer.sa_at_peer(to_peer)?);
            let seen = [
                (node.replay_duplicate, node.authentication_failed, node.replay_old, node.malformed),
                (machine.replay_duplicate, machine.authentication_failed, machine.replay_old, 0),
            ];
            Ok((seen == [(1, u64::from(flip), 0, 0); 2]).then_some(seen))
        });
        if let Err(error) = seen {
            let (node, machine) = (peer.sa_at_node(to_node)?, peer.sa_at_peer(to_peer)?);
            return Err(LabError::Violated(format!("{error}: {node:?} {machine:?} {:?}", peer.errors_at_peer()?)));
        }
    }
    assert_eq!(before, Default::default());
    let errors = peer.errors_at_peer()?;
    let wanted = [("XfrmInStateProtoError".to_owned(), 1), ("XfrmInStateSeqError".to_owned(), 1)].into();
    assert_eq!(errors, wanted);
    let drops = peer.node().client().drops()?;
    let dropped = |reason: &str| drops.iter().find(|drop| drop.reason == reason).map_or(0, |drop| drop.packets);
    assert_eq!((dropped("ESP Replay Duplicate"), dropped("ESP Authentication Failed")), (1, 1), "{drops:?}");
    Ok(())
}

#[test]
fn l3vpn_with_a_stock_kernel() -> Result<(), String> {
    scenario("l3vpn_with_a_stock_kernel", || {
        let sas = SharedSa::pair(1);
        let mut peer = KernelPeer::new(Service::L3vpn, Outside::Esp, sas)?;
        let capture = Capture::start(peer.lab(), peer.transit(), "to-peer", 50_000)?;
        // The VRF's own address, and a host behind it.
        for destination in [KernelPeer::VRF, KernelPeer::PEER] {
            peer.host().ping(&Ping::to(destination))?.all_answered()?;
        }
        ping_from_machine(&mut peer, &format!("-I vrf1 {}", KernelPeer::HOST))?;
        let tenant = "ip netns exec tenant";
        let text = peer.vm().run(&format!("{tenant} ping -c 3 -W 2 {}", KernelPeer::HOST), IN_MACHINE)?;
        PingReport::from_output(text)?.all_answered()?;
        // Only the VRF knows the tenant.
        let lost = peer.vm().run(&format!("ip route get {}", KernelPeer::HOST), IN_MACHINE)?;
        assert!(!lost.status.success(), "the main table leads to the tenant: {}", lost.stdout);
        // Larger than the kernel's tunnel takes: fragmented on both sides.
        peer.host().ping(&Ping::to(KernelPeer::PEER).size(4000))?.all_answered()?;

        tcp_both_ways(&mut peer, tenant)?;
        let flows = peer.node().client().flows(v1::ListFlowsRequest {
            vrf: Some(18),
            proto: Some(6),
            destination: KernelPeer::PEER.to_owned(),
            ..Default::default()
        })?;
        assert!(!flows.is_empty() && flows.iter().all(|flow| flow.label == Some(281)), "{flows:#?}");

        no_plaintext(&capture.stop()?, Outside::Esp)?;
        both_count_the_same(&mut peer, sas)?;
        assert_eq!(peer.errors_at_peer()?, Default::default());
        peer.assert_healthy()
    })
}

/// A page of one segment and one of many, from either side to the other.
fn tcp_both_ways(peer: &mut KernelPeer, tenant: &str) -> Result<(), LabError> {
    let large = "for i in $(seq 20000); do echo 'a line of the machine'; done";
    peer.vm().sh(&format!(
        "mkdir /run/www\necho -n 'page of the machine' >/run/www/index.html\n({large}) >/run/www/large.txt\n\
         {tenant} httpd -p 80 -h /run/www"
    ))?;
    let url = format!("http://{}", KernelPeer::PEER);
    assert_eq!(peer.host().curl(&format!("{url}/"))?, "page of the machine");
    let arguments = ["-sS", "--max-time", "60", &format!("{url}/large.txt")];
    let text = peer.host().namespace().run("curl", &arguments, IN_MACHINE)?.success()?;
    assert!(text.len() == 440_000 && text.lines().all(|line| line == "a line of the machine"), "{} octets", text.len());

    let _web = WebServer::start(peer.lab(), peer.host(), "page of the host")?;
    let url = format!("http://{}", KernelPeer::HOST);
    let page = peer.vm().run(&format!("{tenant} wget -q -O - {url}/"), IN_MACHINE)?.success()?;
    assert_eq!(page, "page of the host");
    let fetch = format!("{tenant} wget -q -O /tmp/large {url}/large.txt && sort -u /tmp/large && wc -c </tmp/large");
    let text = peer.vm().run(&fetch, IN_MACHINE)?.success()?;
    let (page, octets) = text.trim().split_once('\n').unwrap_or_default();
    assert!(page == "page of the host" && octets.trim().parse::<u32>().is_ok_and(|n| n >= 400_000), "{text}");
    Ok(())
}

#[test]
fn rekeys_with_a_stock_kernel_lose_nothing() -> Result<(), String> {
    scenario("rekeys_with_a_stock_kernel_lose_nothing", || {
        let mut old = SharedSa::pair(1);
        let mut peer = KernelPeer::new(Service::Plain, Outside::Esp, old)?;
        numbered(&mut peer, |peer, _| {
            for number in 2..=6 {
                let new = SharedSa::pair(number);
                rekey(peer, old, new)?;
                old = new;
            }
            Ok(())
        })?;
        assert_eq!(peer.errors_at_peer()?, Default::default());
        let [to_peer, _] = old;
        assert_eq!(peer.sa_at_node(to_peer)?.rekeys, 5);
        peer.assert_healthy()
    })
}

/// Make before break: inbound at both ends, then outbound, and the old ones go when nothing is under way under them any more.
fn rekey(peer: &mut KernelPeer, old: [SharedSa; 2], new: [SharedSa; 2]) -> Result<(), LabError> {
    let ([old_to_peer, old_to_node], [to_peer, to_node]) = (old, new);
    peer.change_at_node(&[old_to_peer, old_to_node, to_node])?;
    peer.add_at_peer(to_peer)?;
    // The first of the list is the one that seals; the old one stays for its counters.
    peer.change_at_node(&[to_peer, old_to_peer, old_to_node, to_node])?;
    peer.add_at_peer(to_node)?;
    until("both ends to seal with the new SAs", Duration::from_secs(20), || {
        let (node, machine) = (peer.sa_at_node(to_peer)?, peer.sa_at_peer(to_node)?);
        Ok((node.packets > 0 && machine.packets > 0).then_some(()))
    })?;
    both_count_the_same(peer, old)?;
    peer.change_at_node(&new)?;
    old.into_iter().try_for_each(|sa| peer.remove_at_peer(sa))
}

#[test]
fn extended_sequence_numbers_pass_32_bits_with_a_stock_kernel() -> Result<(), String> {
    scenario("extended_sequence_numbers_pass_32_bits_with_a_stock_kernel", || {
        // More than a window before the end, so that the first packets say for themselves which half they belong to
        // (RFC 4303 §A2.2).
        let sas = SharedSa::pair_from(1, END_OF_32_BITS - 1_500);
        let [to_peer, to_node] = sas;
        let mut peer = KernelPeer::new(Service::Plain, Outside::EspInUdp, sas)?;
        numbered(&mut peer, |peer, sequence| {
            let begun = [to_peer, to_node].map(|sa| peer.sa_at_node(sa).map(|sa| sa.sequence));
            for begun in begun {
                let begun = begun?;
                assert!((END_OF_32_BITS - 1_500..END_OF_32_BITS).contains(&begun), "began at {begun:#x}");
            }
            until("both ends to pass 32 bits", Duration::from_secs(90), || {
                let passed = |sa| peer.sa_at_node(sa).map(|sa| sa.sequence > END_OF_32_BITS + 300);
                Ok((passed(to_peer)? && passed(to_node)? && sequence.returned() > 1_800).then_some(()))
            })
        })?;
        both_count_the_same(&mut peer, sas)?;
        let text = peer.vm().sh("ip -s xfrm state")?;
        assert!(text.contains("seq-hi 0x1") && text.contains("oseq-hi 0x1"), "{text}");
        assert_eq!(peer.errors_at_peer()?, Default::default());
        peer.assert_healthy()
    })
}

/// Numbered datagrams to the machine and back while `work` goes on: none is lost, none comes twice. ESP may let one overtake
/// another.
fn numbered(
    peer: &mut KernelPeer,
    work: impl FnOnce(&mut KernelPeer, &Sequence) -> Result<(), LabError>,
) -> Result<(), LabError> {
    let [near, far] = [[192, 168, 100, 100], [192, 168, 1, 100]].map(|host| SocketAddr::from((host, NUMBERED)));
    let echo = peer.vm().spawn(&format!("peer echo {} {NUMBERED}", KernelPeer::PEER))?;
    // Neighbours are known: nothing has to wait for them.
    peer.host().ping(&Ping::to(KernelPeer::PEER))?.all_answered()?;
    let sequence = Sequence::toward((peer.host(), near), far, INTERVAL)?;
    work(peer, &sequence)?;
    let report = sequence.stop()?;
    let said = peer.vm().stop(echo)?;
    let there = said.lines().last().unwrap_or_default();
    let Received { datagrams, duplicated, .. } = report.back;
    println!("{report}; at the machine: {there}");
    let at_machine = format!("{} received, ", report.sent);
    assert!(report.sent > 200 && datagrams == report.sent && duplicated == 0, "{report}; at the machine: {there}");
    assert!(there.contains(&at_machine) && there.contains(" 0 duplicated"), "{report}; at the machine: {there}");
    Ok(())
}

/// Packets and octets of each SA are the same at both ends.
fn both_count_the_same(peer: &mut KernelPeer, sas: [SharedSa; 2]) -> Result<(), LabError> {
    sas.into_iter().try_for_each(|sa| {
        let packets = peer.agreed(sa)?;
        let text = peer.node().host_ctl(&["sa", "--get", &sa.id().to_string()])?;
        let says = |word: &str| text.contains(word);
        assert!(says(&format!("SPI: {:#x}", sa.spi())) && says(&format!("Packets:{packets} ")), "{text}");
        Ok(())
    })
}

/// Pings from the machine: each is answered.
fn ping_from_machine(peer: &mut KernelPeer, arguments: &str) -> Result<(), LabError> {
    let output = peer.vm().run(&format!("ping -c 3 -i 0.1 -W 2 {arguments}"), IN_MACHINE)?;
    PingReport::from_output(output)?.all_answered().map(drop)
}

/// Nothing but ESP on the wire, and nothing in it that could be read.
fn no_plaintext(capture: &Path, outside: Outside) -> Result<(), LabError> {
    let verdict = check_capture(capture)?;
    let esp = match outside {
        Outside::Esp => "eth:ethertype:ip:esp",
        Outside::EspInUdp => "eth:ethertype:ip:udp:udpencap",
    };
    // The kernel seals a large packet of its own whole, and fragments the outside.
    let others = ["eth:ethertype:arp", "eth:ethertype:ip:data"];
    let allowed = |chain: &str| chain.starts_with(esp) || others.contains(&chain);
    assert!(verdict.frames > 20, "{verdict:#?}");
    assert!(verdict.protocols.keys().all(|chain| allowed(chain)), "{:#?}", verdict.protocols);
    assert!(verdict.complaints.is_empty(), "{:#?}", verdict.complaints);
    let octets = std::fs::read(capture).map_err(LabError::io("read the capture"))?;
    let readable = [PING_DATA, b"a line of the", b"page of the"];
    let found = readable.iter().find(|text| octets.windows(text.len()).any(|window| window == **text));
    assert!(found.is_none(), "plaintext on the wire: {found:?}");
    Ok(())
}

/// What comes in on a device of the transit from now on.
fn from(peer: &KernelPeer, device: &str) -> Result<RawSocket, LabError> {
    RawSocket::open(peer.transit(), device)
}

/// The next frame of a kind.
fn next_frame(socket: &mut RawSocket, what: &str, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>, LabError> {
    let mut buffer = vec![0; RawSocket::MAX_FRAME];
    until(what, Duration::from_secs(10), || {
        while let Some(frame) = socket.receive(&mut buffer)? {
            if wanted(frame.bytes) {
                return Ok(Some(frame.bytes.to_vec()));
            }
        }
        Ok(None)
    })
}

/// A counter of IP in `/proc/net/snmp`.
fn snmp(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: ")).map(str::split_whitespace);
    let (Some(mut names), Some(mut values)) = (lines.next(), lines.next()) else { return 0 };
    let at = names.position(|candidate| candidate == name);
    at.and_then(|at| values.nth(at)).and_then(|value| value.parse().ok()).unwrap_or(0)
}
