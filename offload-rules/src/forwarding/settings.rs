//! Limits and timers.

/// Limits of a node. Everything is bounded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Flow entries, one direction each.
    pub max_flows: u32,
    /// New flows per second and vif; 0 is not limited.
    pub new_flow_rate_per_vif: u32,
    /// Percent of `max_flows` that half-open TCP flows of one vif may hold.
    pub half_open_percent_per_vif: u32,
    /// ARP and ND entries.
    pub max_neighbours: u32,
    /// Datagrams whose fragments are tracked at once.
    pub max_fragmented_datagrams: u32,
    /// Seconds.
    pub fragment_timeout_secs: u32,
    /// Packets held for one neighbour.
    pub max_held_per_neighbour: u32,
    /// Packets held in all.
    pub max_held: u32,
    /// ICMP errors per second and vif.
    pub icmp_error_rate: u32,
    /// Idle times.
    pub timeouts: Timeouts,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_flows: 1 << 20,
            new_flow_rate_per_vif: 0,
            half_open_percent_per_vif: 25,
            max_neighbours: 16_384,
            max_fragmented_datagrams: 4096,
            fragment_timeout_secs: 10,
            max_held_per_neighbour: 8,
            max_held: 1024,
            icmp_error_rate: 1000,
            timeouts: Timeouts::default(),
        }
    }
}

/// Idle time in seconds after which a flow is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Half-open TCP.
    pub tcp_opening: u32,
    /// Open TCP (RFC 5382 REQ-5).
    pub tcp_established: u32,
    /// One side closed.
    pub tcp_closing: u32,
    /// Both sides closed: TIME_WAIT.
    pub tcp_closed: u32,
    /// UDP (RFC 4787 REQ-5).
    pub udp: u32,
    /// ICMP (RFC 5508 REQ-2).
    pub icmp: u32,
    /// Everything else.
    pub other: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_opening: 30,
            tcp_established: 7440,
            tcp_closing: 240,
            tcp_closed: 60,
            udp: 300,
            icmp: 60,
            other: 120,
        }
    }
}
