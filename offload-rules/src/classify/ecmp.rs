//! The choice of a composite's member.
//!
//! A flow's slot is its home. It stays while its member is usable; when the member is lost, only its own flows move (to members
//! chosen by weighted rendezvous hashing, so that stateless traffic does not shuffle either), and when it returns they
//! move back. A member whose gateway does not answer is lost, unless that is true of all.

use super::{
    Candidate, Ingress,
    walk::{DeadGateway, Reads, is_usable, leads_to},
};
use crate::forwarding::{Member, Snapshot};

/// Levels of nexthops below a member that are looked at: a tunnel, a composite of IPsec tunnels, one of them, a composite of links.
const DEPTH: u8 = 4;

/// A member, and the slot that the flow calls home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) home: u8,
    pub(super) member: Member,
}

/// Chooses a member; `None` when none is usable.
pub(super) fn choose(
    read: &mut Reads<'_>,
    snapshot: &Snapshot,
    members: &[Option<Member>],
    prior: Option<u8>,
    other: Option<Ingress>,
    hash: u64,
) -> Option<Choice> {
    let mut usable = Vec::with_capacity(members.len());
    for dead in [DeadGateway::Unusable, DeadGateway::Usable] {
        for (slot, member) in members.iter().enumerate() {
            if let (Some(member), Ok(slot)) = (member, u8::try_from(slot))
                && is_usable(read, snapshot, member.nexthop, dead, DEPTH)
            {
                usable.push(Choice { home: slot, member: *member });
            }
        }
        if !usable.is_empty() {
            break;
        }
    }
    if prior.is_some() || other.is_some() {
        read.blur();
    }
    read.member(usable.iter().map(Choice::candidate));
    let mut preferred = || {
        let other = other?;
        usable.iter().copied().find(|choice| leads_to(read, choice.member.nexthop, other, DEPTH))
    };
    match prior {
        Some(home) => match usable.iter().find(|choice| choice.home == home) {
            Some(choice) => Some(*choice),
            // The home is lost for now: the flow moves but remembers it.
            None => rendezvous(&usable, hash).map(|choice| Choice { home, ..choice }),
        },
        None => preferred().or_else(|| rendezvous(&usable, hash)),
    }
}

impl Choice {
    const fn candidate(&self) -> Candidate {
        Candidate { slot: self.home, weight: self.member.weight }
    }
}

fn rendezvous(usable: &[Choice], hash: u64) -> Option<Choice> {
    let winner = win(usable.iter().map(Choice::candidate), hash)?;
    usable.iter().copied().find(|choice| choice.home == winner)
}

/// The slot of the member that a flow with this hash is sent to, where nothing but the hash decides. `None`: there is no member.
#[inline]
#[must_use]
pub fn draw(usable: &[Candidate], hash: u64) -> Option<u8> {
    win(usable.iter().copied(), hash)
}

/// Weighted rendezvous hashing: each member draws an exponential with its weight as rate, the smallest wins. Removing a member
/// moves only what it had won.
#[inline]
fn win(usable: impl Iterator<Item = Candidate> + Clone, hash: u64) -> Option<u8> {
    // 53 random bits.
    let bits = |slot: u8| scramble(hash ^ scramble(u64::from(slot) + 1)) >> 11;
    let first = usable.clone().next()?;
    if usable.clone().all(|candidate| candidate.weight == first.weight) {
        // The logarithm falls as its argument grows: the largest draw wins, of several the first.
        let larger = |best: (u64, u8), candidate: Candidate| {
            let bits = bits(candidate.slot);
            if bits > best.0 { (bits, candidate.slot) } else { best }
        };
        return Some(usable.skip(1).fold((bits(first.slot), first.slot), larger).1);
    }
    let lot = |candidate: &Candidate| {
        // In (0, 1).
        let uniform = (bits(candidate.slot) as f64 + 0.5) / (1u64 << 53) as f64;
        -uniform.ln() / f64::from(candidate.weight)
    };
    usable.min_by(|a, b| lot(a).total_cmp(&lot(b))).map(|candidate| candidate.slot)
}

/// The finaliser of SplitMix64.
const fn scramble(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NexthopId;

    fn slots(weights: &[u16]) -> Vec<Choice> {
        let member = |weight| Member { nexthop: NexthopId::new(1).unwrap(), weight, label: None };
        weights.iter().enumerate().map(|(i, w)| Choice { home: i as u8, member: member(*w) }).collect()
    }

    #[test]
    fn weights_are_honoured_within_two_percent() {
        let usable = slots(&[100, 300]);
        let second = (0..100_000u64).filter(|i| rendezvous(&usable, scramble(*i)).unwrap().home == 1).count();
        assert!((73_500..76_500).contains(&second), "{second} of 100000, wanted 75000");
    }

    #[test]
    fn a_lost_member_moves_only_what_it_had() {
        let all = slots(&[1, 1, 1, 1]);
        let fewer: Vec<_> = all.iter().copied().filter(|c| c.home != 2).collect();
        for i in 0..10_000u64 {
            let before = rendezvous(&all, scramble(i)).unwrap().home;
            let after = rendezvous(&fewer, scramble(i)).unwrap().home;
            assert!(before == after || before == 2);
        }
    }
}
