//! Limits and timers.

use crate::forwarding::{Settings, error::Findings};

/// Largest neighbour table: slots are bits of a word list that is copied with each change.
const MAX_NEIGHBOURS: u32 = 1 << 20;

pub(super) fn check(settings: &Settings, found: &mut Findings) {
    let timeouts = &settings.timeouts;
    let ranges = [
        ("max_flows", settings.max_flows, 64, 1 << 28),
        ("half_open_percent_per_vif", settings.half_open_percent_per_vif, 1, 100),
        ("max_neighbours", settings.max_neighbours, 1, MAX_NEIGHBOURS),
        ("max_fragmented_datagrams", settings.max_fragmented_datagrams, 1, 1 << 20),
        ("fragment_timeout_secs", settings.fragment_timeout_secs, 1, 120),
        ("max_held_per_neighbour", settings.max_held_per_neighbour, 1, 1 << 10),
        ("max_held", settings.max_held, 1, 1 << 20),
        ("timeouts.tcp_opening_secs", timeouts.tcp_opening, 1, u32::MAX),
        ("timeouts.tcp_established_secs", timeouts.tcp_established, 1, u32::MAX),
        ("timeouts.tcp_closing_secs", timeouts.tcp_closing, 1, u32::MAX),
        ("timeouts.tcp_closed_secs", timeouts.tcp_closed, 1, u32::MAX),
        ("timeouts.udp_secs", timeouts.udp, 1, u32::MAX),
        ("timeouts.icmp_secs", timeouts.icmp, 1, u32::MAX),
        ("timeouts.other_secs", timeouts.other, 1, u32::MAX),
    ];
    for (field, value, min, max) in ranges {
        if !(min..=max).contains(&value) {
            found.push("settings", field, format_args!("{value} is out of range; use {min}..={max}"));
        }
    }
    if settings.max_held_per_neighbour > settings.max_held {
        let problem = format_args!(
            "{} is more than max_held, {}; lower it or raise max_held",
            settings.max_held_per_neighbour, settings.max_held
        );
        found.push("settings", "max_held_per_neighbour", problem);
    }
}
