//! `sa --list` and `sa --get`.

use std::fmt;

use proto::v1::{ListSasResponse, SaDirection, SaInfo, SaState, SaTier, SecurityAssociation};

use super::text::row;

/// Each security association; `whole`: with its counters.
///
/// # Errors
/// Those of `out`.
pub fn render(response: &ListSasResponse, whole: bool, out: &mut impl fmt::Write) -> fmt::Result {
    const WIDTHS: [usize; 11] = [12, 12, 10, 10, 10, 11, 21, 21, 14, 15, 8];
    if whole {
        for (i, info) in response.sas.iter().enumerate() {
            if i > 0 {
                writeln!(out)?;
            }
            one(info, out)?;
        }
        return Ok(());
    }
    row(
        out,
        &WIDTHS,
        &[
            &"SAId",
            &"SPI",
            &"Direction",
            &"Vif",
            &"State",
            &"ESP in",
            &"Packets",
            &"Bytes",
            &"Replay drops",
            &"Auth failures",
            &"Rekeys",
            &"Left",
        ],
    )?;
    for info in &response.sas {
        let (sa, replayed) = (of(info), info.replay_old + info.replay_duplicate);
        let (id, spi) = (format!("{:#x}", sa.id), format!("{:#x}", sa.spi));
        row(
            out,
            &WIDTHS,
            &[
                &id,
                &spi,
                &direction(&sa),
                &tunnel(info),
                &state(info.state()),
                &tier(info.tier()),
                &info.packets,
                &info.bytes,
                &replayed,
                &info.authentication_failed,
                &info.rekeys,
                &left(info).unwrap_or_else(|| "-".to_owned()),
            ],
        )?;
    }
    for info in response.sas.iter().filter(|info| !info.refused_reason.is_empty()) {
        writeln!(out, "{:#x} is refused: {}; give it a new key", of(info).id, info.refused_reason)?;
    }
    Ok(())
}

fn of(info: &SaInfo) -> SecurityAssociation {
    info.sa.clone().unwrap_or_default()
}

fn tunnel(info: &SaInfo) -> String {
    if info.vif == 0 { "-".to_owned() } else { format!("vif0/{}", info.vif) }
}

fn direction(sa: &SecurityAssociation) -> &'static str {
    match sa.direction() {
        SaDirection::Unspecified => "Unknown",
        SaDirection::Outbound => "Outbound",
        SaDirection::Inbound => "Inbound",
    }
}

/// As `vif --get` and `sa` print it.
pub(super) const fn state(state: SaState) -> &'static str {
    match state {
        SaState::Unspecified => "Unknown",
        SaState::SaUnused => "Unused",
        SaState::SaActive => "Active",
        SaState::SaStandby => "Standby",
        SaState::SaExpiring => "Expiring",
        SaState::SaExpired => "Expired",
        SaState::SaExhausted => "Exhausted",
        SaState::SaRefused => "Refused",
    }
}

/// Where ESP is done.
const fn tier(tier: SaTier) -> &'static str {
    match tier {
        SaTier::Unspecified => "-",
        SaTier::SaInSoftware => "Software",
        SaTier::SaInlineCrypto => "NIC cipher",
        SaTier::SaInlineProtocol => "NIC",
    }
}

fn one(info: &SaInfo, out: &mut impl fmt::Write) -> fmt::Result {
    let sa = of(info);
    writeln!(out, "SAId: {:#x} SPI: {:#x} {} State: {}", sa.id, sa.spi, direction(&sa), state(info.state()))?;
    if !info.refused_reason.is_empty() {
        writeln!(out, "Refused: {}; give it a new key", info.refused_reason)?;
    }
    let nat_t = if info.nat_t { " NAT-T" } else { "" };
    if info.vif != 0 {
        writeln!(
            out,
            "VIF: {} Tunnel SRC:{} Tunnel DST:{}{nat_t} Rekeys: {}",
            info.vif, info.source, info.destination, info.rekeys
        )?;
    }
    let esn = if sa.esn { " ESN" } else { "" };
    writeln!(out, "AES-GCM-{} Key: {}{esn} Worker: {}", info.key_bits, sa.key, info.worker)?;
    writeln!(out, "Packets:{} Bytes:{}", info.packets, info.bytes)?;
    if sa.direction() == SaDirection::Inbound {
        writeln!(out, "Window size:{} Highest sequence:{}", sa.replay_window, info.sequence)?;
        writeln!(
            out,
            "Replay drops:{} (too old {}, duplicate {}) Auth failures:{} Malformed:{} Refused by NIC:{}",
            info.replay_old + info.replay_duplicate,
            info.replay_old,
            info.replay_duplicate,
            info.authentication_failed,
            info.malformed,
            info.refused_by_nic
        )?;
    } else {
        writeln!(out, "Next sequence:{} Reserved until:{}", info.sequence, info.reserved_until)?;
    }
    match info.tier() {
        SaTier::Unspecified => {}
        SaTier::SaInSoftware => writeln!(out, "ESP in: Software({})", info.not_in_nic_reason)?,
        tier => writeln!(out, "ESP in: {}", self::tier(tier))?,
    }
    writeln!(out, "Age: {} s Left: {}", info.age_secs, left(info).unwrap_or_else(|| "not limited".to_owned()))
}

/// What is left of the hard lifetime, where it is limited.
fn left(info: &SaInfo) -> Option<String> {
    let left = [("packets", info.packets_left), ("bytes", info.bytes_left), ("seconds", info.seconds_left)];
    let limited: Vec<_> = left.iter().filter_map(|(what, count)| Some(format!("{} {what}", (*count)?))).collect();
    if limited.is_empty() { None } else { Some(limited.join(" ")) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli) fn outbound() -> SaInfo {
        SaInfo {
            sa: Some(SecurityAssociation {
                id: 0xffff_0060,
                spi: 0xc0de_0001,
                direction: SaDirection::Outbound.into(),
                key: "redacted".into(),
                esn: true,
                ..SecurityAssociation::default()
            }),
            state: SaState::SaActive.into(),
            vif: 4111,
            source: "172.28.13.36".into(),
            destination: "103.135.56.40".into(),
            nat_t: true,
            key_bits: 256,
            packets: 83_300_681,
            bytes: 44_061_827_864,
            sequence: 83_300_682,
            reserved_until: 84_000_000,
            seconds_left: Some(120),
            age_secs: 3480,
            rekeys: 3,
            tier: SaTier::SaInlineProtocol.into(),
            ..SaInfo::default()
        }
    }

    pub(in crate::cli) fn inbound() -> SaInfo {
        SaInfo {
            sa: Some(SecurityAssociation {
                id: 0xffff_5f70,
                spi: 0x1234,
                direction: SaDirection::Inbound.into(),
                key: "redacted".into(),
                replay_window: 1024,
                ..SecurityAssociation::default()
            }),
            state: SaState::SaExpiring.into(),
            vif: 4111,
            source: "103.135.56.40".into(),
            destination: "172.28.13.36".into(),
            key_bits: 128,
            packets: 10,
            bytes: 900,
            sequence: 12,
            replay_old: 1,
            replay_duplicate: 2,
            authentication_failed: 4,
            tier: SaTier::SaInSoftware.into(),
            not_in_nic_reason: "offload is switched off".into(),
            ..SaInfo::default()
        }
    }

    #[test]
    fn the_list_has_a_line_for_each() {
        let mut text = String::new();
        render(&ListSasResponse { sas: vec![outbound(), inbound()] }, false, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        SAId        SPI         Direction Vif       State     ESP in     Packets              Bytes                Replay drops  Auth failures  Rekeys  Left
        0xffff0060  0xc0de0001  Outbound  vif0/4111 Active    NIC        83300681             44061827864          0             0              3       120 seconds
        0xffff5f70  0x1234      Inbound   vif0/4111 Expiring  Software   10                   900                  3             4              0       -
        ");
    }

    #[test]
    fn why_one_is_refused_stands_below_the_list_and_beside_the_one() {
        let why = "the kept state was found without its file of reserved sequence numbers";
        let refused =
            SaInfo { state: SaState::SaRefused.into(), refused_reason: why.into(), sequence: 1, ..outbound() };
        let response = ListSasResponse { sas: vec![refused, inbound()] };
        let (mut list, mut one) = (String::new(), String::new());
        render(&response, false, &mut list).unwrap();
        let last = list.lines().last().unwrap();
        assert_eq!(last, format!("0xffff0060 is refused: {why}; give it a new key"));
        assert!(list.contains(" Refused "), "{list}");
        render(&response, true, &mut one).unwrap();
        assert_eq!(one.lines().nth(1).unwrap(), format!("Refused: {why}; give it a new key"));
    }

    #[test]
    fn one_is_shown_with_its_counters_and_without_its_key() {
        let mut text = String::new();
        render(&ListSasResponse { sas: vec![outbound(), inbound()] }, true, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        SAId: 0xffff0060 SPI: 0xc0de0001 Outbound State: Active
        VIF: 4111 Tunnel SRC:172.28.13.36 Tunnel DST:103.135.56.40 NAT-T Rekeys: 3
        AES-GCM-256 Key: redacted ESN Worker: 0
        Packets:83300681 Bytes:44061827864
        Next sequence:83300682 Reserved until:84000000
        ESP in: NIC
        Age: 3480 s Left: 120 seconds

        SAId: 0xffff5f70 SPI: 0x1234 Inbound State: Expiring
        VIF: 4111 Tunnel SRC:103.135.56.40 Tunnel DST:172.28.13.36 Rekeys: 0
        AES-GCM-128 Key: redacted Worker: 0
        Packets:10 Bytes:900
        Window size:1024 Highest sequence:12
        Replay drops:3 (too old 1, duplicate 2) Auth failures:4 Malformed:0 Refused by NIC:0
        ESP in: Software(offload is switched off)
        Age: 0 s Left: not limited
        ");
    }
}
