//! `stats hit-rate`.

use std::fmt;

use proto::v1::{HitRate, TierTraffic, Traffic};

use super::text::row;

const WIDTHS: [usize; 8] = [8, 9, 22, 22, 22, 22, 22, 22];

/// Packets and bytes by tier with their share: two lines for each VRF, then all together.
///
/// # Errors
/// Those of `out`.
pub fn render(rate: &HitRate, out: &mut impl fmt::Write) -> fmt::Result {
    let tiers: [&dyn fmt::Display; 6] = [&"Hardware", &"Partial", &"Software flow", &"Routed", &"Slow path", &"Punt"];
    let [a, b, c, d, e, f] = tiers;
    row(out, &WIDTHS, &[&"Vrf", &"", a, b, c, d, e, f, &"Name"])?;
    for vrf in &rate.vrfs {
        lines(out, &vrf.vrf, &vrf.traffic.unwrap_or_default(), &vrf.name)?;
    }
    writeln!(out)?;
    lines(out, &"Total", &rate.total.unwrap_or_default(), "")
}

fn lines(out: &mut impl fmt::Write, vrf: &dyn fmt::Display, traffic: &TierTraffic, name: &str) -> fmt::Result {
    let [a, b, c, d, e, f] = shares(traffic, |traffic| traffic.packets);
    row(out, &WIDTHS, &[vrf, &"packets", &a, &b, &c, &d, &e, &f, &name])?;
    let [a, b, c, d, e, f] = shares(traffic, |traffic| traffic.bytes);
    row(out, &WIDTHS, &[&"", &"bytes", &a, &b, &c, &d, &e, &f])
}

/// Each tier's number, and what part of all tiers it is.
fn shares(traffic: &TierTraffic, number: fn(Traffic) -> u64) -> [String; 6] {
    let TierTraffic { hardware, partial, software, routed, slow_path, punt } = *traffic;
    let tiers = [hardware, partial, software, routed, slow_path, punt];
    let numbers = tiers.map(|tier| number(tier.unwrap_or_default()));
    let total: u128 = numbers.iter().map(|number| u128::from(*number)).sum();
    numbers.map(|number| share(number, total))
}

/// `12 (3.45 %)`; rounded down, so that 100 % means all.
fn share(number: u64, total: u128) -> String {
    if total == 0 {
        return number.to_string();
    }
    let hundredths = u128::from(number) * 10_000 / total;
    format!("{number} ({}.{:02} %)", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use proto::v1::VrfHitRate;

    use super::*;

    #[test]
    fn tiers_stand_side_by_side_with_their_share_for_each_vrf_and_in_all() {
        let traffic = |packets, bytes| Some(Traffic { packets, bytes });
        let busy = TierTraffic {
            hardware: traffic(99_999, 149_998_500),
            partial: traffic(0, 0),
            software: traffic(1, 1500),
            routed: None,
            slow_path: None,
            punt: traffic(0, 0),
        };
        let total = TierTraffic { slow_path: traffic(2, 120), routed: traffic(100_000, 6_000_000), ..busy };
        let vrf = |vrf, name: &str, traffic| VrfHitRate { vrf, name: name.into(), traffic };
        let rate = HitRate { vrfs: vec![vrf(18, "blue", Some(busy)), vrf(28, "green", None)], total: Some(total) };
        let mut text = String::new();
        render(&rate, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        Vrf              Hardware              Partial               Software flow         Routed                Slow path             Punt                  Name
        18      packets  99999 (99.99 %)       0 (0.00 %)            1 (0.00 %)            0 (0.00 %)            0 (0.00 %)            0 (0.00 %)            blue
                bytes    149998500 (99.99 %)   0 (0.00 %)            1500 (0.00 %)         0 (0.00 %)            0 (0.00 %)            0 (0.00 %)
        28      packets  0                     0                     0                     0                     0                     0                     green
                bytes    0                     0                     0                     0                     0                     0

        Total   packets  99999 (49.99 %)       0 (0.00 %)            1 (0.00 %)            100000 (49.99 %)      2 (0.00 %)            0 (0.00 %)
                bytes    149998500 (96.15 %)   0 (0.00 %)            1500 (0.00 %)         6000000 (3.84 %)      120 (0.00 %)          0 (0.00 %)
        ");
    }

    #[test]
    fn a_share_is_whole_only_when_it_is_all() {
        assert_eq!(share(3, 3), "3 (100.00 %)");
        assert_eq!(share(9_999_999, 10_000_000), "9999999 (99.99 %)");
        assert_eq!(share(u64::MAX, u128::from(u64::MAX) * 2), format!("{} (50.00 %)", u64::MAX));
        assert_eq!(share(0, 0), "0");
    }
}
