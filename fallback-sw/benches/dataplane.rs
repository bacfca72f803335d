//! What the parts of the data path cost, in CPU time on one core, beside what is aimed at.
//!
//! `cargo bench -p fallback-sw --bench dataplane -- [--quick | --once] [--core N] [--row TEXT] [FILTER …]`
//!
//! `--once` runs each row of the hits a fixed number of times, [`forward::ONCE`] packets, to count instructions under
//! callgrind. FILTERs choose parts, `--row` rows of the hits and of transit: by a part of their name, or by its end with `$` behind it.
//!
//! Every part of the path has a module with a function that returns its rows, and a line in [`PARTS`]. All rows are measured
//! by [`measure`], so that they compare.
#![allow(missing_docs, clippy::expect_used, clippy::panic)]

mod churn;
mod esp;
mod flow_table;
mod forward;
#[allow(dead_code, reason = "shared with the benches of dpu-fastpath")]
mod measure;
mod offload;
#[allow(dead_code, reason = "shared with the benches of dpu-fastpath")]
mod site;
mod transit;

use std::{process::ExitCode, time::Duration};

use measure::{Effort, Machine, Row};

/// Name of a part, and what measures it.
type Part = (&'static str, fn(&Effort) -> Vec<Row>);

/// The parts, in the order of a packet's way.
const PARTS: [Part; 10] = [
    ("parser", forward::parser),
    ("flow table", flow_table::rows),
    ("hit", forward::hit),
    ("miss", forward::miss),
    ("transit", transit::rows),
    ("esp", esp::rows),
    ("esp path", esp::path),
    ("offload", offload::rows),
    ("churn", churn::rows),
    ("scaling", forward::scaling),
];

struct Options {
    quick: bool,
    once: bool,
    core: usize,
    row: Option<String>,
    /// Parts of names of parts; empty: all parts.
    filters: Vec<String>,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { quick: false, once: false, core: 0, row: None, filters: Vec::new() };
        let mut arguments = arguments.peekable();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // Cargo adds it to every bench.
                "--bench" => {}
                "--quick" => options.quick = true,
                "--once" => options.once = true,
                "--row" => options.row = Some(arguments.next().ok_or("--row needs a part of the name of a row")?),
                "--core" => {
                    let core = arguments.next().and_then(|value| value.parse().ok());
                    options.core = core.ok_or("--core needs the number of a core")?;
                }
                other if other.starts_with('-') => {
                    return Err(format!(
                        "unknown option {other}, known: --quick, --once, --core N, --row TEXT, FILTER ..."
                    ));
                }
                part => options.filters.push(part.to_owned()),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = measure::pin(options.core) {
        eprintln!("can't run on core {}: {error}", options.core);
        return ExitCode::FAILURE;
    }
    let row = options.row;
    let effort = if options.once {
        Effort { repeats: 1, run: Duration::ZERO, quick: true, row }
    } else if options.quick {
        Effort { repeats: 5, run: Duration::from_millis(10), quick: true, row }
    } else {
        Effort { repeats: 7, run: Duration::from_millis(100), quick: false, row }
    };
    let machine = Machine::here();
    println!("{}", machine.line(options.core));
    println!("{}", std::env::args().collect::<Vec<_>>().join(" "));
    for (name, rows) in PARTS {
        let filters = &options.filters;
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())) {
            println!("\n# {name}\n{}", measure::table(&rows(&effort), &machine));
        }
    }
    ExitCode::SUCCESS
}
