//! The card that a program finds: variables of its environment, and what to tell EAL.

use std::{ffi::OsString, path::PathBuf};

/// The mlx5 driver's steering engine (`dv_flow_en`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// 1: the driver has rdma-core write the rules.
    Software,
    /// 2: rules are work requests to the device.
    Hardware,
}

impl Engine {
    /// The value of `dv_flow_en`.
    #[must_use]
    pub const fn dv_flow_en(self) -> u8 {
        match self {
            Self::Software => 1,
            Self::Hardware => 2,
        }
    }
}

/// Something that fails from the start of the program on; [`crate::Below::fault`] begins one later. The n-th is counted from then on;
/// with 0 none of its kind fails any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The firmware has no room for the n-th table.
    Table(u32),
    /// The firmware has no room for the n-th matcher.
    Matcher(u32),
    /// The firmware has no room for the n-th action.
    Action(u32),
    /// The firmware has no room for the n-th rule.
    Rule(u32),
    /// The n-th allocation of counters fails.
    Counter(u32),
    /// The n-th entry that hardware steering writes completes with an error.
    Entry(u32),
    /// The firmware has no room for any table.
    NoTables,
    /// The firmware has no room for any matcher.
    NoMatchers,
    /// The firmware has no room for any action.
    NoActions,
    /// The firmware has no room for any rule.
    NoRules,
    /// So many entries that hardware steering writes complete with an error, one after the other. The driver tries some of them a second
    /// time, elsewhere.
    Entries(u32),
    /// No allocation of counters succeeds.
    NoCounters,
    /// No entry that hardware steering writes completes without an error.
    NoEntries,
    /// Completions of hardware steering come so many milliseconds late.
    Late(u32),
    /// The device reports that it is dead, and whatever is asked of it fails from then on.
    Fatal,
}

impl Fault {
    /// The word that means it.
    #[must_use]
    pub fn word(self) -> String {
        match self {
            Self::Table(n) => format!("table={n}"),
            Self::Matcher(n) => format!("matcher={n}"),
            Self::Action(n) => format!("action={n}"),
            Self::Rule(n) => format!("rule={n}"),
            Self::Counter(n) => format!("counter={n}"),
            Self::Entry(n) => format!("entry={n}"),
            Self::Entries(n) => format!("entry=1-{n}"),
            Self::NoTables => "table=1+".to_owned(),
            Self::NoMatchers => "matcher=1+".to_owned(),
            Self::NoActions => "action=1+".to_owned(),
            Self::NoRules => "rule=1+".to_owned(),
            Self::NoCounters => "counter=1+".to_owned(),
            Self::NoEntries => "entry=1+".to_owned(),
            Self::Late(milliseconds) => format!("late={milliseconds}"),
            Self::Fatal => "fatal".to_owned(),
        }
    }
}

/// A ConnectX-6 Dx. Values are from guides and drivers' code; none was read from a card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its physical functions, each with an E-Switch of its own: 1 or 2.
    pub pfs: u8,
    /// Representors of VFs on each: 0..=14; with none it is not in switchdev mode.
    pub vfs: u8,
    /// It matches the length of an IPv4 header.
    pub ihl: bool,
    /// Its firmware has `FLEX_PARSER_PROFILE_ENABLE=1`: MPLS behind UDP is parsed.
    pub mpls: bool,
    /// Selectors 6 to 8 of a definer reach every double word (ConnectX-8, `BlueField`-3).
    pub full_jumbo: bool,
    /// It matches ranges.
    pub ranges: bool,
    /// It writes counters to memory in batches, which the driver has it do about once a second. Else the driver asks for each when it is
    /// asked.
    pub counters_dump: bool,
    /// What rdma-core's software steering refuses is refused.
    pub rdma: bool,
    /// Numbers of fixed definers that rdma-core finds on it, as bits. Integrity is matched by 0 and 2 alone.
    pub definers: u64,
    /// A file that the record is appended to.
    pub record: Option<PathBuf>,
    /// What fails.
    pub faults: Vec<Fault>,
}

impl Default for Card {
    fn default() -> Self {
        Self {
            pfs: 1,
            vfs: 0,
            ihl: true,
            mpls: true,
            full_jumbo: false,
            ranges: false,
            counters_dump: true,
            rdma: true,
            definers: 1 << 0 | 1 << 2,
            record: None,
            faults: Vec::new(),
        }
    }
}

impl Card {
    /// In switchdev mode, with so many representors of VFs.
    #[must_use]
    pub fn switchdev(vfs: u8) -> Self {
        Self { vfs, ..Self::default() }
    }

    /// Without switchdev, for hairpin queues; `pfs` ports.
    #[must_use]
    pub fn hairpin(pfs: u8) -> Self {
        Self { pfs, ..Self::default() }
    }

    /// The program's environment, but for `LD_PRELOAD`.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let flag = |value: bool| OsString::from(if value { "1" } else { "0" });
        let mut variables = vec![
            ("JUDGE_PFS", self.pfs.to_string().into()),
            ("JUDGE_VFS", self.vfs.to_string().into()),
            ("JUDGE_IHL", flag(self.ihl)),
            ("JUDGE_MPLS", flag(self.mpls)),
            ("JUDGE_FULL_JUMBO", flag(self.full_jumbo)),
            ("JUDGE_RANGE", flag(self.ranges)),
            ("JUDGE_COUNTERS_DUMP", flag(self.counters_dump)),
            ("JUDGE_RDMA", flag(self.rdma)),
            ("JUDGE_DEFINERS", self.definers.to_string().into()),
        ];
        if let Some(path) = &self.record {
            variables.push(("JUDGE_RECORD", path.clone().into_os_string()));
        }
        if !self.faults.is_empty() {
            let words: Vec<String> = self.faults.iter().map(|fault| fault.word()).collect();
            variables.push(("JUDGE_FAULTS", words.join(",").into()));
        }
        variables
    }

    /// PCI addresses of its physical functions.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        (0..self.pfs).map(|pf| format!("0000:08:00.{pf}")).collect()
    }

    /// What EAL's `-a` says of each physical function.
    #[must_use]
    pub fn devices(&self, engine: Engine) -> Vec<String> {
        self.addresses()
            .into_iter()
            .map(|address| {
                let mut device = format!("{address},dv_flow_en={}", engine.dv_flow_en());
                if let Some(last) = self.vfs.checked_sub(1) {
                    device.push_str(&format!(",representor=vf[0-{last}]"));
                }
                device
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_in_switchdev_mode_is_started_with_its_representors() {
        assert_eq!(Card::switchdev(4).devices(Engine::Hardware), ["0000:08:00.0,dv_flow_en=2,representor=vf[0-3]"]);
        assert_eq!(
            Card::hairpin(2).devices(Engine::Software),
            ["0000:08:00.0,dv_flow_en=1", "0000:08:00.1,dv_flow_en=1"]
        );
    }

    #[test]
    fn faults_are_words_with_commas_between_them() {
        let card = Card { faults: vec![Fault::Rule(3), Fault::NoCounters, Fault::Late(50)], ..Card::default() };
        assert!(card.environment().contains(&("JUDGE_FAULTS", "rule=3,counter=1+,late=50".into())));
    }
}
