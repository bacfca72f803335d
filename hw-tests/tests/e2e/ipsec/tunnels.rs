//! Two tunnels, SAs that are wrong, missing or over, and a regional edge that is killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    time::Duration,
};

use hw_tests::lab::{
    Capture, Fan, L3vpn, LabError, LeakWatch, Node, Options, Ping, Sa, Site, Tenant, Tunnel, TunnelEnd, run, scenario,
    until,
};
use proto::v1;

use super::figures;

const FLOWS: usize = 200;
const LIMIT: Duration = Duration::from_secs(10);
/// The two tunnels of CE1.
const FIRST: Tunnel = Tunnel { site: Site::Ce1, path: 0 };
const SECOND: Tunnel = Tunnel { site: Site::Ce1, path: 1 };

fn fan(l3vpn: &L3vpn) -> Result<Fan, LabError> {
    let mut fan = Fan::open(
        l3vpn.host(Tenant::Blue, Site::Ce1),
        (l3vpn.host(Tenant::Blue, Site::Ce2), "192.168.1.100"),
        FLOWS as u16,
    )?;
    fan.until_all_arrive(LIMIT)?;
    Ok(fan)
}

/// Flows of a member.
fn of(paths: &BTreeMap<u16, i32>, member: i32) -> BTreeSet<u16> {
    paths.iter().filter(|(_, index)| **index == member).map(|(port, _)| *port).collect()
}

fn ids(sas: &[Sa]) -> Vec<u32> {
    sas.iter().map(|sa| sa.id).collect()
}

/// What CE1's first tunnel has, out and in.
fn first_of_ce1(l3vpn: &L3vpn) -> Result<(Vec<Sa>, Vec<Sa>), LabError> {
    let pair = l3vpn.edge()?.associations()?.of(FIRST).clone();
    Ok((pair.up, pair.down))
}

#[test]
fn a_tunnel_that_goes_down_moves_only_its_own_flows_and_they_return() -> Result<(), String> {
    scenario("a_tunnel_that_goes_down_moves_only_its_own_flows_and_they_return", || {
        let mut l3vpn = L3vpn::new(&Options::through_edge())?;
        let mut fan = fan(&l3vpn)?;
        let client = l3vpn.node(Site::Ce1)?.client();
        let before = fan.paths(client)?;
        let (own, other) = (of(&before, 0), of(&before, 1));
        figures(&format!("{FLOWS} flows: {} in tunnel 4111, {} in tunnel 4109", own.len(), other.len()));
        assert_eq!(own.len() + other.len(), FLOWS, "{before:?}");
        assert!(own.len() > 60 && other.len() > 60, "{} and {}", own.len(), other.len());

        let (up, down) = first_of_ce1(&l3vpn)?;
        let sent = |tunnel: Tunnel| -> Result<u64, LabError> {
            Ok(client.vif(tunnel.vif(TunnelEnd::Customer))?.counters.unwrap_or_default().tx_packets)
        };
        // How many packets go into each tunnel when every flow sends one, and that all of them arrive.
        let mut round = |when: &str| -> Result<[u64; 2], LabError> {
            let before = [sent(FIRST)?, sent(SECOND)?];
            let arrived = fan.send()?.arrived.len();
            assert_eq!(arrived, FLOWS, "{when}: {}", l3vpn.diagnosis());
            Ok([sent(FIRST)? - before[0], sent(SECOND)? - before[1]])
        };
        let both = [own.len() as u64, other.len() as u64];
        assert_eq!(round("both up")?, both);
        l3vpn.set_sas(FIRST, TunnelEnd::Customer, Vec::new(), ids(&down))?;
        assert_eq!(round("one down")?, [0, FLOWS as u64]);
        figures(&format!(
            "tunnel 4111 down: its {} flows moved, {} stayed, none lost a packet",
            own.len(),
            other.len()
        ));
        l3vpn.set_sas(FIRST, TunnelEnd::Customer, ids(&up), ids(&down))?;
        assert_eq!(round("up again")?, both);
        assert_eq!(fan.paths(client)?, before, "not every flow returned to where it was");
        figures("tunnel 4111 up: every flow is where it was");
        l3vpn.assert_healthy()
    })
}

#[test]
fn nothing_is_in_the_clear_while_sas_are_missing_or_expired() -> Result<(), String> {
    scenario("nothing_is_in_the_clear_while_sas_are_missing_or_expired", || {
        let mut l3vpn = L3vpn::new(&Options::through_edge())?;
        let leaks = LeakWatch::start(l3vpn.lab(), l3vpn.edge()?)?;
        let host1 = l3vpn.host(Tenant::Blue, Site::Ce1);
        let ping = Ping::to("192.168.1.100").count(5);
        let unreached = |what: &str| -> Result<(), LabError> {
            let report = host1.ping(&ping)?;
            assert_eq!(report.received, 0, "{what}: {}", report.text);
            l3vpn.host(Tenant::Blue, Site::Ce2).ping(&Ping::to("192.168.100.100"))?;
            Ok(())
        };
        let pairs = [FIRST, SECOND]
            .map(|tunnel| (tunnel, l3vpn.edge().map(|edge| edge.associations().map(|all| all.of(tunnel).clone()))));
        let pairs: Vec<_> =
            pairs.into_iter().map(|(tunnel, pair)| Ok((tunnel, pair??))).collect::<Result<_, LabError>>()?;

        // Nothing to seal with at CE1.
        for (tunnel, pair) in &pairs {
            l3vpn.set_sas(*tunnel, TunnelEnd::Customer, Vec::new(), ids(&pair.down))?;
        }
        unreached("CE1 without outbound SAs")?;
        assert!(l3vpn.node(Site::Ce1)?.client().dropped("Invalid NH")? > 0, "{}", l3vpn.diagnosis());
        for (tunnel, pair) in &pairs {
            l3vpn.set_sas(*tunnel, TunnelEnd::Customer, ids(&pair.up), ids(&pair.down))?;
        }
        l3vpn.wait_until_reachable(Tenant::Blue, LIMIT)?;

        // Nothing to seal with at the regional edge, toward CE2.
        let east: Vec<Tunnel> = Tunnel::ALL.into_iter().filter(|tunnel| tunnel.site == Site::Ce2).collect();
        for tunnel in &east {
            let pair = l3vpn.edge()?.associations()?.of(*tunnel).clone();
            l3vpn.set_sas(*tunnel, TunnelEnd::Regional, Vec::new(), ids(&pair.up))?;
        }
        unreached("RE without outbound SAs toward CE2")?;
        // Half installed: it seals, and does not open.
        for tunnel in &east {
            let pair = l3vpn.edge()?.associations()?.of(*tunnel).clone();
            l3vpn.set_sas(*tunnel, TunnelEnd::Regional, ids(&pair.down), Vec::new())?;
        }
        unreached("RE without inbound SAs of CE2")?;
        assert!(l3vpn.edge()?.node()?.client().dropped("Unknown SPI")? > 0, "{}", l3vpn.diagnosis());
        for tunnel in &east {
            let pair = l3vpn.edge()?.associations()?.of(*tunnel).clone();
            l3vpn.set_sas(*tunnel, TunnelEnd::Regional, ids(&pair.down), ids(&pair.up))?;
        }
        l3vpn.wait_until_reachable(Tenant::Blue, LIMIT)?;

        // Over after a packet more each.
        let mut short = Vec::new();
        for (tunnel, _) in &pairs {
            let new = l3vpn.edge()?.associations()?.make()?;
            install(&l3vpn, *tunnel, &new.up, |sa| {
                sa.hard = Some(v1::Lifetime { packets: 1, ..v1::Lifetime::default() })
            })?;
            short.extend(new.up);
        }
        until("the SAs of one packet to be over", LIMIT, || {
            host1.ping(&ping)?;
            let sas = l3vpn.node(Site::Ce1)?.client().sas()?;
            let over = |id: u32| {
                sas.iter().any(|info| {
                    info.sa.as_ref().is_some_and(|sa| sa.id == id) && info.state() == v1::SaState::SaExpired
                })
            };
            Ok(short.iter().all(|sa| over(sa.id)).then_some(()))
        })?;
        unreached("CE1 with expired SAs")?;
        let links = leaks.nothing_leaked()?;
        figures(&format!("nothing in the clear on {}", links.join(", ")));
        l3vpn.assert_healthy()
    })
}

/// Has CE1 seal with SAs of its own making in a tunnel, which the regional edge opens with what it was told.
fn install(
    l3vpn: &L3vpn,
    tunnel: Tunnel,
    up: &[Sa],
    alter: impl Fn(&mut v1::SecurityAssociation),
) -> Result<(), LabError> {
    let pair = l3vpn.edge()?.associations()?.of(tunnel).clone();
    let outbound = up.iter().map(Sa::outbound).map(|mut sa| {
        alter(&mut sa);
        sa
    });
    let at_edge = v1::ForwardingDelta {
        sas: up.iter().map(Sa::inbound).collect(),
        vifs: vec![tunnel.vif_with(TunnelEnd::Regional, ids(&pair.down), [ids(&pair.up), ids(up)].concat())],
        ..v1::ForwardingDelta::default()
    };
    l3vpn.edge()?.node()?.client().change(at_edge)?;
    let at_customer = v1::ForwardingDelta {
        sas: outbound.collect(),
        vifs: vec![tunnel.vif_with(TunnelEnd::Customer, ids(up), ids(&pair.down))],
        ..v1::ForwardingDelta::default()
    };
    l3vpn.node(tunnel.site)?.client().change(at_customer).map(drop)
}

#[test]
fn a_wrong_key_an_unknown_spi_and_an_expired_sa_are_dropped() -> Result<(), String> {
    scenario("a_wrong_key_an_unknown_spi_and_an_expired_sa_are_dropped", || {
        let mut l3vpn = L3vpn::new(&Options::through_edge())?;
        let leaks = LeakWatch::start(l3vpn.lab(), l3vpn.edge()?)?;
        let mut fan = fan(&l3vpn)?;
        let (ce1, edge) = (l3vpn.node(Site::Ce1)?.client(), l3vpn.edge()?.node()?.client());
        let before = fan.paths(ce1)?;
        let (own, other) = (of(&before, 0), of(&before, 1));

        // The regional edge has another key for the index that CE1 sends.
        let new = l3vpn.edge()?.associations()?.make()?;
        install(&l3vpn, FIRST, &new.up, |_| ())?;
        assert_eq!(fan.send()?.arrived.len(), FLOWS);
        let wrong: Vec<Sa> = l3vpn.edge()?.associations()?.make()?.up;
        let stranger = |sa: &Sa, other: &Sa| v1::SecurityAssociation { key: other.inbound().key, ..sa.inbound() };
        let sas = new.up.iter().zip(&wrong).map(|(sa, other)| stranger(sa, other)).collect();
        edge.change(v1::ForwardingDelta { sas, ..v1::ForwardingDelta::default() })?;
        assert_eq!(fan.send()?.arrived, other, "only the flows of the other tunnel arrive");
        assert_eq!(edge.dropped("ESP Authentication Failed")?, own.len() as u64);
        figures(&format!("wrong key: {} dropped by the RE, {} of the other tunnel arrive", own.len(), other.len()));

        // It has forgotten the index.
        let pair = l3vpn.edge()?.associations()?.of(FIRST).clone();
        l3vpn.set_sas(FIRST, TunnelEnd::Regional, ids(&pair.down), ids(&pair.up))?;
        assert_eq!(fan.send()?.arrived, other);
        assert_eq!(edge.dropped("Unknown SPI")?, own.len() as u64);
        figures(&format!("unknown SPI: {} dropped by the RE, {} of the other tunnel arrive", own.len(), other.len()));

        // It takes no more: the hard lifetime of what it opens with is over after ten packets.
        let new = l3vpn.edge()?.associations()?.make()?;
        install(&l3vpn, FIRST, &new.up, |_| ())?;
        let hard = Some(v1::Lifetime { packets: 10, ..v1::Lifetime::default() });
        let sas = new.up.iter().map(|sa| v1::SecurityAssociation { hard, ..sa.inbound() }).collect();
        edge.change(v1::ForwardingDelta { sas, ..v1::ForwardingDelta::default() })?;
        let arrived = fan.send()?.arrived;
        assert!(arrived.is_superset(&other));
        assert_eq!(arrived.len(), other.len() + 10, "ten of the first tunnel arrive");
        assert_eq!(edge.dropped("SA Expired")?, own.len() as u64 - 10);
        figures(&format!("expired: 10 opened, {} dropped by the RE", own.len() - 10));

        // Mended from outside.
        l3vpn.set_sas(FIRST, TunnelEnd::Customer, ids(&new.up), ids(&pair.down))?;
        let rekeyed = l3vpn.rekey(&[FIRST])?;
        assert_eq!(rekeyed.tunnels, 1);
        assert_eq!(fan.send()?.arrived.len(), FLOWS);
        assert_eq!(ce1.dropped("SA Expired")?, 0);
        leaks.nothing_leaked()?;
        l3vpn.assert_healthy()
    })
}

#[test]
fn a_killed_regional_edge_resumes_without_repeating_a_sequence_number() -> Result<(), String> {
    scenario("a_killed_regional_edge_resumes_without_repeating_a_sequence_number", || {
        let mut l3vpn = L3vpn::new(&Options::through_edge())?;
        let leaks = LeakWatch::start(l3vpn.lab(), l3vpn.edge()?)?;
        let captures = l3vpn
            .edge()?
            .untrusted()
            .into_iter()
            .filter(|(_, device)| ["wan", "to-re"].contains(device))
            .map(|(namespace, device)| Capture::start(l3vpn.lab(), namespace, device, 100_000))
            .collect::<Result<Vec<_>, _>>()?;
        let mut fan = fan(&l3vpn)?;
        // SAs that are in no file but the kept one: the state that the node is started with has older ones.
        l3vpn.rekey(&Tunnel::ALL)?;
        for _ in 0..5 {
            assert_eq!(fan.send()?.arrived.len(), FLOWS);
            l3vpn.host(Tenant::Blue, Site::Ce2).ping(&Ping::to("192.168.100.100"))?.all_answered()?;
        }
        let before = numbers(l3vpn.edge()?.node()?)?;
        let killed = std::time::Instant::now();
        l3vpn.restart_edge_after_kill()?;
        fan.until_all_arrive(LIMIT)?;
        l3vpn.host(Tenant::Blue, Site::Ce2).ping(&Ping::to("192.168.100.100"))?.all_answered()?;
        figures(&format!("all of {FLOWS} flows arrive again {} ms after the kill", killed.elapsed().as_millis()));
        let after = numbers(l3vpn.edge()?.node()?)?;
        assert_eq!(before.len(), 4, "{before:?}");
        for (id, (_, reserved)) in &before {
            let (next, _) = after.get(id).copied().unwrap_or_default();
            assert!(next >= *reserved, "SA {id:#x} goes on with {next}, up to {reserved} may have been used");
        }
        let mut seen = BTreeSet::new();
        let mut packets = 0;
        for capture in captures {
            for packet in esp_numbers(&capture.stop()?)? {
                packets += 1;
                assert!(seen.insert(packet.clone()), "index and number were used twice: {packet:?}");
            }
        }
        figures(&format!("{packets} ESP packets on both sides of the RE, no index and number twice"));
        assert!(packets > 2000, "{packets}");
        leaks.nothing_leaked()?;
        l3vpn.assert_healthy()
    })
}

/// Of each outbound SA: the next number, and the first that is not reserved.
fn numbers(node: &Node) -> Result<BTreeMap<u32, (u64, u64)>, LabError> {
    let outbound = |info: &v1::SaInfo| info.sa.as_ref().is_some_and(|sa| sa.direction() == v1::SaDirection::Outbound);
    let sas = node.client().sas()?.into_iter().filter(outbound);
    Ok(sas.map(|info| (info.sa.unwrap_or_default().id, (info.sequence, info.reserved_until))).collect())
}

/// Index and sequence number of every ESP packet of a capture, as tshark reads them.
fn esp_numbers(file: &Path) -> Result<Vec<(String, String)>, LabError> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(["-Y", "esp", "-T", "fields", "-e", "esp.spi", "-e", "esp.sequence"]);
    let text = run(command, Duration::from_secs(60))?.success()?;
    let pair = |line: &str| line.split_once('\t').map(|(index, number)| (index.to_owned(), number.to_owned()));
    Ok(text.lines().filter_map(pair).collect())
}

#[test]
fn every_datagram_of_500_new_flows_arrives_or_is_counted() -> Result<(), String> {
    scenario("every_datagram_of_500_new_flows_arrives_or_is_counted", || {
        const FLOWS: u16 = 500;
        let l3vpn = L3vpn::new(&Options::through_edge())?;
        let near = l3vpn.host(Tenant::Blue, Site::Ce1);
        let far = (l3vpn.host(Tenant::Blue, Site::Ce2), "192.168.1.100");
        // A receiver with room for all of them, then one with room for a few.
        let mut roomy = Fan::open(near, far, FLOWS)?;
        let before = l3vpn.counted_losses()?;
        let round = roomy.send()?;
        let counted = l3vpn.counted_losses()? - before;
        figures(&format!("{FLOWS} datagrams: {} arrived, {counted} counted on the way", round.arrived.len()));
        assert_eq!(round.overflowed, 0, "the receiver's socket was too small: {round:?}");
        assert!(round.missing() <= counted, "{} missing, {counted} counted: {}", round.missing(), l3vpn.diagnosis());
        drop(roomy);

        let mut narrow = Fan::with_receive_buffer(near, far, FLOWS, 1)?;
        let before = l3vpn.counted_losses()?;
        let round = narrow.send()?;
        let counted = l3vpn.counted_losses()? - before;
        figures(&format!("a narrow receiver: {} arrived, {} found it full", round.arrived.len(), round.overflowed));
        assert!(round.overflowed > 0, "{round:?}");
        assert!(round.missing() <= counted, "{} missing, {counted} counted: {}", round.missing(), l3vpn.diagnosis());
        Ok(())
    })
}
