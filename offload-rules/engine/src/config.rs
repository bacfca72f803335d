//! Bounds and times of the engine.

use offload_rules::place::Hysteresis;

/// Bounds and times. All times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Workers of the node.
    pub workers: u16,
    /// Flow pairs that the engine keeps in mind, in the NIC or not.
    pub max_flows: usize,
    /// Rules for transit without flows, at most; a quarter of the table where its size is known. 0: none.
    pub transit_rules: usize,
    /// UDP source port of the tunnels of packets without flows; `None`: each way has its own.
    pub entropy: Option<u16>,
    /// Operations begun in one poll: a synchronous driver takes its time for each.
    pub operations_per_poll: usize,
    /// Counters read in one poll.
    pub queries_per_poll: usize,
    /// Time between two readings of a counter, unless the NIC refreshes less often.
    pub query_interval: u64,
    /// Time between two readings of what sessions have done.
    pub session_interval: u64,
    /// Sessions have numbers above this one: distinct from those of an earlier engine, which workers may not have released yet.
    pub sessions_above: u32,
    /// An operation without completion for this long has timed out.
    pub timeout: u64,
    /// An operation without completion for this long never gets one: everything is flushed and installed anew.
    pub give_up: u64,
    /// Time for the canaries at start. What has not been tried then is tried by the first flow of its shape.
    pub probe: u64,
    /// First wait before a failed operation is tried again; doubles with each attempt.
    pub retry: u64,
    /// Longest wait.
    pub retry_cap: u64,
    /// When a flow that carries more takes the place of another.
    pub hysteresis: Hysteresis,
    /// Flows of one shape, none of them seen by the NIC, after which the shape counts as not honoured.
    pub not_honoured: u32,
    /// Checks in a row that find packets which a shape's rules have counted not transmitted, after which it counts as not honoured; 0:
    /// ports are not asked.
    pub egress_checks: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            workers: 1,
            max_flows: 1 << 20,
            transit_rules: 4096,
            entropy: None,
            operations_per_poll: 1024,
            queries_per_poll: 512,
            query_interval: 500,
            session_interval: 200,
            sessions_above: 0,
            timeout: 2_000,
            give_up: 60_000,
            probe: 1_000,
            retry: 100,
            retry_cap: 30_000,
            hysteresis: Hysteresis::default(),
            not_honoured: 3,
            egress_checks: 2,
        }
    }
}

/// How long to wait before attempt `attempt` (1 is the first that follows a failure): doubling up to a cap, spread by a quarter so
/// that what failed together is not tried again together. The same seed always waits the same time.
pub(super) fn backoff(config: &Config, attempt: u32, seed: u64) -> u64 {
    let doubled = config.retry.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(config.retry_cap).max(1);
    // The finaliser of splitmix64 (Steele, Lea, Flood 2014).
    let mut z = seed.wrapping_add(u64::from(attempt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    doubled - doubled / 4 + z % (doubled / 2 + 1)
}
