//! Programs of others: those that `setup.sh` has unpacked below `target/tools`, and those in `PATH`.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Runs a program in the set that it was unpacked with.
const RUNNER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/setup/in-root.sh");
/// A library that the runner loads into the program, as the dynamic linker's variable does where there is no runner between.
const RUNNER_PRELOAD: &str = "TOOL_PRELOAD";
const LINKER_PRELOAD: &str = "LD_PRELOAD";

/// Words that stand before a program's name in a command line: none when it is in `PATH`, or a path itself.
#[must_use]
pub(crate) fn launcher(program: &OsStr) -> Vec<OsString> {
    launcher_in(&directory(), program)
}

/// A command that runs a program.
#[must_use]
pub(crate) fn command(program: &str) -> Command {
    let mut words = launcher(OsStr::new(program));
    words.push(program.into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// The variable whose value is a library that is loaded into a program before its own.
#[must_use]
pub(crate) fn preload_variable(program: &str) -> &'static str {
    if launcher(OsStr::new(program)).is_empty() { LINKER_PRELOAD } else { RUNNER_PRELOAD }
}

fn directory() -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Path::new(root).join(target).join("tools")
}

/// A set is there only where the program was missing, or of another kind: it comes before `PATH`.
fn launcher_in(directory: &Path, program: &OsStr) -> Vec<OsString> {
    if Path::new(program).components().count() != 1 {
        return Vec::new();
    }
    let mut sets: Vec<PathBuf> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    sets.sort();
    // What its packages need came along, but only what was wanted is listed.
    let has = |set: &PathBuf| {
        let listed = fs::read_to_string(set.join("programs")).unwrap_or_default();
        listed.lines().any(|name| OsStr::new(name) == program)
    };
    sets.into_iter().find(has).map_or_else(Vec::new, |set| vec![RUNNER.into(), set.into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unpacked_program_is_run_in_its_set_and_any_other_as_it_is() {
        let tools = tempfile::tempdir().unwrap();
        let set = tools.path().join("web");
        fs::create_dir_all(&set).unwrap();
        fs::write(set.join("programs"), "iperf3\nnginx\n").unwrap();
        assert_eq!(launcher_in(tools.path(), OsStr::new("nginx")), vec![OsString::from(RUNNER), set.into()]);
        assert!(launcher_in(tools.path(), OsStr::new("curl")).is_empty());
        assert!(launcher_in(tools.path(), OsStr::new("/usr/sbin/nginx")).is_empty());
        assert!(launcher_in(&tools.path().join("missing"), OsStr::new("nginx")).is_empty());
    }

    #[test]
    fn a_set_that_is_still_being_unpacked_is_not_used() {
        let tools = tempfile::tempdir().unwrap();
        fs::create_dir_all(tools.path().join("web/usr/sbin")).unwrap();
        fs::write(tools.path().join("web/usr/sbin/nginx"), "").unwrap();
        assert!(launcher_in(tools.path(), OsStr::new("nginx")).is_empty());
    }
}
