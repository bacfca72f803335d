//! One NIC for a whole process: EAL starts once, and the twins of a process are one NIC.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    process::Command,
    sync::{
        Arc, OnceLock,
        mpsc::{self, Sender},
    },
};

use dpu_fastpath::{
    nic,
    replay::{
        NicFront,
        mlx5::{self, Card, Mode, Place},
    },
};
use offload_rules::forwarding::Snapshot;

use super::{judge, twin, world::World};

/// The devices of all cases; frames of any case fit.
pub(crate) fn devices() -> Arc<Snapshot> {
    let mut state = World::plain();
    state.widen();
    judge::snapshot(&state.state())
}

/// The vendor's own mlx5 driver, on a card that isn't there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// Its switch leads from the wire to functions.
    Switch,
    /// Without a switch: the underlay's first device and the tenants' first one.
    Hairpin,
    /// Without a switch: both devices of the underlay.
    Edge,
}

impl Judged {
    pub(crate) const ALL: [Self; 3] = [Self::Switch, Self::Hairpin, Self::Edge];

    /// As [`Self::of`] knows it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Switch => "mlx5-judge",
            Self::Hairpin => "mlx5-judge-hairpin",
            Self::Edge => "mlx5-judge-edge",
        }
    }

    /// By its name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|judged| judged.name() == name)
    }

    const fn mode(self) -> Mode {
        match self {
            Self::Switch => Mode::Switchdev,
            Self::Hairpin | Self::Edge => Mode::Hairpin,
        }
    }

    /// Those that the card may have a port for.
    fn devices(self) -> Arc<Snapshot> {
        if self == Self::Edge { judge::snapshot(&World::edge()) } else { devices() }
    }

    /// The devices that the card has a port for.
    pub(crate) fn ports(self) -> Vec<(u32, Place)> {
        mlx5::ports(&self.devices(), self.mode()).into_iter().map(|(vif, place)| (vif.get().into(), place)).collect()
    }

    fn card(self) -> Card {
        Card::of(&self.devices(), self.mode(), &[]).with_counters_at_once()
    }

    /// In a process that [`Self::below`] has begun.
    pub(crate) fn open(self) -> NicFront {
        let profile = nic::profile("mlx5-sws").unwrap();
        NicFront::mlx5(&self.devices(), profile, &twin::judge(), &self.card()).unwrap()
    }

    /// Has a program find the card on which the mlx5 driver is judged.
    pub(crate) fn below(self, program: &mut Command, library: &Path) {
        mlx5::below(program, library, &self.card()).unwrap();
    }
}

/// The NIC with this profile, or of [`Judged`], and these faults; its counters are read without delay.
pub(crate) fn open(profile: &str, faults: &[&str]) -> NicFront {
    if let Some(judged) = Judged::of(profile) {
        return judged.open();
    }
    let faults: Vec<String> = faults.iter().chain(&["refresh=0"]).map(|fault| (*fault).to_owned()).collect();
    NicFront::twin(&devices(), nic::profile(profile).unwrap(), &twin::library(), &faults).unwrap()
}

/// The same driver with hardware steering: nothing is executed, software gets every frame.
pub(crate) fn open_unexecuted() -> NicFront {
    let snapshot = devices();
    NicFront::mlx5_unexecuted(&snapshot, nic::profile("mlx5-hws").unwrap(), &card_unexecuted(&snapshot)).unwrap()
}

fn card_unexecuted(snapshot: &Snapshot) -> Card {
    Card::of(snapshot, Mode::Switchdev, &[])
}

/// Has a program find the card for [`open_unexecuted`].
pub(crate) fn below_unexecuted(program: &mut Command, library: &Path) {
    mlx5::below(program, library, &card_unexecuted(&devices())).unwrap();
}

type Work = Box<dyn FnOnce(&mut NicFront) + Send>;

/// Runs something on this process's twin without limits, on the one thread that has it.
pub(crate) fn on_twin<T: Send + 'static>(work: impl FnOnce(&mut NicFront) -> T + Send + 'static) -> T {
    static THREAD: OnceLock<Sender<Work>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Work>();
        std::thread::spawn(move || {
            let mut front = open("twin", &[]);
            receiver.iter().for_each(|work| work(&mut front));
        });
        sender
    });
    let (sender, receiver) = mpsc::channel();
    let work: Work = Box::new(move |front| {
        let _ = sender.send(catch_unwind(AssertUnwindSafe(|| work(front))));
    });
    thread.send(work).unwrap();
    receiver.recv().unwrap().unwrap_or_else(|panic| resume_unwind(panic))
}
