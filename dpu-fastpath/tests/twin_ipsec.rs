//! IPsec of the NIC twin, as the node's ports and both backends use it: ESP that software has sealed is opened by the NIC, and what
//! the NIC has sealed is opened by software.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[path = "twin_ipsec/bed.rs"]
mod bed;
mod twin;

use bed::{
    ETHERNET, KEY, OTHER_KEY, TUNNEL, create, destroy, each, framer, inner, open_rule, outside, seal_rule, sealer,
    seen, spec, to_seal, vif,
};
use fallback_sw::{esp::Opened, packet::NicNote};
use offload_engine::{SessionCounts, SessionKind};
use offload_rules::{
    forwarding::{DfPolicy, Lifetime, SaDirection},
    lower::{Action, Session, Table},
};

const PROTOCOL: SessionKind = SessionKind::InlineProtocol;
const CRYPTO: SessionKind = SessionKind::InlineCrypto;

#[test]
fn the_twin_offers_sessions_of_both_kinds_and_both_key_lengths() {
    each(|nic| {
        for (key, esn) in [(KEY[..20].to_vec(), false), (KEY.to_vec(), true)] {
            for direction in [SaDirection::Outbound, SaDirection::Inbound] {
                let spec = spec(PROTOCOL, direction, &key, esn);
                let kinds = nic.sessions.session_kinds(vif(4), &spec.sa);
                assert!(kinds.contains(&PROTOCOL), "{kinds:?}, ESN {esn}");
                if !esn {
                    assert!(kinds.contains(&CRYPTO), "{kinds:?}");
                }
            }
        }
        let wide = spec(PROTOCOL, SaDirection::Inbound, &KEY[..20], false);
        assert!(nic.sessions.session_kinds(vif(9), &wide.sa).is_empty(), "no such port");
    });
}

#[test]
fn what_comes_sealed_is_opened_and_software_is_told_the_tunnel() {
    each(|nic| {
        for esn in [false, true] {
            let spec = spec(PROTOCOL, SaDirection::Inbound, &KEY, esn);
            nic.sessions.open_session(Session(1), &spec).unwrap();
            create(nic, 1, &open_rule(&spec.sa, Session(1)));
            let mut peer = sealer(&KEY, esn);
            let (note, frame) = nic.arrive(1, &outside(&mut peer, &inner(1))).software();
            assert_eq!(note, NicNote::Opened(vif(TUNNEL)));
            assert_eq!(frame[12..], [&[8, 0][..], &inner(1)].concat());
            assert_eq!(seen(nic, Session(1)), SessionCounts { packets: 1, bytes: inner(1).len() as u64, refused: 0 });
            destroy(nic, 1);
            nic.sessions.close_session(Session(1)).unwrap();
        }
    });
}

#[test]
fn a_flow_rule_forwards_what_came_out_of_the_tunnel() {
    each(|nic| {
        let spec = spec(PROTOCOL, SaDirection::Inbound, &KEY, true);
        nic.sessions.open_session(Session(1), &spec).unwrap();
        create(nic, 1, &open_rule(&spec.sa, Session(1)));
        create(nic, 2, &bed::flow(Table::Opened, 4, vec![Action::Count, Action::Port(vif(3))]));
        let mut peer = sealer(&KEY, true);
        let frame = nic.arrive(1, &outside(&mut peer, &inner(1))).wire();
        assert_eq!(frame[14..], inner(1));
        assert_eq!(nic.backend.query_one(2).unwrap().packets, 1);
        // Another flow of the tunnel is software's, which is told how far the NIC came.
        let (note, frame) = nic.arrive(1, &outside(&mut peer, &inner(2))).software();
        assert_eq!((note, &frame[14..]), (NicNote::Opened(vif(TUNNEL)), &inner(2)[..]));
    });
}

#[test]
fn a_forged_or_replayed_packet_is_refused_and_counted() {
    each(|nic| {
        let spec = spec(PROTOCOL, SaDirection::Inbound, &KEY, false);
        nic.sessions.open_session(Session(1), &spec).unwrap();
        create(nic, 1, &open_rule(&spec.sa, Session(1)));
        let frame = outside(&mut sealer(&KEY, false), &inner(1));
        assert_eq!(nic.arrive(1, &frame).software().0, NicNote::Opened(vif(TUNNEL)));
        assert_eq!(nic.arrive(1, &frame).software().0, NicNote::Refused, "replayed");
        let mut other = sealer(&OTHER_KEY, false);
        other.skip_to(7);
        assert_eq!(nic.arrive(1, &outside(&mut other, &inner(1))).software().0, NicNote::Refused, "another key");
        assert_eq!(seen(nic, Session(1)), SessionCounts { packets: 1, bytes: inner(1).len() as u64, refused: 2 });
    });
}

#[test]
fn a_flow_into_the_tunnel_is_sealed_and_leaves_with_the_tunnels_headers() {
    each(|nic| {
        let spec = spec(PROTOCOL, SaDirection::Outbound, &KEY, true);
        nic.sessions.open_session(Session(1), &spec).unwrap();
        create(nic, 1, &seal_rule(Session(1)));
        create(nic, 2, &to_seal());
        for number in spec.first..spec.first + 2 {
            let frame = nic.arrive(0, &[&ETHERNET[..], &inner(1)].concat()).wire();
            assert_eq!(bed::open(&frame, &KEY, true, number), inner(1));
            assert_eq!((frame[22], frame[20] & 0x40), (64, 0x40), "TTL, and the bit of the packet inside");
        }
        assert_eq!(seen(nic, Session(1)), SessionCounts { packets: 2, bytes: 2 * inner(1).len() as u64, refused: 0 });
        // Without the session's rule the packet comes to software with the word that it is to be sealed.
        destroy(nic, 1);
        let (note, frame) = nic.arrive(0, &[&ETHERNET[..], &inner(1)].concat()).software();
        assert_eq!((note, &frame[14..]), (NicNote::ToSeal(vif(TUNNEL)), &inner(1)[..]));
    });
}

#[test]
fn packets_sent_with_a_session_are_sealed_and_without_one_not_sent() {
    each(|nic| {
        let spec = spec(PROTOCOL, SaDirection::Outbound, &KEY, false);
        nic.sessions.open_session(Session(1), &spec).unwrap();
        let frame = [&ETHERNET[..], &inner(1)].concat();
        assert_eq!(nic.send(1, &frame, NicNote::Session(1)), 1);
        assert_eq!(bed::open(&nic.sent(1).unwrap(), &KEY, false, spec.first), inner(1));
        assert_eq!(nic.send(1, &frame, NicNote::Session(2)), 0, "there is none");
        assert_eq!(nic.send(0, &frame, NicNote::Session(1)), 0, "it is another port's");
        assert_eq!(nic.send(1, &[&ETHERNET[..12], &[8, 6], &inner(1)].concat(), NicNote::Session(1)), 0, "no IP");
        nic.sessions.close_session(Session(1)).unwrap();
        assert_eq!(nic.send(1, &frame, NicNote::Session(1)), 0, "it is closed");
        assert!(nic.sent(0).is_none() && nic.sent(1).is_none());
        assert_eq!(nic.send(1, &frame, NicNote::None), 1);
        assert_eq!(nic.sent(1), Some(frame));
    });
}

#[test]
fn a_session_sends_no_more_packets_than_it_may() {
    each(|nic| {
        let mut spec = spec(PROTOCOL, SaDirection::Outbound, &KEY, true);
        spec.most = Lifetime { packets: 2, ..Lifetime::default() };
        nic.sessions.open_session(Session(1), &spec).unwrap();
        let frame = [&ETHERNET[..], &inner(1)].concat();
        for number in spec.first..spec.first + 2 {
            nic.send(1, &frame, NicNote::Session(1));
            assert_eq!(bed::open(&nic.sent(1).unwrap(), &KEY, true, number), inner(1));
        }
        nic.send(1, &frame, NicNote::Session(1));
        assert!(nic.sent(1).is_none(), "a number that is not reserved");
        assert_eq!(seen(nic, Session(1)).packets, 2);
    });
}

#[test]
fn a_session_goes_after_its_rules_and_none_comes_after_it() {
    each(|nic| {
        let spec = spec(PROTOCOL, SaDirection::Inbound, &KEY, false);
        let rule = open_rule(&spec.sa, Session(1));
        assert_eq!(nic.backend.create(1, &rule).unwrap_err().errno, libc::ENOENT, "not open yet");
        nic.sessions.open_session(Session(1), &spec).unwrap();
        create(nic, 2, &rule);
        assert_eq!(nic.sessions.close_session(Session(1)).unwrap_err().errno, libc::EBUSY);
        destroy(nic, 2);
        nic.sessions.close_session(Session(1)).unwrap();
        assert_eq!(nic.backend.create(3, &rule).unwrap_err().errno, libc::ENOENT, "closed");
        assert_eq!(nic.sessions.close_session(Session(1)).unwrap_err().errno, libc::ENOENT);
        assert!(nic.sessions.session_counts(Session(1)).is_err());
    });
}

#[test]
fn a_flush_destroys_sessions_and_a_restarted_engine_finds_none() {
    each(|nic| {
        let inbound = spec(PROTOCOL, SaDirection::Inbound, &KEY, false);
        let outbound = spec(PROTOCOL, SaDirection::Outbound, &KEY, false);
        for life in 0..2 {
            nic.sessions.open_session(Session(1), &inbound).unwrap();
            nic.sessions.open_session(Session(2), &outbound).unwrap();
            create(nic, life, &open_rule(&inbound.sa, Session(1)));
            // The engine dies, and its backend with it.
            nic.reconnect();
            nic.flush();
            assert_eq!(nic.sessions.session_counts(Session(1)).unwrap_err().errno, libc::ENOENT);
            let frame = [&ETHERNET[..], &inner(1)].concat();
            assert_eq!(nic.send(1, &frame, NicNote::Session(2)), 0);
        }
    });
}

#[test]
fn with_inline_crypto_the_nic_enciphers_what_software_has_framed() {
    each(|nic| {
        let spec = spec(CRYPTO, SaDirection::Outbound, &KEY, false);
        nic.sessions.open_session(Session(1), &spec).unwrap();
        let mut framer = framer(&KEY);
        for number in 1..3 {
            let framed = bed::around(&inner(1), |packet| framer.frame(packet, 0, 1, true).unwrap());
            assert_eq!(nic.send(1, &framed, NicNote::Session(1)), 1);
            assert_eq!(bed::open(&nic.sent(1).unwrap(), &KEY, false, number), inner(1));
        }
    });
}

#[test]
fn with_inline_crypto_the_nic_deciphers_and_the_window_stays_softwares() {
    each(|nic| {
        let spec = spec(CRYPTO, SaDirection::Inbound, &KEY, false);
        nic.sessions.open_session(Session(1), &spec).unwrap();
        let mut rule = open_rule(&spec.sa, Session(1));
        rule.actions = vec![Action::Security(Session(1)), Action::Rss];
        create(nic, 1, &rule);
        let sealed = outside(&mut sealer(&KEY, false), &inner(1));
        for _ in 0..2 {
            let (note, mut frame) = nic.arrive(1, &sealed).software();
            assert_eq!(note, NicNote::Deciphered, "a second time as well: the window is not the NIC's");
            assert_eq!(frame[..58], sealed[..58], "headers are as they were");
            let Ok(Opened::Packet { at, len }) = bed::opener(&KEY, false).open_deciphered(&mut frame[42..]) else {
                panic!("not what the peer has sealed")
            };
            assert_eq!(frame[42 + at..42 + at + len], inner(1));
        }
        let forged = outside(&mut sealer(&OTHER_KEY, false), &inner(1));
        assert_eq!(nic.arrive(1, &forged).software().0, NicNote::Refused);
    });
}

#[test]
fn what_a_nic_cannot_do_about_a_session_is_refused_with_a_reason() {
    each(|nic| {
        let mut spec = spec(PROTOCOL, SaDirection::Outbound, &KEY[..19], false);
        let failure = nic.sessions.open_session(Session(1), &spec).unwrap_err();
        assert!([libc::EINVAL, libc::ENOTSUP].contains(&failure.errno), "{failure}");
        spec.port = vif(9);
        assert_eq!(nic.sessions.open_session(Session(1), &spec).unwrap_err().errno, libc::ENODEV);
        spec = bed::spec(PROTOCOL, SaDirection::Outbound, &KEY, false);
        spec.tunnel.df = DfPolicy::Clear;
        nic.sessions.open_session(Session(1), &spec).unwrap();
        assert_eq!(nic.sessions.open_session(Session(1), &spec).unwrap_err().errno, libc::EEXIST);
        nic.send(1, &[&ETHERNET[..], &inner(1)].concat(), NicNote::Session(1));
        assert_eq!(nic.sent(1).unwrap()[20] & 0x40, 0, "the bit is clear, whatever the packet inside has");
    });
}
