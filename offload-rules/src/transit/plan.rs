//! The rules for transit that a snapshot asks for, kept up to date by what changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    Admission, Departure, IngressKey, Reason, RuleKey, Scope, TransitRule, ask,
    ask::Answer,
    family,
    ingress::{self, Entrance},
    prefixes::{Prefixes, Special},
};
use crate::{
    VrfId,
    flow::{Dependency, Family},
    forwarding::{Changes, RouteAnswer, Snapshot},
    lower::{Arrival, Direction, L4},
};

/// TTL and hop limit of what goes into tunnels, as it comes in: those that hosts begin with, less a few hops.
const TTLS: [u8; 18] = [64, 63, 62, 61, 60, 59, 128, 127, 126, 125, 124, 123, 255, 254, 253, 252, 251, 250];
/// Prefixes looked at for each rule that there is room for: most need two or more.
const LOOKED_AT: usize = 2;
/// Of the room of a VRF, the part for those that admit: one of so many.
const SOURCES: usize = 3;
/// When one of so many places is free again, those for which there was none are looked at.
const ROOM: usize = 8;

/// Bounds of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rules, at most; the shortest prefixes come first.
    pub rules: usize,
    /// UDP source port of all tunnels; `None`: each way has its own.
    pub entropy: Option<u16>,
}

/// How many prefixes, and why some have no rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Ways in.
    pub ingresses: usize,
    /// Prefixes, counted once for each way in, whose transit has rules.
    pub prefixes: usize,
    /// The same of those that have none, by reason.
    pub reasons: BTreeMap<Reason, usize>,
}

/// What a way of a route is asked by (family, nexthop, label): routes to one nexthop with one label go one way.
type Asked = (Family, u32, u32);

/// One way in.
#[derive(Debug)]
struct State {
    entrance: Entrance,
    /// Routes whose prefixes packets may come from, with the far ends of the tunnels that they may come out of (`None`: out of none).
    sources: BTreeMap<Asked, Vec<Option<Ipv4Addr>>>,
    /// How packets go on by a route: TCP, UDP.
    ways: BTreeMap<Asked, Result<[Arc<Direction>; 2], Reason>>,
    /// A source that may come in, of each family: what destinations are asked with.
    admitted: [Option<(IpAddr, Option<Ipv4Addr>)>; 2],
    /// Prefixes that have been looked at, with why they have no rule.
    prefixes: BTreeMap<IpNet, Result<(), Reason>>,
}

impl State {
    fn new(entrance: Entrance) -> Self {
        let (sources, ways) = (BTreeMap::new(), BTreeMap::new());
        Self { entrance, sources, ways, admitted: [None; 2], prefixes: BTreeMap::new() }
    }
}

/// The rules that a snapshot asks for.
#[derive(Debug, Default)]
pub struct Plan {
    ingresses: BTreeMap<IngressKey, State>,
    prefixes: BTreeMap<VrfId, Prefixes>,
    special: Special,
    dependencies: BTreeSet<Dependency>,
    rules: BTreeMap<RuleKey, TransitRule>,
    /// There was no room for all.
    starved: bool,
}

impl Plan {
    /// The rule of a key, if it is wanted.
    #[must_use]
    pub fn rule(&self, key: &RuleKey) -> Option<&TransitRule> {
        self.rules.get(key)
    }

    /// All rules.
    pub fn rules(&self) -> impl Iterator<Item = (&RuleKey, &TransitRule)> {
        self.rules.iter()
    }

    /// What it comes to.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut summary = Summary { ingresses: self.ingresses.len(), ..Summary::default() };
        for state in self.ingresses.values() {
            let left = self.prefixes.get(&state.entrance.vrf).map_or(0, Prefixes::len);
            let left = left.saturating_sub(state.prefixes.len());
            if left > 0 {
                *summary.reasons.entry(Reason::Budget).or_default() += left;
            }
            for why in state.prefixes.values() {
                match why {
                    Ok(()) => summary.prefixes += 1,
                    Err(why) => *summary.reasons.entry(*why).or_default() += 1,
                }
            }
        }
        summary
    }

    /// Why the prefix of a route has no rule for what comes in at these ways in, each with the answer.
    pub fn explain(&self, vrf: VrfId, net: IpNet) -> impl Iterator<Item = (IngressKey, Result<(), Reason>)> {
        let of_vrf = self.ingresses.iter().filter(move |(_, state)| state.entrance.vrf == vrf);
        of_vrf.map(move |(key, state)| (*key, state.prefixes.get(&net).copied().unwrap_or(Err(Reason::Budget))))
    }

    /// Nothing is wanted any more. Returns the rules that were.
    pub fn clear(&mut self) -> Vec<RuleKey> {
        let rules = std::mem::take(&mut self.rules);
        *self = Self::default();
        rules.into_keys().collect()
    }

    /// Derives everything anew. Returns the rules that have come, gone or changed.
    pub fn derive(&mut self, snapshot: &Snapshot, limits: &Limits) -> Vec<RuleKey> {
        let before = std::mem::take(self);
        self.special = Special::of(snapshot);
        self.ingresses = ingress::of(snapshot).into_iter().map(|(key, entrance)| (key, State::new(entrance))).collect();
        let vrfs: BTreeSet<VrfId> = self.ingresses.values().map(|state| state.entrance.vrf).collect();
        let count = vrfs.len();
        for (at, vrf) in (1..).zip(vrfs) {
            // What a VRF leaves is for those that follow.
            self.derive_vrf(snapshot, vrf, &Limits { rules: limits.rules.saturating_mul(at) / count, ..*limits });
        }
        let gone = before.rules.keys().filter(|key| !self.rules.contains_key(key));
        let changed = self.rules.iter().filter(|(key, rule)| before.rules.get(key) != Some(rule)).map(|(key, _)| key);
        gone.chain(changed).copied().collect()
    }

    /// Follows what has changed to this snapshot. Returns the rules that have come, gone or changed; nothing is asked where
    /// nothing has changed that an answer depends on.
    pub fn follow<'a>(
        &mut self,
        snapshot: &Snapshot,
        changes: impl Iterator<Item = &'a Changes> + Clone,
        limits: &Limits,
    ) -> Vec<RuleKey> {
        if changes.clone().any(|changes| self.is_touched_by(changes)) {
            return self.derive(snapshot, limits);
        }
        let routes = changes.flat_map(Changes::routes);
        let own: BTreeSet<(VrfId, IpNet)> =
            routes.filter(|(vrf, _)| self.prefixes.contains_key(vrf)).copied().collect();
        let mut changed = Vec::new();
        for (vrf, net) in own {
            let there = snapshot.route_of(vrf, net).is_some();
            let Some(prefixes) = self.prefixes.get_mut(&vrf) else { continue };
            prefixes.follow(net, there);
            for net in [Some(net), prefixes.above(&net)].into_iter().flatten() {
                if !self.renew(snapshot, (vrf, net), limits, &mut changed) {
                    return changed.into_iter().chain(self.derive(snapshot, limits)).collect();
                }
            }
        }
        changed
    }

    /// Does a change touch more than the prefixes of routes?
    pub(super) fn is_touched_by(&self, changes: &Changes) -> bool {
        let read = |object: &Dependency| match object {
            Dependency::Addresses => true,
            object => self.dependencies.contains(object),
        };
        let far_end = |dependency: &Dependency| match dependency {
            Dependency::Route(vrf, address) => changes.covers(*vrf, *address),
            _ => false,
        };
        changes.touches_arrivals()
            || changes.touches_vrfs()
            || changes.touches(read)
            || changes.lists().keys().any(|list| self.dependencies.contains(&Dependency::Acl(*list)))
            || !changes.routes().is_empty() && self.dependencies.iter().any(far_end)
    }

    /// Looks at one prefix anew. False: what is asked about destinations has changed, or room has come or gone.
    fn renew(
        &mut self,
        snapshot: &Snapshot,
        (vrf, net): (VrfId, IpNet),
        limits: &Limits,
        changed: &mut Vec<RuleKey>,
    ) -> bool {
        let was_full = self.rules.len() >= limits.rules;
        let of_vrf = |state: &&State| state.entrance.vrf == vrf;
        let known = self.ingresses.values().filter(of_vrf).any(|state| state.prefixes.contains_key(&net));
        if was_full && !known {
            // Its place is taken, by shorter ones most likely.
            self.starved = true;
            return true;
        }
        let source = |state: &State| state.admitted.get(index(family(&net))).copied().flatten();
        let asked_with = |state: &State| source(state).is_some_and(|(source, _)| net.contains(&source));
        let asked_with = self.ingresses.values().filter(of_vrf).any(asked_with);
        let mut before = self.withdraw(vrf, net);
        if asked_with {
            changed.extend(before.into_keys());
            return false;
        }
        let admitting = self.admitting();
        let prefixes = self.prefixes.get(&vrf);
        if let Some((check, true)) = prefixes.map(|all| (all.check(&net, &self.special), all.contains(&net))) {
            self.look_at(snapshot, (vrf, net, check), Side::Source, limits);
            self.look_at(snapshot, (vrf, net, check), Side::Destination, limits);
            if self.rules.len() > limits.rules {
                self.withdraw(vrf, net);
                self.starved = true;
            }
        }
        for key in self.ingresses.keys() {
            let after = of_prefix(&self.rules, *key, net);
            changed.extend(after.filter(|rule| before.remove(rule).as_ref() != self.rules.get(rule)));
        }
        changed.extend(before.into_keys());
        let room = self.rules.len() < limits.rules - limits.rules / ROOM;
        // The first that may come in there at all: now destinations can be asked about.
        self.admitting() == admitting && !(self.starved && room)
    }

    /// Takes out the rules of a prefix, for all ways into its VRF.
    fn withdraw(&mut self, vrf: VrfId, net: IpNet) -> BTreeMap<RuleKey, TransitRule> {
        let mut out = BTreeMap::new();
        for (key, state) in self.ingresses.iter_mut().filter(|(_, state)| state.entrance.vrf == vrf) {
            state.prefixes.remove(&net);
            let rules: Vec<RuleKey> = of_prefix(&self.rules, *key, net).collect();
            out.extend(rules.into_iter().filter_map(|rule| self.rules.remove_entry(&rule)));
        }
        out
    }

    /// Derives the rules of one VRF: as many as there is room for, the shortest prefixes first.
    fn derive_vrf(&mut self, snapshot: &Snapshot, vrf: VrfId, limits: &Limits) {
        let prefixes = Prefixes::of(snapshot, vrf);
        let chosen = prefixes.by_length(limits.rules.saturating_mul(LOOKED_AT));
        self.starved |= chosen.len() < prefixes.len();
        let room = limits.rules.saturating_sub(self.rules.len());
        let sources = self.rules.len() + room / SOURCES;
        // Who may come in is known before anything is asked with it.
        for (side, most) in [(Side::Source, sources), (Side::Destination, limits.rules)] {
            for net in &chosen {
                self.look_at(snapshot, (vrf, *net, prefixes.check(net, &self.special)), side, limits);
                if self.rules.len() > most {
                    self.withdraw(vrf, *net);
                    self.starved = true;
                    break;
                }
            }
        }
        self.prefixes.insert(vrf, prefixes);
    }

    /// Ways in, by family, that somebody may come in by.
    fn admitting(&self) -> usize {
        self.ingresses.values().flat_map(|state| &state.admitted).flatten().count()
    }

    /// The rules of one prefix, for all ways into its VRF.
    fn look_at(
        &mut self,
        snapshot: &Snapshot,
        (vrf, net, check): (VrfId, IpNet, Result<(), Reason>),
        side: Side,
        limits: &Limits,
    ) {
        let Self { ingresses, rules, dependencies, .. } = self;
        let Some(route) = snapshot.route_of(vrf, net) else { return };
        let answer = RouteAnswer::of(route);
        let asked = (family(&net), answer.nexthop.get(), answer.label);
        for (key, state) in ingresses.iter_mut().filter(|(_, state)| state.entrance.vrf == vrf) {
            let mut wants = Wants {
                snapshot,
                key: *key,
                net,
                asked,
                state,
                rules: &mut *rules,
                limits,
                dependencies: &mut *dependencies,
            };
            match side {
                Side::Source if check.is_ok() => wants.sources(answer),
                Side::Source => {}
                Side::Destination => {
                    let why = check.and_then(|()| wants.destinations());
                    wants.state.prefixes.insert(net, why);
                }
            }
        }
    }
}

/// Which rules of a prefix: those that admit packets from it, or those that forward packets to it. Not the `Side` of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// The rules of one prefix for one way in.
struct Wants<'a> {
    snapshot: &'a Snapshot,
    key: IngressKey,
    net: IpNet,
    asked: Asked,
    state: &'a mut State,
    rules: &'a mut BTreeMap<RuleKey, TransitRule>,
    limits: &'a Limits,
    dependencies: &'a mut BTreeSet<Dependency>,
}

impl Wants<'_> {
    fn sources(&mut self, answer: RouteAnswer) {
        let Self { snapshot, key, net, state, .. } = self;
        let State { entrance, sources, admitted, .. } = &mut **state;
        let known = match sources.get(&self.asked) {
            Some(known) => known,
            None => {
                let outers: Vec<Option<Ipv4Addr>> = match key.tunnel {
                    None => vec![None],
                    Some(_) => ingress::far_ends(snapshot, answer.nexthop).into_iter().map(Some).collect(),
                };
                let mut may = Vec::new();
                for outer in outers {
                    let Answer { value, dependencies } = ask::source(snapshot, entrance, outer, net);
                    self.dependencies.extend(dependencies);
                    may.extend(value.then_some(outer));
                }
                // What leads into a tunnel now may lead elsewhere, and the other way round.
                self.dependencies.insert(Dependency::Nexthop(answer.nexthop));
                if may.is_empty() {
                    // Other prefixes may be told otherwise: it need not be the nexthop that refuses.
                    return;
                }
                sources.entry(self.asked).or_insert(may)
            }
        };
        for outer in known.iter() {
            let arrival = entrance.from(*outer);
            let rule = TransitRule::Source(Admission { arrival, net: *net });
            self.rules.insert(RuleKey::Source { ingress: *key, net: *net, outer: *outer }, rule);
            if let Some(known) = admitted.get_mut(index(family(net))) {
                known.get_or_insert((net.network(), *outer));
            }
        }
    }

    fn destinations(&mut self) -> Result<(), Reason> {
        let Self { snapshot, key, net, asked, state, .. } = self;
        let State { entrance, ways, admitted, .. } = &mut **state;
        let Some(from) = admitted.get(index(family(net))).copied().flatten() else {
            // Nobody may come in here: nothing goes on.
            return Ok(());
        };
        if !ways.contains_key(asked) {
            let mut ask = |l4| {
                let Answer { value, dependencies } = ask::destination(snapshot, entrance, from, (net, l4));
                self.dependencies.extend(dependencies);
                value
            };
            let way = ask(L4::Tcp).and_then(|tcp| Ok([tcp, ask(L4::Udp)?]));
            self.dependencies
                .insert(Dependency::Nexthop(crate::NexthopId::new(asked.1).unwrap_or(crate::NexthopId::NONE)));
            match way {
                // Of all prefixes that lead there; another reason may be this one's.
                Ok(_) | Err(Reason::Spread | Reason::Unresolved | Reason::Egress) => _ = ways.insert(*asked, way),
                Err(reason) => return Err(reason),
            }
        }
        let way = match ways.get(asked) {
            Some(Ok(way)) => way,
            Some(Err(reason)) => return Err(*reason),
            None => return Err(Reason::Packet),
        };
        for (direction, l4) in way.iter().zip([L4::Tcp, L4::Udp]) {
            let tunnel = direction.program.forward().is_some_and(|forward| forward.encap.is_some());
            if !tunnel {
                let departure = Departure { net: *net, direction: Arc::clone(direction), scope: Scope::Any };
                let key = RuleKey::Destination { ingress: *key, net: *net, l4, ttl: 0 };
                self.rules.insert(key, TransitRule::Destination(departure));
                continue;
            }
            for ttl in TTLS {
                let arrival = Arrival { ttl, ..direction.arrival };
                let tunnel_sport = self.limits.entropy.unwrap_or(direction.tunnel_sport);
                let direction = Arc::new(Direction { arrival, tunnel_sport, ..(**direction).clone() });
                let departure = Departure { net: *net, direction, scope: Scope::Exact };
                let key = RuleKey::Destination { ingress: *key, net: *net, l4, ttl };
                self.rules.insert(key, TransitRule::Destination(departure));
            }
        }
        Ok(())
    }
}

const fn index(family: Family) -> usize {
    match family {
        Family::Inet => 0,
        Family::Inet6 => 1,
    }
}

/// The rules of an ingress for one prefix.
fn of_prefix(
    rules: &BTreeMap<RuleKey, TransitRule>,
    ingress: IngressKey,
    net: IpNet,
) -> impl Iterator<Item = RuleKey> + use<'_> {
    let sources = RuleKey::Source { ingress, net, outer: None }..=RuleKey::Source {
        ingress,
        net,
        outer: Some(Ipv4Addr::BROADCAST),
    };
    let first = RuleKey::Destination { ingress, net, l4: L4::Tcp, ttl: 0 };
    let destinations = first..=RuleKey::Destination { ingress, net, l4: L4::Other, ttl: u8::MAX };
    rules.range(sources).chain(rules.range(destinations)).map(|(key, _)| *key)
}
