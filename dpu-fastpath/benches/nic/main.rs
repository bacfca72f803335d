//! What the offload engine, its backends and the DPDK ports cost, in CPU time on one core, beside what is aimed at and beside
//! DPDK's own programs on the same devices.
//!
//! `cargo bench -p dpu-fastpath --bench nic -- [--quick] [--core N] [--no-peers] [FILTER]`
//!
//! The NIC is the twin, a driver in a shared library: `NIC_TWIN` names it; without it, it is built. As root, as EAL needs it. A
//! peer that is not installed is SKIPPED, with the reason.
#![allow(missing_docs, clippy::expect_used, clippy::panic)]

mod insertion;
#[allow(dead_code, reason = "shared with the benches of the software dataplane")]
#[path = "../../../fallback-sw/benches/measure.rs"]
mod measure;
mod nic;
mod peers;
#[allow(dead_code, reason = "shared with the benches of the software dataplane")]
#[path = "../../../fallback-sw/benches/site.rs"]
mod site;
mod slow_path;
mod sweep;

use std::{process::ExitCode, time::Duration};

use measure::{Effort, Machine, Row};
use nic::Bench;

/// Rows, and what is to be said below them.
pub(crate) type Rows = (Vec<Row>, Vec<String>);

/// Name of a part, and what measures it.
type Part = (&'static str, fn(&mut Bench, &Effort) -> Rows);

const PARTS: [Part; 3] = [("insertion", insertion::rows), ("sweep", sweep::rows), ("slow path", slow_path::rows)];

fn main() -> ExitCode {
    let (mut quick, mut core, mut peers, mut filter) = (false, 0, true, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Cargo adds it to every bench.
            "--bench" => {}
            "--quick" => quick = true,
            "--no-peers" => peers = false,
            "--core" => match arguments.next().and_then(|value| value.parse().ok()) {
                Some(number) => core = number,
                None => {
                    eprintln!("--core needs the number of a core");
                    return ExitCode::FAILURE;
                }
            },
            other if other.starts_with('-') => {
                eprintln!("unknown option {other}, known: --quick, --core N, --no-peers, FILTER");
                return ExitCode::FAILURE;
            }
            part => filter = Some(part.to_owned()),
        }
    }
    if let Err(error) = measure::pin(core) {
        eprintln!("can't run on core {core}: {error}");
        return ExitCode::FAILURE;
    }
    let machine = Machine::here();
    println!("{}", machine.line(core));
    println!("{}", std::env::args().collect::<Vec<_>>().join(" "));
    let mut bench = match Bench::new(core, peers) {
        Ok(bench) => bench,
        Err(why) => {
            println!("SKIPPED: {why}");
            return ExitCode::SUCCESS;
        }
    };
    let effort = Effort {
        repeats: if quick { 3 } else { 7 },
        run: Duration::from_millis(if quick { 200 } else { 1000 }),
        quick,
        row: None,
    };
    for (name, rows) in PARTS {
        if filter.as_ref().is_none_or(|filter| name.contains(filter.as_str())) {
            let (rows, notes) = rows(&mut bench, &effort);
            println!("\n# {name}\n{}", measure::table(&rows, &machine));
            notes.iter().for_each(|note| println!("{note}"));
        }
    }
    ExitCode::SUCCESS
}
