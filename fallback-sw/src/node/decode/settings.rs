//! Limits and timers; 0 is the default.

use offload_rules::forwarding::{Settings, StateError, Timeouts};
use proto::v1 as pb;

use super::fields::Object;

pub(super) fn settings(settings: &pb::Settings, errors: &mut Vec<StateError>) -> Settings {
    let mut object = Object::new("settings", errors);
    let d = Settings::default();
    // Upper limits keep a slip of the pen from asking for more memory than a machine has.
    let mut limit = |field: &str, value: u32, default: u32, max: u32| match value {
        0 => default,
        _ => object.number(field, value, 1, max).unwrap_or(default),
    };
    Settings {
        max_flows: limit("max_flows", settings.max_flows, d.max_flows, 1 << 28),
        new_flow_rate_per_vif: settings.new_flow_rate_per_vif,
        half_open_percent_per_vif: limit(
            "half_open_percent_per_vif",
            settings.half_open_percent_per_vif,
            d.half_open_percent_per_vif,
            100,
        ),
        max_neighbours: limit("max_neighbours", settings.max_neighbours, d.max_neighbours, 1 << 24),
        max_fragmented_datagrams: limit(
            "max_fragmented_datagrams",
            settings.max_fragmented_datagrams,
            d.max_fragmented_datagrams,
            1 << 20,
        ),
        fragment_timeout_secs: limit(
            "fragment_timeout_secs",
            settings.fragment_timeout_secs,
            d.fragment_timeout_secs,
            // RFC 1122 §3.3.2: 60 to 120 seconds is the longest that a receiver waits.
            120,
        ),
        max_held_per_neighbour: limit(
            "max_held_per_neighbour",
            settings.max_held_per_neighbour,
            d.max_held_per_neighbour,
            1 << 16,
        ),
        max_held: limit("max_held", settings.max_held, d.max_held, 1 << 20),
        icmp_error_rate: limit("icmp_error_rate", settings.icmp_error_rate, d.icmp_error_rate, u32::MAX),
        timeouts: settings.timeouts.as_ref().map_or_else(Timeouts::default, timeouts),
    }
}

fn timeouts(timeouts: &pb::Timeouts) -> Timeouts {
    let d = Timeouts::default();
    let or = |value: u32, default: u32| if value == 0 { default } else { value };
    Timeouts {
        tcp_opening: or(timeouts.tcp_opening_secs, d.tcp_opening),
        tcp_established: or(timeouts.tcp_established_secs, d.tcp_established),
        tcp_closing: or(timeouts.tcp_closing_secs, d.tcp_closing),
        tcp_closed: or(timeouts.tcp_closed_secs, d.tcp_closed),
        udp: or(timeouts.udp_secs, d.udp),
        icmp: or(timeouts.icmp_secs, d.icmp),
        other: or(timeouts.other_secs, d.other),
    }
}
