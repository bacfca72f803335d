//! Conservation: every packet that a node received is accounted for exactly once.

use std::time::Duration;

use proto::v1;

use super::{LabError, Namespace, Node, wait};

/// Fails unless, within two seconds of quiet, each node's account closes: nothing unaccounted, the sum of drops by reason is the
/// number of dropped packets, and the ports have received what the node has received.
///
/// # Errors
/// [`LabError::Violated`] with the account that does not close.
pub fn assert_conserved(nodes: &[&Node]) -> Result<(), LabError> {
    for node in nodes {
        let mut last = String::new();
        // The counters are read while packets may still be under way: the account has to close, not to be still.
        let closed = wait::until("the packet account to close", Duration::from_secs(3), || {
            let complaints = complaints(node)?;
            last = complaints.join("; ");
            Ok(complaints.is_empty().then_some(()))
        });
        match closed {
            Ok(()) => {}
            Err(LabError::Timeout { .. }) => {
                return Err(LabError::Violated(format!("{}: packets are not conserved: {last}", node.name())));
            }
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

fn complaints(node: &Node) -> Result<Vec<String>, LabError> {
    let status = node.client().status()?;
    let drops: u64 = node.client().drops()?.iter().map(|drop| drop.packets).sum();
    let vifs = node.client().vifs()?;
    let account = status.packets.unwrap_or_default();
    let mut complaints = Vec::new();
    let sum = account.forwarded + account.punted + account.consumed + account.dropped + account.held;
    if account.unaccounted != 0 || sum != account.received {
        complaints.push(format!("received is not forwarded + punted + consumed + dropped + held: {account:?}"));
    }
    if drops != account.dropped {
        complaints.push(format!("drops by reason sum up to {drops}, the account says {}", account.dropped));
    }
    let ports: u64 = vifs.iter().filter_map(|vif| vif.port.as_ref()).map(|port| port.rx_packets).sum();
    if ports != account.received {
        complaints.push(format!("the ports received {ports} frames, the account says {}", account.received));
    }
    Ok(complaints)
}

/// Frames that the kernel could not hand to the node because its rings were full (receive errors of all ports).
#[must_use]
pub fn lost_in_rings(vifs: &[v1::VifInfo]) -> u64 {
    vifs.iter().filter_map(|vif| vif.port.as_ref()).map(|port| port.rx_errors).sum()
}

/// Packets that somebody has counted as lost so far: nodes (drops by reason, frames that their rings had no room for), and the
/// kernels of these namespaces (drops of their devices, none of which a node drives).
///
/// # Errors
/// [`LabError::Api`], and [`LabError::Io`] when a namespace cannot be entered.
pub fn counted_losses(nodes: &[&Node], kernels: &[&Namespace]) -> Result<u64, LabError> {
    let mut lost = 0;
    for node in nodes {
        let packets = node.client().status()?.packets.unwrap_or_default();
        lost += packets.dropped + lost_in_rings(&node.client().vifs()?);
    }
    for namespace in kernels {
        lost += namespace.device_drops()?;
    }
    Ok(lost)
}
