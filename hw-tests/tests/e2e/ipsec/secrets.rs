//! Keys of a running node are where they have to be and nowhere else.

use std::{fs, os::unix::fs::PermissionsExt as _, os::unix::process::ExitStatusExt as _};

use hw_tests::lab::{L3vpn, LabError, Nic, Options, Ping, Site, Tenant, Tunnel, scenario};

use super::figures;

#[test]
fn keys_are_in_no_log_no_answer_and_no_core_file() -> Result<(), String> {
    scenario("keys_are_in_no_log_no_answer_and_no_core_file", || {
        // CE1 is dpu-fastpath, the others are fallback-sw.
        let options = Options { nic: Some(Nic::default()), ..Options::through_edge() };
        let mut l3vpn = L3vpn::new(&options)?;
        l3vpn.rekey(&Tunnel::ALL)?;
        let answered = l3vpn.host(Tenant::Blue, Site::Ce1).ping(&Ping::to("192.168.1.100"))?.all_answered();
        answered.map_err(|error| LabError::Violated(format!("{error}{}", l3vpn.diagnosis())))?;
        let keys: Vec<String> =
            l3vpn.edge()?.associations()?.keys().iter().map(|key| key.digits().to_owned()).collect();
        let mut looked_at = 0;
        for node in l3vpn.all_nodes()? {
            let mut told = vec![node.log()];
            for arguments in [
                &["state", "get"][..],
                &["state", "get", "--json"],
                &["sa", "--list"],
                &["sa", "--list", "--json"],
                &["vif", "--list"],
                &["vif", "--list", "--json"],
                &["nh", "--list", "--json"],
                &["flow", "--list", "--json"],
                &["status", "--json"],
                &["drops", "--json"],
            ] {
                told.push(node.host_ctl(arguments)?);
            }
            looked_at += told.iter().map(String::len).sum::<usize>();
            for text in &told {
                for key in &keys {
                    // Also in part: the salt alone is 8 digits, the key 64.
                    assert!(!text.contains(&key[..16]) && !text.contains(&key[48..]), "{} tells a key", node.name());
                }
            }
            no_core(node.pid())?;
            kept_files_are_private(&l3vpn, node.name(), &keys)?;
        }
        figures(&format!("{} keys, none in {looked_at} octets of logs and answers of three nodes", keys.len()));
        l3vpn.assert_healthy()?;
        a_crash_leaves_no_core()
    })
}

/// No core file, whoever asks for one.
fn no_core(pid: u32) -> Result<(), LabError> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).map_err(LabError::io(format!("read {path}")))
    };
    let limits = read("limits")?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
    let words: Vec<&str> = core.split_whitespace().collect();
    assert_eq!(words.get(4..6), Some(&["0", "0"][..]), "{core}");
    Ok(())
}

/// A signal that dumps core does not.
fn a_crash_leaves_no_core() -> Result<(), LabError> {
    let l3vpn = L3vpn::new(&Options { nodes: false, ..Options::default() })?;
    for nic in [None, Some(Nic::default())] {
        let config = L3vpn::config(Site::Ce1, &Options { nic, ..Options::default() });
        let node = hw_tests::lab::Node::start(l3vpn.lab(), l3vpn.ce_namespace(Site::Ce1), &config)?;
        let output = node.end_by(nix::sys::signal::Signal::SIGABRT)?;
        assert_eq!((output.status.signal(), output.status.core_dumped()), (Some(6), false), "{output:?}");
    }
    Ok(())
}

/// The kept state has the keys, and only its owner reads it; the file of sequence numbers has none.
fn kept_files_are_private(l3vpn: &L3vpn, node: &str, keys: &[String]) -> Result<(), LabError> {
    let kept = l3vpn.lab().directory().join(format!("{node}.last.json"));
    let numbers = l3vpn.lab().directory().join(format!("{node}.last.json.sequences"));
    for file in [&kept, &numbers] {
        let what = format!("look at {}", file.display());
        let mode = fs::metadata(file).map_err(LabError::io(what))?.permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
    let read = |file| fs::read_to_string(file).map_err(LabError::io("read a kept file"));
    let state = read(&kept)?;
    assert!(keys.iter().any(|key| state.contains(key)), "{} holds no key: it could not start again", kept.display());
    let numbers = read(&numbers)?;
    assert!(!keys.iter().any(|key| numbers.contains(&key[..16])), "the file of sequence numbers tells a key");
    Ok(())
}
