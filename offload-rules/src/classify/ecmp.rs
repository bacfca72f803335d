//! The choice of a composite's member.
//!
//! A flow's slot is its home. It stays while its member is usable; when the member is lost, only its own flows move (to members
//! chosen by weighted rendezvous hashing, so that stateless traffic does not shuffle either), and when it returns they
//! move back. A member whose gateway does not answer is lost, unless that is true of all.

use super::{
    Candidate, Ingress,
    usable::{DeadGateway, is_usable, leads_to},
    walk::Reads,
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
///
/// Notes those members only that a flow which keeps its home depends on: the home, and when it is lost, those that were tried up to
/// the one that carries the flow meanwhile. That another member comes or goes concerns other flows.
pub(super) fn choose(
    read: &mut Reads<'_>,
    snapshot: &Snapshot,
    members: &[Option<Member>],
    prior: Option<u8>,
    other: Option<Ingress>,
    hash: u64,
) -> Option<Choice> {
    let all = || {
        let numbered = (0..=u8::MAX).zip(members);
        numbered.filter_map(|(home, member)| member.map(|member| Choice { home, member }))
    };
    if read.is_traced() {
        if prior.is_none() && other.is_none() {
            return choose_traced(read, snapshot, &all().collect::<Vec<_>>(), hash);
        }
        read.blur();
    }
    for dead in [DeadGateway::Unusable, DeadGateway::Usable] {
        let usable =
            |read: &mut Reads<'_>, choice: &Choice| is_usable(read, snapshot, choice.member.nexthop, dead, DEPTH);
        let first = match (prior, other) {
            (Some(home), _) => all().find(|choice| choice.home == home),
            // This choice is made once: what it is made by need not be noted.
            (None, Some(other)) => {
                let aside = &mut read.aside();
                all().find(|choice| usable(aside, choice) && leads_to(aside, choice.member.nexthop, other, DEPTH))
            }
            (None, None) => None,
        };
        if let Some(choice) = first.filter(|choice| usable(read, choice)) {
            return Some(choice);
        }
        let ranked = ranked(all(), hash);
        if let Some((rank, choice)) = ranked.into_iter().enumerate().find(|(_, choice)| usable(read, choice)) {
            // Which of all is first, another packet's hash tells. In which order others were tried is this one's alone.
            if rank == 0 && dead == DeadGateway::Unusable {
                read.first(|| all().map(|choice| choice.candidate()).collect(), choice.home);
            } else {
                read.blur();
            }
            // A home that is lost for now: the flow moves but remembers it.
            return Some(Choice { home: prior.unwrap_or(choice.home), ..choice });
        }
    }
    None
}

impl Choice {
    const fn candidate(&self) -> Candidate {
        Candidate { slot: self.home, weight: self.member.weight }
    }
}

/// A choice for all packets without a flow that the same members are usable for: what the hash decides is noted apart from them.
fn choose_traced(read: &mut Reads<'_>, snapshot: &Snapshot, all: &[Choice], hash: u64) -> Option<Choice> {
    for dead in [DeadGateway::Unusable, DeadGateway::Usable] {
        let usable = all.iter().filter(|choice| is_usable(read, snapshot, choice.member.nexthop, dead, DEPTH));
        let usable: Vec<Candidate> = usable.map(Choice::candidate).collect();
        if let Some(slot) = draw(&usable, hash) {
            read.member(usable.into_iter());
            return all.iter().find(|choice| choice.home == slot).copied();
        }
    }
    None
}

/// The slot of the member that a flow with this hash is sent to, where nothing but the hash decides. `None`: there is no member.
#[inline]
#[must_use]
pub fn draw(usable: &[Candidate], hash: u64) -> Option<u8> {
    let first = usable.first()?;
    if usable.iter().all(|candidate| candidate.weight == first.weight) {
        // The logarithm falls as its argument grows: the largest draw wins, of several the first.
        let larger = |best: (u64, u8), candidate: &Candidate| {
            let bits = bits(candidate.slot, hash);
            if bits > best.0 { (bits, candidate.slot) } else { best }
        };
        return Some(usable.iter().skip(1).fold((bits(first.slot, hash), first.slot), larger).1);
    }
    let smaller = |a: &&Candidate, b: &&Candidate| lot(a, hash).total_cmp(&lot(b, hash));
    usable.iter().min_by(smaller).map(|candidate| candidate.slot)
}

/// The order of weighted rendezvous hashing: each member draws an exponential with its weight as rate, the smallest is first.
/// Removing a member moves only what it had won.
fn ranked(choices: impl Iterator<Item = Choice>, hash: u64) -> Vec<Choice> {
    let mut drawn: Vec<(f64, u64, Choice)> =
        choices.map(|choice| (lot(&choice.candidate(), hash), bits(choice.home, hash), choice)).collect();
    // Where rounding has made two lots equal, the larger draw is first, as in [`draw`].
    drawn.sort_by(|(a, x, _), (b, y, _)| a.total_cmp(b).then(y.cmp(x)));
    drawn.into_iter().map(|(.., choice)| choice).collect()
}

/// 53 random bits of a slot.
#[inline]
const fn bits(slot: u8, hash: u64) -> u64 {
    scramble(hash ^ scramble(slot as u64 + 1)) >> 11
}

/// What a member draws: an exponential with its weight as rate.
#[inline]
fn lot(candidate: &Candidate, hash: u64) -> f64 {
    // In (0, 1).
    let uniform = (bits(candidate.slot, hash) as f64 + 0.5) / (1u64 << 53) as f64;
    -uniform.ln() / f64::from(candidate.weight)
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

    fn first(of: &[Choice], hash: u64) -> Choice {
        ranked(of.iter().copied(), hash)[0]
    }

    #[test]
    fn weights_are_honoured_within_two_percent() {
        let usable = slots(&[100, 300]);
        let second = (0..100_000u64).filter(|i| first(&usable, scramble(*i)).home == 1).count();
        assert!((73_500..76_500).contains(&second), "{second} of 100000, wanted 75000");
    }

    #[test]
    fn a_lost_member_moves_only_what_it_had() {
        let all = slots(&[1, 1, 1, 1]);
        let fewer: Vec<_> = all.iter().copied().filter(|c| c.home != 2).collect();
        for i in 0..10_000u64 {
            let before = first(&all, scramble(i)).home;
            let after = first(&fewer, scramble(i)).home;
            assert!(before == after || before == 2);
        }
    }
}
