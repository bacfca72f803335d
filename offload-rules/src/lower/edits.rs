//! The actions of a rule that forwards.

use super::{
    Action, Direction, Item, Layout, Meta, NicProfile, Order, Rule, Stage, Table, Unsupported, headers,
    pattern::{Kept, any_ip},
    priority,
};
use crate::{
    MacAddr, VifId,
    flow::{Family, TunnelHeader},
    forwarding::L2Rewrite,
};

/// What a rule that forwards does to a packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rewrite<'a> {
    pub(super) ttl: u8,
    /// TTL is one less than it comes in, whatever it is; else it is written, as is what is made from it.
    pub(super) decrement: bool,
    pub(super) limit: u16,
    pub(super) encap: Option<&'a TunnelHeader>,
    pub(super) l2: &'a L2Rewrite,
    pub(super) out: VifId,
    /// The IPsec tunnel that it goes into.
    pub(super) seal: Option<VifId>,
}

/// The actions of a rule that forwards.
#[derive(Debug)]
pub(super) struct Edits {
    pub(super) actions: Vec<Action>,
    /// The rule of the side of sending that finishes what the actions begin.
    pub(super) before: Option<Rule>,
    /// What of the tag that comes in decides what is sent.
    pub(super) kept: Kept,
}

/// # Errors
/// What the NIC does not do.
pub(super) fn edits(direction: &Direction, rewrite: &Rewrite<'_>, profile: &NicProfile) -> Result<Edits, Unsupported> {
    let arrival = &direction.arrival;
    let one_tag = matches!(arrival.tags, [Some(_), None]);
    let editor = Editor {
        direction,
        rewrite,
        profile,
        tci_in: headers::tci_in(arrival),
        popped: one_tag && !profile.matches.no_more_tags.value,
    };
    let mut actions = Vec::with_capacity(9);
    let kept = if arrival.tunnel.is_some() || rewrite.encap.is_some() {
        editor.push_exchange(&mut actions)?;
        // A priority tag without priority and eligibility leaves the tag's own.
        match (editor.tci_in, rewrite.l2.tags()) {
            (None, _) | (_, 0) => Kept::None,
            (Some(tci), _) if tci & 0x0fff == 0 => Kept::All,
            _ => Kept::Priority,
        }
    } else {
        editor.push_in_place(&mut actions)?
    };
    let mut before = None;
    match profile.layout {
        Layout::Hairpin => {
            let to_send = editor.to_send()?;
            if !to_send.is_empty() {
                let stage = Stage::ToSend(to_send.as_slice().into());
                actions.push(Action::SetToSend(stage.clone()));
                before = Some(editor.egress(stage, to_send));
            }
            actions.push(Action::Hairpin(rewrite.out));
        }
        // Which session a tunnel seals with is in one rule of the next table, so that a rekey leaves flows alone.
        _ if rewrite.seal.is_some() => actions.push(Action::Jump(Table::Seal)),
        _ => actions.push(Action::Port(rewrite.out)),
    }
    Ok(Edits { actions, before, kept })
}

struct Editor<'a> {
    direction: &'a Direction,
    rewrite: &'a Rewrite<'a>,
    profile: &'a NicProfile,
    tci_in: Option<u16>,
    /// The tag is off when the rule is met.
    popped: bool,
}

impl Editor<'_> {
    /// Do tunnels and tags go on at the side of sending?
    fn later(&self) -> bool {
        self.profile.layout == Layout::Hairpin
    }

    fn family(&self) -> Family {
        self.direction.key.family()
    }

    fn push_ttl(&self, actions: &mut Vec<Action>) {
        if self.rewrite.decrement {
            actions.push(Action::DecTtl);
        } else if self.rewrite.ttl > 0 {
            let ttl = self.direction.arrival.ttl - self.rewrite.ttl;
            actions.push(Action::SetTtl { version: self.direction.key.version, ttl });
        }
    }

    fn push_meta(&self, actions: &mut Vec<Action>) {
        actions.extend(self.rewrite.seal.map(|tunnel| Action::SetMeta(Meta::ToSeal(tunnel))));
    }

    /// A tunnel on either side: the headers before the IP packet come off, others are put on. What comes off a tunnel comes off first,
    /// and what goes into one goes in last: so that the TTL that is written is that of the packet that goes on.
    fn push_exchange(&self, actions: &mut Vec<Action>) -> Result<(), Unsupported> {
        let arrival = &self.direction.arrival;
        let both = arrival.tunnel.is_some() && self.rewrite.encap.is_some();
        if both && !self.later() && !self.profile.does.tunnel_to_tunnel.value {
            return Err(Unsupported::TunnelToTunnel);
        }
        if arrival.tunnel.is_some()
            && self.rewrite.encap.is_none()
            && self.rewrite.l2.tags() > self.profile.does.vlan_tags.value
        {
            return Err(Unsupported::Vlan);
        }
        if arrival.tunnel.is_some() {
            let on = if self.rewrite.encap.is_some() {
                headers::plain(self.rewrite.l2, self.family())
            } else {
                headers::ethernet(self.rewrite.l2, headers::ethertype(self.family()), self.tci_in)
            };
            actions.push(Action::Reformat { off: headers::taken_off(arrival, self.family(), self.popped), on });
        }
        actions.push(Action::Count);
        self.push_ttl(actions);
        self.push_meta(actions);
        if let (Some(header), false) = (self.rewrite.encap, self.later()) {
            actions.push(self.tunnel_on(header));
        }
        Ok(())
    }

    /// Ethernet off, Ethernet and the tunnel on.
    fn tunnel_on(&self, header: &TunnelHeader) -> Action {
        let arrival = &self.direction.arrival;
        let off = if arrival.tunnel.is_some() {
            headers::untagged(self.family())
        } else {
            headers::taken_off(arrival, self.family(), self.popped)
        };
        let mut on = headers::ethernet(self.rewrite.l2, 0x0800, self.tci_in);
        let dscp = header.dscp.0.get(usize::from(arrival.tos >> 2)).copied().unwrap_or(0);
        let outer = headers::Outer {
            // RFC 6040 §4.1: the ECN field is copied.
            tos: dscp << 2 | arrival.tos & 3,
            id: self.direction.ip_id,
            sport: self.direction.tunnel_sport,
            ttl: arrival.ttl - self.rewrite.ttl,
        };
        headers::push_tunnel(&mut on, header, &outer);
        Action::Reformat { off, on }
    }

    /// From vif to vif: addresses, tags and TTL change in place.
    fn push_in_place(&self, actions: &mut Vec<Action>) -> Result<Kept, Unsupported> {
        let does = &self.profile.does;
        let header = self.rewrite.l2.bytes();
        let Some((&dst, &src)) = header.first_chunk::<6>().zip(header.get(6..).and_then(<[u8]>::first_chunk)) else {
            return Err(Unsupported::RewriteL2);
        };
        if !does.set_macs.value {
            return Err(Unsupported::RewriteL2);
        }
        let tags_in = self.direction.arrival.tags.iter().flatten().count() as u8;
        let tags_out = self.rewrite.l2.tags();
        if tags_in.max(tags_out) > does.vlan_tags.value {
            return Err(Unsupported::Vlan);
        }
        let first = headers::tag_out(self.rewrite.l2, 0, self.tci_in);
        // In place, the bit for drop eligibility stays as it came: so it has to be what software writes.
        let in_place = match (first, self.tci_in, self.direction.arrival.tags) {
            (Some((tpid, out)), Some(tci), [Some(tag), None])
                if does.set_vlan.value && tags_out == 1 && !self.popped && !self.later() =>
            {
                tpid == tag.tpid && (out ^ tci) & 0x1000 == 0
            }
            _ => false,
        };
        if !in_place && !self.popped {
            (0..tags_in).for_each(|_| actions.push(Action::PopVlan));
        }
        actions.push(Action::Count);
        let fields = Action::SetMacs { dst: MacAddr(dst), src: MacAddr(src) };
        let push_tags = |actions: &mut Vec<Action>| match first {
            Some((_, tci)) if in_place => {
                actions.push(Action::SetVlan { tci });
                Ok(())
            }
            _ if self.later() => Ok(()),
            _ => self.push_tags(actions),
        };
        let tags_first = does.order.value == Order::TagsFirst;
        if tags_first {
            push_tags(actions)?;
        }
        actions.push(fields);
        self.push_ttl(actions);
        self.push_meta(actions);
        if !tags_first {
            push_tags(actions)?;
        }
        Ok(match (self.tci_in, tags_out) {
            (None, _) | (_, 0) => Kept::None,
            (Some(tci), _) if in_place || tci & 0x0fff == 0 => Kept::All,
            _ => Kept::Priority,
        })
    }

    /// The tags of the frame that leaves: the inner one first, since what is pushed last is outermost.
    fn push_tags(&self, actions: &mut Vec<Action>) -> Result<(), Unsupported> {
        for index in (0..usize::from(self.rewrite.l2.tags())).rev() {
            let (tpid, tci) = headers::tag_out(self.rewrite.l2, index, self.tci_in).ok_or(Unsupported::Vlan)?;
            // No action writes the bit for drop eligibility.
            if tci & 0x1000 != 0 {
                return Err(Unsupported::Vlan);
            }
            actions.push(Action::PushVlan { tpid, tci });
        }
        Ok(())
    }

    /// What is left to do at the side of sending of a hairpin.
    fn to_send(&self) -> Result<Vec<Action>, Unsupported> {
        let mut actions = Vec::new();
        match self.rewrite.encap {
            Some(header) => actions.push(self.tunnel_on(header)),
            None if self.direction.arrival.tunnel.is_some() => {}
            None => self.push_tags(&mut actions)?,
        }
        Ok(actions)
    }

    /// The rule that does it.
    fn egress(&self, stage: Stage, to_send: Vec<Action>) -> Rule {
        let items = vec![
            Item::Port(self.rewrite.out),
            Item::ToSend(stage),
            Item::Eth { dst: None, has_vlan: None },
            any_ip(self.family()),
        ];
        Rule { table: Table::Egress, priority: priority::STAGE, items, actions: to_send }
    }
}
