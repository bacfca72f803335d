//! What a NIC can do with flows, by its profile: for operators, before the first flow.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{L4, NicProfile, Origin, Outcome, Shape, Unsupported, canary};
use crate::{VifId, flow::Family};

/// What becomes of the packets of a flow without software, or with less of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ability {
    /// Sent on by the NIC.
    Forwards,
    /// Dropped by the NIC.
    Drops,
    /// Handed to software with the flow's number.
    Marks,
}

/// Kinds of flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    family: Family,
    l4: L4,
    tagged: bool,
}

/// What a NIC of a profile can do: upper bounds, like all that a profile says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    kinds: BTreeMap<(Ability, Origin), BTreeSet<Kind>>,
    /// Why it does not forward even TCP of IPv4 between two vifs without tags.
    obstacle: Option<Unsupported>,
}

impl Abilities {
    /// Asks lowering for a rule of every shape.
    #[must_use]
    pub fn of(profile: &NicProfile) -> Self {
        let mut kinds: BTreeMap<_, BTreeSet<Kind>> = BTreeMap::new();
        let mut obstacle = None;
        // Any two ports: rules differ by them in numbers alone.
        let (Ok(ingress), Ok(egress)) = (VifId::new(1), VifId::new(2)) else { return Self { kinds, obstacle } };
        for shape in Shape::all() {
            let ability = match shape.to {
                Outcome::Tenant | Outcome::Tunnel => Ability::Forwards,
                Outcome::Drop => Ability::Drops,
                Outcome::Mark => Ability::Marks,
            };
            let plain = (shape.from, shape.to, shape.family, shape.l4)
                == (Origin::Tenant, Outcome::Tenant, Family::Inet, L4::Tcp)
                && (shape.tags_in, shape.tags_out, shape.length) == (0, 0, false);
            match canary(&shape, profile, [ingress, egress]) {
                Ok(_) => {
                    let kind = Kind { family: shape.family, l4: shape.l4, tagged: shape.tags_in > 0 };
                    kinds.entry((ability, shape.from)).or_default().insert(kind);
                }
                Err(reason) if plain => obstacle = Some(reason),
                Err(_) => {}
            }
        }
        Self { kinds, obstacle }
    }

    /// Does it do this with any flow?
    #[must_use]
    pub fn can(&self, ability: Ability) -> bool {
        self.kinds.keys().any(|(of, _)| *of == ability)
    }
}

impl fmt::Display for Abilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (ability, verb) in [(Ability::Forwards, "forwards"), (Ability::Drops, "drops"), (Ability::Marks, "marks")] {
            if ability != Ability::Forwards {
                f.write_str("; ")?;
            }
            f.write_str(verb)?;
            let mut some = false;
            for (origin, words) in [(Origin::Tenant, "from tenants"), (Origin::Tunnel, "out of tunnels")] {
                let Some(kinds) = self.kinds.get(&(ability, origin)) else { continue };
                write!(f, "{} {words} ", if some { " and" } else { "" })?;
                write_kinds(f, kinds)?;
                some = true;
            }
            match self.obstacle.filter(|_| ability == Ability::Forwards) {
                _ if some => {}
                Some(reason) => write!(f, " nothing ({reason})")?,
                None => f.write_str(" nothing")?,
            }
        }
        Ok(())
    }
}

/// `IPv4, IPv6 TCP/UDP, tagged only`: a family without a list has all of its protocols.
fn write_kinds(f: &mut fmt::Formatter<'_>, kinds: &BTreeSet<Kind>) -> fmt::Result {
    const ALL: [(L4, &str); 4] = [(L4::Tcp, "TCP"), (L4::Udp, "UDP"), (L4::Sctp, "SCTP"), (L4::Other, "others")];
    let mut first = true;
    for (family, words) in [(Family::Inet, "IPv4"), (Family::Inet6, "IPv6")] {
        let has = |l4: L4| kinds.iter().any(|kind| kind.family == family && kind.l4 == l4);
        let protocols: Vec<&str> = ALL.iter().filter(|(l4, _)| has(*l4)).map(|(_, words)| *words).collect();
        if protocols.is_empty() {
            continue;
        }
        f.write_str(if std::mem::take(&mut first) { "" } else { ", " })?;
        f.write_str(words)?;
        if protocols.len() < ALL.len() {
            write!(f, " {}", protocols.join("/"))?;
        }
    }
    let any = |tagged: bool| kinds.iter().any(|kind| kind.tagged == tagged);
    match (any(false), any(true)) {
        (true, false) => f.write_str(", untagged only"),
        (false, true) => f.write_str(", tagged only"),
        _ => Ok(()),
    }
}
