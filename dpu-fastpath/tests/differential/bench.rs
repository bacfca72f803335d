//! One NIC for a whole process: EAL starts once, and the twins of a process are one NIC.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        OnceLock,
        mpsc::{self, Sender},
    },
};

use dpu_fastpath::{nic, replay::TwinFront};

use super::{judge, twin, world::World};

/// The NIC with this profile and these faults; its counters are read without delay.
pub(crate) fn open(profile: &str, faults: &[&str]) -> TwinFront {
    let mut state = World::plain();
    // Frames of any case fit.
    state.widen();
    let faults: Vec<String> = faults.iter().chain(&["refresh=0"]).map(|fault| (*fault).to_owned()).collect();
    let snapshot = judge::snapshot(&state.state());
    TwinFront::new(&snapshot, nic::profile(profile).unwrap(), &twin::library(), &faults).unwrap()
}

type Work = Box<dyn FnOnce(&mut TwinFront) + Send>;

/// Runs something on this process's twin without limits, on the one thread that has it.
pub(crate) fn on_twin<T: Send + 'static>(work: impl FnOnce(&mut TwinFront) -> T + Send + 'static) -> T {
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
