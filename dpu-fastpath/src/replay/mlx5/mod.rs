//! The vendor's mlx5 driver in front, with software steering, on a ConnectX that isn't there: what it made of the engine's rules is
//! executed.
//!
//! A library has to stand below the driver from the start of the process ([`start_again`]). Which device of a state is which port of the card
//! goes by its [`Mode`]. Frames come by the wire, or from the function, and meet the driver's rules first; what they leave to software
//! goes through the node.

mod library;
mod placement;

use std::{
    ffi::OsString, io, os::unix::process::CommandExt as _, path::Path, process::Command, sync::Arc, time::Duration,
};

use anyhow::Context as _;
use fallback_sw::{io::Port, packet::Packet};
use offload_rules::{
    VifId,
    forwarding::Snapshot,
    lower::{Layout, NicProfile},
};

use super::front::{self, Arrival, NicFront, Wires};
use crate::{
    nic,
    port::{Eal, EalArgs, Memory},
};
use library::{Disposition, Library};
pub use library::{LibraryError, is_below};
use placement::Placement;
pub use placement::{Mode, Place};

/// File name of the library that judges and executes.
pub(super) const LIBRARY: &str = "libmlx5_judge.so";
/// MiB for DPDK and the driver, and for each port with frames of up to 2,000 octets.
const MEMORY: (u32, u32) = (256, 32);

/// No such engine of the driver's is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "rules of mlx5's hardware steering are judged, and not executed: take --nic mlx5-judge, or --nic mlx5-hws for the twin"
)]
pub struct NotExecuted;

/// The card's layout, and the profile whose rules the driver is given; `None`: not a name of this NIC.
pub(super) fn profile(name: &str) -> Option<anyhow::Result<(Mode, NicProfile)>> {
    let mode = match name {
        "mlx5-judge" | "mlx5-judge-sws" => Mode::Switchdev,
        "mlx5-judge-hairpin" => Mode::Hairpin,
        "mlx5-judge-hws" => return Some(Err(NotExecuted.into())),
        _ => return None,
    };
    Some(nic::profile("mlx5-sws").map(|profile| (mode, profile)).map_err(Into::into))
}

/// The driver has laid the card out in another way than it was set up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the card was set up for {mode:?}, and its driver steers by {layout:?}: the process was started with another card below it"
)]
pub struct WrongLayout {
    mode: Mode,
    layout: Layout,
}

/// The card, as the library below the driver is told by the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    mode: Mode,
    /// Physical functions.
    pfs: usize,
    /// VFs of each, each with a representor.
    vfs: usize,
    faults: String,
    /// It writes counters to memory now and then; else the driver asks for each when it is asked.
    batches: bool,
}

impl Card {
    /// One with a port for each device of a state, as far as it has ports. Faults are named as the library names them.
    #[must_use]
    pub fn of(snapshot: &Snapshot, mode: Mode, faults: &[String]) -> Self {
        let placement = Placement::of(snapshot, mode);
        Self { mode, pfs: placement.pfs(), vfs: placement.vfs(mode), faults: faults.join(","), batches: true }
    }

    /// One whose counters are read when they are asked for, and not in batches: nobody has to wait for them.
    #[must_use]
    pub fn with_counters_at_once(self) -> Self {
        Self { batches: false, ..self }
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = vec![
            ("JUDGE_PFS", self.pfs.to_string().into()),
            ("JUDGE_VFS", self.vfs.to_string().into()),
            ("JUDGE_COUNTERS_DUMP", u8::from(self.batches).to_string().into()),
        ];
        if !self.faults.is_empty() {
            variables.push(("JUDGE_FAULTS", self.faults.clone().into()));
        }
        variables
    }

    /// EAL's arguments for each physical function; `engine`: the driver's `dv_flow_en`.
    fn devices(&self, engine: u8) -> Vec<String> {
        let representors = self.vfs.checked_sub(1).map(|last| format!(",representor=vf[0-{last}]")).unwrap_or_default();
        (0..self.pfs).map(|pf| format!("{},dv_flow_en={engine}{representors}", placement::address(pf))).collect()
    }
}

/// Puts the library below the drivers that a program loads, with this card. The program may start once this process has ended, as long
/// as it is started by it.
///
/// # Errors
/// [`LibraryError`].
pub fn below(program: &mut Command, library: &Path, card: &Card) -> Result<(), LibraryError> {
    program.env("LD_PRELOAD", Library::open(library)?.preload()?).envs(card.environment());
    Ok(())
}

/// Runs this program again, with the same arguments and the library below its drivers. Returns only if it can't.
///
/// # Errors
/// [`LibraryError`].
pub fn start_again(library: &Path, card: &Card) -> Result<io::Error, LibraryError> {
    let mut program = Command::new("/proc/self/exe");
    program.args(std::env::args_os().skip(1));
    below(&mut program, library, card)?;
    Ok(program.exec())
}

/// The ports of the card that the devices of a state are; those that it has no port for are left out.
#[must_use]
pub fn ports(snapshot: &Snapshot, mode: Mode) -> Vec<(VifId, Place)> {
    Placement::of(snapshot, mode).0.into_iter().map(|(vif, place)| (vif.id, place)).collect()
}

/// The ports of the card, and the driver's rules between them.
struct CardWires {
    library: Library,
    /// Port of the card, by port of the NIC.
    ports: Vec<Place>,
}

impl CardWires {
    fn at(&self, place: Place) -> Result<usize, String> {
        let at = self.ports.iter().position(|known| *known == place);
        at.ok_or_else(|| format!("a frame leaves by {place} of the card, which is no device's"))
    }

    fn place(&self, at: usize) -> Result<Place, String> {
        self.ports.get(at).copied().ok_or_else(|| format!("the card has no port {at}"))
    }
}

impl Wires for CardWires {
    fn arrive(&mut self, at: usize, _port: &mut dyn Port, frame: &[u8]) -> Result<Arrival, String> {
        let passed = self.library.receive(self.place(at)?, frame)?;
        let mut arrival = Arrival::default();
        match passed.disposition {
            Disposition::Software(data) => {
                let mut packet = Packet::from_frame(&data);
                packet.set_mark(passed.mark.and_then(mark_of));
                arrival.software.push(packet);
            }
            Disposition::Sent(place, data) => arrival.sent.push((self.at(place)?, Packet::from_frame(&data))),
            Disposition::Dropped => {}
        }
        Ok(arrival)
    }

    fn send(&mut self, at: usize, _port: &mut dyn Port, packet: Packet) -> Result<Vec<(usize, Packet)>, String> {
        // This card seals nothing.
        if packet.is_for_session() {
            return Ok(Vec::new());
        }
        match self.library.transmit(self.place(at)?, packet.data())?.disposition {
            Disposition::Sent(place, data) => Ok(vec![(self.at(place)?, Packet::from_frame(&data))]),
            Disposition::Software(_) | Disposition::Dropped => Ok(Vec::new()),
        }
    }
}

/// No rule is executed: what comes is software's, and what software sends leaves.
struct Unexecuted;

impl Wires for Unexecuted {
    fn arrive(&mut self, _at: usize, _port: &mut dyn Port, frame: &[u8]) -> Result<Arrival, String> {
        Ok(Arrival { software: vec![Packet::from_frame(frame)], sent: Vec::new() })
    }

    fn send(&mut self, at: usize, _port: &mut dyn Port, packet: Packet) -> Result<Vec<(usize, Packet)>, String> {
        Ok(vec![(at, packet)])
    }
}

/// The mark that the driver's receive function tells, of a flow tag as it gave it to the device: 24 bits, swapped, and one more than the
/// mark, so that 0 is none (DPDK `mlx5_rxtx.h`, `mlx5_flow_mark_get`). A flag without a number is none.
fn mark_of(tag: u32) -> Option<u32> {
    const FLAG: u32 = 0x00ff_ffff;
    match (tag << 8).swap_bytes() {
        0 | FLAG => None,
        tag => Some(tag - 1),
    }
}

impl NicFront {
    /// Starts DPDK with its mlx5 driver, which finds a port for each device of the state that the card has one for, and is asked for its
    /// layout as by a node. Once in a process.
    ///
    /// # Errors
    /// The library does not stand below the driver ([`below`], with this card); whatever DPDK, the driver or the engine say.
    pub fn mlx5(snapshot: &Arc<Snapshot>, profile: NicProfile, library: &Path, card: &Card) -> anyhow::Result<Self> {
        let library = Library::open(library)?;
        library.begin()?;
        let wires = |ports| -> Box<dyn Wires> { Box::new(CardWires { library, ports }) };
        Self::on_card(snapshot, profile, card, wires)
    }

    /// The same with a driver whose rules are judged and not executed, by hardware steering if the profile has templates: software gets
    /// every frame. For tests of engine and backend above the driver.
    ///
    /// # Errors
    /// As for [`NicFront::mlx5`].
    pub fn mlx5_unexecuted(snapshot: &Arc<Snapshot>, profile: NicProfile, card: &Card) -> anyhow::Result<Self> {
        if !is_below() {
            return Err(LibraryError::NotBelow.into());
        }
        Self::on_card(snapshot, profile, card, |_| Box::new(Unexecuted))
    }

    fn on_card(
        snapshot: &Arc<Snapshot>,
        profile: NicProfile,
        card: &Card,
        wires: impl FnOnce(Vec<Place>) -> Box<dyn Wires>,
    ) -> anyhow::Result<Self> {
        let placement = Placement::of(snapshot, card.mode);
        let (base, each) = MEMORY;
        let ports = placement.0.iter().map(|(vif, _)| each * u32::from(vif.mtu).div_ceil(2000).max(1));
        let mib = ports.fold(base, u32::saturating_add);
        let engine = if nic::by_templates(&profile) { 2 } else { 1 };
        let eal = EalArgs { memory: Memory::Ordinary { mib }, pci: card.devices(engine), ..EalArgs::default() };
        let eal = Arc::new(Eal::start(&eal, &[])?);
        let map = placement.map(&eal.ethdevs());
        let identity = nic::identify(&eal, &map, Some(profile))?.context("DPDK has no mlx5 driver")?;
        if identity.profile.layout != card.mode.layout() {
            return Err(WrongLayout { mode: card.mode, layout: identity.profile.layout }.into());
        }
        let nic_ports = identity.ports();
        let profile = identity.profile;
        let (vifs, ports) = placement.0.into_iter().unzip();
        let refresh = if card.batches { profile.limits.counter_refresh_ms.value } else { 0 };
        let refresh = Duration::from_millis(refresh.into());
        Self::new(snapshot, profile, front::Nic { eal, vifs, map, ports: nic_ports, wires: wires(ports), refresh })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `mlx5_flow_mark_set(0x1234)` on a little-endian machine: 0x1235, swapped, without its lowest octet.
    #[test]
    fn a_mark_is_what_the_driver_would_read_of_its_tag() {
        assert_eq!(mark_of(0x0035_1200), Some(0x1234));
        assert_eq!((mark_of(0), mark_of(0x00ff_ffff)), (None, None));
    }

    #[test]
    fn hardware_steering_is_refused_by_name() {
        assert!(profile("mlx5-judge-hws").unwrap().unwrap_err().to_string().contains("not executed"));
        let (mode, known) = profile("mlx5-judge").unwrap().unwrap();
        assert!(profile("mlx5-hws").is_none() && (mode, known.name) == (Mode::Switchdev, "mlx5-sws"));
        assert_eq!(profile("mlx5-judge-hairpin").unwrap().unwrap().0, Mode::Hairpin);
    }
}
