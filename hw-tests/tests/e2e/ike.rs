//! IKEv2 by strongSwan's charon, whose SAs become the node's; at the other end a stock strongSwan with its own ESP in UDP.

use hw_tests::lab::{Charon, IkeLab, LabError, scenario, until};
use proto::v1;
use std::time::Duration;

const TIME: Duration = Duration::from_secs(20);

fn outbound(lab: &IkeLab) -> Result<u32, LabError> {
    let sas = lab.sas()?;
    let of = |sa: &v1::SaInfo| sa.sa.as_ref().map(|sa| (sa.direction(), sa.spi));
    let active = sas.iter().filter(|sa| sa.state() == v1::SaState::SaActive).filter_map(of);
    let found = active.filter(|(direction, _)| *direction == v1::SaDirection::Outbound).map(|(_, spi)| spi).next_back();
    found.ok_or_else(|| LabError::Violated("no outbound SA is active".to_owned()))
}

fn established(esp: &str, bits: u32, who: fn(&IkeLab) -> &Charon) -> Result<(), LabError> {
    let lab = IkeLab::new(esp)?;
    who(&lab).initiate()?;
    lab.ping()?;
    let sas = lab.sas()?;
    assert_eq!(sas.len(), 2, "{sas:?}");
    for sa in &sas {
        assert_eq!((sa.key_bits, sa.nat_t, sa.vif), (bits, true, 4111), "{sa:?}");
        assert_eq!(sa.sa.as_ref().map(|sa| sa.key.as_str()), Some("redacted"));
    }
    // charon's counters are the node's.
    let listed = lab.charon().swanctl(&["--list-sas"])?;
    for sa in &sas {
        let counters = format!("{} bytes, {:>5} packets", sa.bytes, sa.packets);
        assert!(sa.packets > 0 && listed.contains(&counters), "{counters}:\n{listed}");
    }
    lab.node().host_ctl(&["vif", "--get", "4111"])?;
    let report = lab.sequence()?;
    until("a hundred datagrams", TIME, || Ok((report.returned() >= 100).then_some(())))?;
    report.stop()?.perfect().map(drop)
}

#[test]
fn ike_with_strongswan_aes_256_initiated_here() -> Result<(), String> {
    scenario("ike_with_strongswan_aes_256_initiated_here", || established("aes256gcm16", 256, IkeLab::charon))
}

#[test]
fn ike_with_strongswan_aes_128_initiated_there() -> Result<(), String> {
    scenario("ike_with_strongswan_aes_128_initiated_there", || established("aes128gcm16", 128, IkeLab::peer))
}

#[test]
fn ike_rekeys_lose_no_datagram() -> Result<(), String> {
    scenario("ike_rekeys_lose_no_datagram", || {
        let lab = IkeLab::new("aes256gcm16")?;
        lab.charon().initiate()?;
        lab.until_it_works()?;
        let sequence = lab.sequence()?;
        for round in 0..6 {
            let before = outbound(&lab)?;
            if round % 2 == 0 {
                lab.charon().rekey_child()?
            } else {
                lab.peer().rekey_child()?
            };
            until("the new SA to send", TIME, || Ok((outbound(&lab)? != before).then_some(())))?;
            let returned = sequence.returned();
            until("traffic on it", TIME, || Ok((sequence.returned() > returned + 50).then_some(())))?;
        }
        lab.charon().rekey_ike()?;
        let returned = sequence.returned();
        until("traffic after it", TIME, || Ok((sequence.returned() > returned + 50).then_some(())))?;
        sequence.stop()?.perfect()?;
        let rekeys = lab.sas()?.iter().map(|sa| sa.rekeys).max();
        assert_eq!(rekeys, Some(6));
        Ok(())
    })
}

#[test]
fn ike_survives_a_charon_that_is_killed() -> Result<(), String> {
    scenario("ike_survives_a_charon_that_is_killed", || {
        let mut lab = IkeLab::new("aes256gcm16")?;
        lab.charon().initiate()?;
        lab.ping()?;
        let before = outbound(&lab)?;
        lab.restart_charon(IkeLab::ping)?;
        // A new life has said hello: what the old one left still carries traffic.
        lab.ping()?;
        assert_eq!(outbound(&lab)?, before);
        lab.charon().initiate()?;
        lab.ping()?;
        assert_ne!(outbound(&lab)?, before);
        until("the old SAs to go", TIME, || Ok((lab.sas()?.len() == 2).then_some(())))?;
        lab.ping()
    })
}

#[test]
fn ike_negotiates_anew_for_a_node_that_is_started_again() -> Result<(), String> {
    scenario("ike_negotiates_anew_for_a_node_that_is_started_again", || {
        let mut lab = IkeLab::new("aes256gcm16")?;
        lab.charon().initiate()?;
        lab.ping()?;
        let before = outbound(&lab)?;
        lab.restart_node()?;
        lab.until_it_works()?;
        assert_ne!(outbound(&lab)?, before);
        lab.ping()
    })
}

#[test]
fn ike_finds_a_dead_peer_and_begins_again() -> Result<(), String> {
    scenario("ike_finds_a_dead_peer_and_begins_again", || {
        let mut lab = IkeLab::new("aes256gcm16")?;
        lab.charon().initiate()?;
        lab.ping()?;
        lab.restart_peer()?;
        lab.until_it_works()?;
        lab.ping()
    })
}
