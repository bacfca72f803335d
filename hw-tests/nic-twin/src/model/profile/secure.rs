//! Rules of inbound IPsec as drivers take them (DPDK 22.11.11 and 24.11.6, read).

use super::super::action::{Action, ActionKind};
use super::super::error::{EINVAL, ErrorKind, FlowError};
use super::super::item::{Item, ItemKind};
use super::Profile;

/// What may be beside SECURITY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secures {
    /// As the guide has it: anything, and a disposition behind it.
    Anything,
    /// SECURITY is the one terminating action: cnxk (roc_npc.c:606 and 827, roc_npc_priv.h:315).
    OneFate,
    /// SECURITY and END; the pattern has an IP item: ixgbe (ixgbe_flow.c:223), txgbe (txgbe_flow.c:189).
    Alone,
    /// SECURITY and END; the pattern is ETH, IP, perhaps UDP, and ESP: iavf (iavf_ipsec_crypto.c:1656 and 1721).
    AloneInPattern,
}

impl Profile {
    /// Checks a rule that names a session.
    pub(crate) fn check_secured(&self, items: &[Item], actions: &[Action]) -> Result<(), FlowError> {
        let is_security = |action: &Action| action.kind() == ActionKind::Security;
        let Some(at) = actions.iter().position(is_security) else { return Ok(()) };
        let refuse = |index, message| Err(FlowError::action(EINVAL, ErrorKind::Action, index, message));
        match self.secures {
            Secures::Anything => return Ok(()),
            Secures::OneFate => {
                return match actions.iter().position(|action| action.kind().is_fate()) {
                    Some(disposition) => refuse(disposition, c"SECURITY is the one terminating action of a rule"),
                    None => Ok(()),
                };
            }
            Secures::Alone | Secures::AloneInPattern => {}
        }
        let void = |action: &Action| action.kind() == ActionKind::Void;
        if let Some(other) = actions.iter().enumerate().position(|(index, action)| index != at && !void(action)) {
            return refuse(other, c"SECURITY goes alone");
        }
        let mut kinds = items.iter().map(|item| item.kind).filter(|kind| *kind != ItemKind::Void);
        let is_ip = |kind: &ItemKind| matches!(kind, ItemKind::Ipv4 | ItemKind::Ipv6);
        let fits = if self.secures == Secures::Alone {
            kinds.any(|kind| is_ip(&kind))
        } else {
            let kinds: Vec<ItemKind> = kinds.collect();
            match kinds.as_slice() {
                [ItemKind::Eth, ip, ItemKind::Esp] | [ItemKind::Eth, ip, ItemKind::Udp, ItemKind::Esp] => is_ip(ip),
                _ => false,
            }
        };
        if !fits {
            return Err(FlowError::new(EINVAL, ErrorKind::Item, c"this pattern goes with no session"));
        }
        Ok(())
    }
}
