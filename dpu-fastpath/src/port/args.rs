//! EAL's command line, from the operator's arguments.

use std::ffi::{CString, NulError};

/// Memory for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Hugepages of the machine, as many as are needed; nothing is left in a file system.
    Hugepages,
    /// Ordinary pages, this many MiB: for machines without hugepages, and NICs that are not on a bus.
    Ordinary {
        /// MiB.
        mib: u32,
    },
}

/// What EAL is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EalArgs {
    /// Where memory comes from.
    pub memory: Memory,
    /// Addresses of PCI devices to use; none: the PCI bus is left alone.
    pub pci: Vec<String>,
    /// Virtual devices: name and arguments as their drivers take them, `net_af_packet0,iface=eth0`.
    pub vdevs: Vec<String>,
    /// Further arguments, given on as they are.
    pub extra: Vec<String>,
}

impl Default for EalArgs {
    fn default() -> Self {
        Self { memory: Memory::Hugepages, pci: Vec::new(), vdevs: Vec::new(), extra: Vec::new() }
    }
}

/// Options by which an operator says which processors EAL uses.
const CORES: [&str; 4] = ["-l", "-c", "--lcores", "-s"];

impl EalArgs {
    /// The command line. `process` makes the prefix of files unique; `cpu` is one that this process may run on: EAL has a core
    /// of its own there that runs nothing, the workers are threads of the node.
    ///
    /// # Errors
    /// An argument with a zero octet in it.
    pub fn build(&self, process: u32, cpu: usize) -> Result<Vec<CString>, NulError> {
        let mut line = vec!["dpu-fastpath".to_owned()];
        let mut option = |name: &str, value: String| line.extend([name.to_owned(), value]);
        option("--file-prefix", format!("sluicegate-{process}"));
        if !self.extra.iter().any(|given| self.says_cores(given)) {
            option("--lcores", format!("0@{cpu}"));
        }
        for address in &self.pci {
            option("-a", address.clone());
        }
        for vdev in &self.vdevs {
            option("--vdev", vdev.clone());
        }
        let flags: &[&str] = match self.memory {
            Memory::Hugepages => &["--in-memory"],
            Memory::Ordinary { mib } => {
                option("-m", mib.to_string());
                // EAL does not take this together with --in-memory, which would mean the same.
                &["--no-huge", "--no-shconf"]
            }
        };
        line.extend(flags.iter().map(ToString::to_string));
        // It would leave a socket behind for each run.
        if !self.extra.iter().any(|given| given == "--telemetry") {
            line.push("--no-telemetry".to_owned());
        }
        if self.pci.is_empty() {
            line.push("--no-pci".to_owned());
        }
        line.extend(self.extra.iter().cloned());
        line.into_iter().map(CString::new).collect()
    }

    fn says_cores(&self, given: &str) -> bool {
        let name = given.split_once('=').map_or(given, |(name, _)| name);
        // A short option may have its value behind it: -l0-3.
        CORES
            .iter()
            .any(|core| name == *core || (core.len() == 2 && !given.starts_with("--") && given.starts_with(core)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(args: &EalArgs) -> String {
        let line: Vec<_> = args.build(77, 3).unwrap().into_iter().map(|a| a.into_string().unwrap()).collect();
        line.join(" ")
    }

    #[test]
    fn without_a_word_there_are_hugepages_in_memory_and_no_bus() {
        assert_eq!(
            line(&EalArgs::default()),
            "dpu-fastpath --file-prefix sluicegate-77 --lcores 0@3 --in-memory --no-telemetry --no-pci"
        );
    }

    #[test]
    fn ordinary_memory_is_given_its_size() {
        let args = EalArgs { memory: Memory::Ordinary { mib: 512 }, ..EalArgs::default() };
        assert!(line(&args).contains(" -m 512 --no-huge --no-shconf "), "{}", line(&args));
    }

    #[test]
    fn the_bus_is_used_for_the_devices_that_are_named_and_no_others() {
        let args = EalArgs { pci: vec!["0000:01:00.0".into(), "0000:01:00.1".into()], ..EalArgs::default() };
        let line = line(&args);
        assert!(line.contains("-a 0000:01:00.0 -a 0000:01:00.1") && !line.contains("--no-pci"), "{line}");
    }

    #[test]
    fn virtual_devices_keep_their_order_and_their_arguments() {
        let vdevs = vec!["net_af_packet0,iface=eth0".to_owned(), "net_twin0,port=net_af_packet0".to_owned()];
        let line = line(&EalArgs { vdevs, ..EalArgs::default() });
        assert!(line.contains("--vdev net_af_packet0,iface=eth0 --vdev net_twin0,port=net_af_packet0"), "{line}");
    }

    #[test]
    fn cores_are_the_operators_if_he_names_them() {
        for given in ["-l", "-l0-3", "-c", "--lcores", "--lcores=0-1"] {
            let args = EalArgs { extra: vec![given.to_owned()], ..EalArgs::default() };
            assert!(!line(&args).contains("0@3"), "{given}");
        }
        for given in ["--log-level=lib.eal:debug", "--socket-mem", "--legacy-mem"] {
            let args = EalArgs { extra: vec![given.to_owned()], ..EalArgs::default() };
            assert!(line(&args).contains("0@3") && line(&args).ends_with(given), "{given}");
        }
    }

    #[test]
    fn a_zero_octet_is_refused() {
        let args = EalArgs { vdevs: vec!["net_null0\0".to_owned()], ..EalArgs::default() };
        assert!(args.build(1, 0).is_err());
    }
}
