//! `neigh`.

use std::fmt;

use proto::v1::{ListNeighboursResponse, NeighbourState};

use super::text::row;

/// A line for each neighbour.
///
/// # Errors
/// Those of `out`.
pub fn render(response: &ListNeighboursResponse, out: &mut impl fmt::Write) -> fmt::Result {
    const WIDTHS: [usize; 5] = [11, 41, 19, 12, 11];
    row(out, &WIDTHS, &[&"Vif", &"Address", &"MAC", &"State", &"Nexthop", &"Held"])?;
    for neighbour in &response.neighbours {
        let mac = if neighbour.mac.is_empty() { "-" } else { &neighbour.mac };
        let nexthop = if neighbour.nexthop == 0 { "-".to_owned() } else { neighbour.nexthop.to_string() };
        let state = state_name(neighbour.state());
        let vif = format!("vif0/{}", neighbour.vif);
        row(out, &WIDTHS, &[&vif, &neighbour.address, &mac, &state, &nexthop, &neighbour.held_packets])?;
    }
    Ok(())
}

/// State of a neighbour, in a word.
pub(super) const fn state_name(state: NeighbourState) -> &'static str {
    match state {
        NeighbourState::Unknown => "Unknown",
        NeighbourState::Resolving => "Resolving",
        NeighbourState::Reachable => "Reachable",
        NeighbourState::Stale => "Stale",
        NeighbourState::Failed => "Failed",
        NeighbourState::Probe => "Probe",
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::NeighbourInfo;

    use super::*;

    #[test]
    fn neighbours_are_listed_with_their_state_and_what_waits_for_them() {
        let neighbours = vec![
            NeighbourInfo {
                vif: 4113,
                address: "192.168.3.100".into(),
                mac: "00:0c:29:b7:22:94".into(),
                state: NeighbourState::Reachable.into(),
                nexthop: 16_777_216,
                held_packets: 0,
            },
            NeighbourInfo {
                vif: 4121,
                address: "fe80:2:0:1:6:0:c0a8:6464".into(),
                state: NeighbourState::Resolving.into(),
                held_packets: 3,
                ..NeighbourInfo::default()
            },
        ];
        let mut text = String::new();
        render(&ListNeighboursResponse { neighbours }, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        Vif        Address                                  MAC                State       Nexthop    Held
        vif0/4113  192.168.3.100                            00:0c:29:b7:22:94  Reachable   16777216   0
        vif0/4121  fe80:2:0:1:6:0:c0a8:6464                 -                  Resolving   -          3
        ");
    }
}
