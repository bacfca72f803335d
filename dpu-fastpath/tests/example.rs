//! The example of docs/examples/offload: its README's commands are run as they stand there, and what they print is compared.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use proto::v1::{Flow, FlowTier, ReplayReport};

/// The NIC twin's driver, brought up to date unless programs that are built already are under test.
fn twin() -> PathBuf {
    if let Some(folder) = env::var_os("SLUICEGATE_BIN_DIR") {
        return PathBuf::from(folder).join("libnic_twin.so");
    }
    let folder = Path::new(env!("CARGO_BIN_EXE_dpu-fastpath")).parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "nic-twin", "--target-dir"]).arg(folder.parent().unwrap());
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().unwrap().success(), "the NIC twin does not build");
    folder.join("libnic_twin.so")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// The commands of a README's console blocks, each with what it prints.
fn steps(readme: &str) -> Vec<(String, String)> {
    let mut steps: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if inside {
            match line.strip_prefix("$ ") {
                Some(command) => steps.push((command.to_owned(), String::new())),
                None => steps.last_mut().unwrap().1.push_str(&format!("{line}\n")),
            }
        }
    }
    steps
}

#[test]
fn the_offload_example_works_as_its_readme_says() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let folder = tempfile::tempdir().unwrap();
    for example in ["l3vpn", "offload"] {
        copy(&source.join(example), &folder.path().join(example));
    }
    let here = folder.path().join("offload");
    let programs = Path::new(env!("CARGO_BIN_EXE_dpu-fastpath")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), env::var("PATH").unwrap());
    let twin = twin();
    let steps = steps(&fs::read_to_string(here.join("README.md")).unwrap());
    assert_eq!(steps.len(), 18, "{steps:#?}");
    for (command, printed) in steps {
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).current_dir(&here).env("PATH", &path).env("SLUICEGATE_NIC_TWIN", &twin);
        let output = shell.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), printed, "{command}: {said}");
        // grep ends with 1 where it counts none.
        assert!(output.status.success() || command.starts_with("grep -c"), "{command}: {said}");
    }

    let report = |run: &str| -> ReplayReport {
        let file = here.join("out").join(run).join("report.json");
        proto::json::parse(&fs::read_to_string(&file).unwrap(), run).unwrap()
    };
    let (software, twin) = (report("software"), report("twin"));
    assert_eq!(software.packets, twin.packets);
    assert_eq!(software.drops, twin.drops);
    let counters = |report: &ReplayReport| -> Vec<(u64, u64)> {
        report.flows.iter().map(|flow: &Flow| (flow.packets, flow.bytes)).collect()
    };
    assert_eq!(counters(&software), counters(&twin));
    assert!(software.flows.iter().all(|flow| flow.tier() == FlowTier::Software && flow.hardware_packets == 0));
}
