//! What operators call a port of a NIC's switch, and what DPDK calls it.
//!
//! The kernel's names are `p0` and `pf0` of an uplink and `pf0vf3` of a function's representor (phys_port_name); DPDK's are made of the
//! PCI address of the physical function: `0000:08:00.0_representor_vf3` and, where several physical functions share a device,
//! `0000:08:00.0_representor_c0pf0vf3` and `0000:08:00.0_p0` (mlx5_os.c, mlx5_dev_spawn, 22.11 and 24.11); `net_0000:08:00.0_representor_3`
//! with i40e, ixgbe and bnxt.

/// A function behind a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Virtual(u16),
    Scalable(u16),
}

/// A port of a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SwitchPort<'a> {
    /// PCI address; `None`: that of any NIC.
    address: Option<&'a str>,
    /// Number of the physical function on its NIC.
    pf: u16,
    /// `None`: the uplink.
    function: Option<Function>,
}

/// Why a name does not lead to one port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unresolved {
    /// No port has it.
    Missing,
    /// Several NICs have a port that it fits.
    Ambiguous(Vec<String>),
}

/// The device of DPDK that is meant: by its own name, or as `pf0vf3`, `0000:08:00.0/vf3`.
pub(super) fn resolve(asked: &str, there: &[String]) -> Result<String, Unresolved> {
    if there.iter().any(|name| name == asked) {
        return Ok(asked.to_owned());
    }
    let wanted = asked_for(asked).ok_or(Unresolved::Missing)?;
    let fits = |name: &&String| {
        named(name).is_some_and(|port| {
            let same_nic = wanted.address.is_none_or(|address| port.address == Some(address));
            same_nic && (port.pf, port.function) == (wanted.pf, wanted.function)
        })
    };
    let mut found: Vec<String> = there.iter().filter(fits).cloned().collect();
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(Unresolved::Missing),
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            found.push(last);
            Err(Unresolved::Ambiguous(found))
        }
    }
}

/// The PCI address of the physical function, and whether it is one of its functions that is meant: for advice.
pub(super) fn function_of(asked: &str) -> Option<Option<&str>> {
    let port = asked_for(asked).or_else(|| named(asked))?;
    port.function.map(|_| port.address)
}

/// As an operator says it.
fn asked_for(text: &str) -> Option<SwitchPort<'_>> {
    if let Some((address, function)) = text.split_once('/') {
        let pf = function_number(address)?;
        return Some(SwitchPort { address: Some(address), pf, function: Some(suffix(function)?) });
    }
    let (pf, rest) = number(text.strip_prefix("pf")?)?;
    let function = if rest.is_empty() { None } else { Some(suffix(rest)?) };
    Some(SwitchPort { address: None, pf, function })
}

/// As DPDK says it.
fn named(name: &str) -> Option<SwitchPort<'_>> {
    let name = name.strip_prefix("net_").unwrap_or(name);
    let (address, rest) = match name.split_once('_') {
        Some((address, rest)) => (address, Some(rest)),
        None => (name, None),
    };
    let pf = function_number(address)?;
    let uplink = SwitchPort { address: Some(address), pf, function: None };
    let Some(rest) = rest else { return Some(uplink) };
    let Some((_, representor)) = rest.rsplit_once("representor_") else {
        // The uplink of a device that several physical functions share.
        let pf = rest.strip_prefix('p').and_then(number).filter(|(_, rest)| rest.is_empty());
        return Some(pf.map_or(uplink, |(pf, _)| SwitchPort { pf, ..uplink }));
    };
    let behind = match representor.strip_prefix('c').and_then(number) {
        Some((_, behind)) => behind,
        None => representor,
    };
    let (pf, behind) = match behind.strip_prefix("pf").and_then(number) {
        Some((pf, behind)) => (pf, behind),
        None => (pf, behind),
    };
    let function = match number(behind) {
        Some((vf, "")) => Function::Virtual(vf),
        _ => suffix(behind)?,
    };
    Some(SwitchPort { address: Some(address), pf, function: Some(function) })
}

/// `vf3`, `sf3`.
fn suffix(text: &str) -> Option<Function> {
    let (kind, digits) = text.split_at_checked(2)?;
    let (number, "") = number(digits)? else { return None };
    match kind {
        "vf" => Some(Function::Virtual(number)),
        "sf" => Some(Function::Scalable(number)),
        _ => None,
    }
}

/// The number at the beginning, and what follows it.
fn number(text: &str) -> Option<(u16, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, rest))
}

/// The last part of a PCI address, `0000:08:00.1`; `None`: it is none.
fn function_number(address: &str) -> Option<u16> {
    let (device, function) = address.rsplit_once('.')?;
    let is_address = device.split(':').count() == 3 && device.chars().all(|c| c == ':' || c.is_ascii_hexdigit());
    is_address.then(|| function.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn found(asked: &str, there: &[&str]) -> Option<String> {
        resolve(asked, &names(there)).ok()
    }

    /// mlx5_os.c of 22.11 and 24.11, mlx5_dev_spawn: "%s_representor_%s%u".
    const ONE: [&str; 4] = [
        "0000:08:00.0",
        "0000:08:00.0_representor_vf0",
        "0000:08:00.0_representor_vf12",
        "0000:08:00.0_representor_sf3",
    ];
    /// The same of 24.11, for a device with several uplinks: "%s_p%d", "%s_representor_c%dpf%d%s%u".
    const SHARED: [&str; 4] = [
        "0000:08:00.0_p0",
        "0000:08:00.0_p1",
        "0000:08:00.0_representor_c0pf0vf1",
        "0000:08:00.0_representor_c0pf1vf1",
    ];

    #[test]
    fn a_representor_is_found_by_physical_function_and_number() {
        assert_eq!(found("pf0vf0", &ONE).as_deref(), Some(ONE[1]));
        assert_eq!(found("pf0vf12", &ONE).as_deref(), Some(ONE[2]));
        assert_eq!(found("pf0sf3", &ONE).as_deref(), Some(ONE[3]));
        assert_eq!(found("pf0", &ONE).as_deref(), Some(ONE[0]));
        assert_eq!(found("0000:08:00.0/vf12", &ONE).as_deref(), Some(ONE[2]));
        for asked in ["pf0vf1", "pf1vf0", "pf0sf0", "0000:09:00.0/vf0", "pf1"] {
            assert_eq!(resolve(asked, &names(&ONE)), Err(Unresolved::Missing), "{asked}");
        }
    }

    #[test]
    fn where_physical_functions_share_a_device_their_number_is_in_the_name() {
        assert_eq!(found("pf0vf1", &SHARED).as_deref(), Some(SHARED[2]));
        assert_eq!(found("pf1vf1", &SHARED).as_deref(), Some(SHARED[3]));
        assert_eq!(found("pf1", &SHARED).as_deref(), Some(SHARED[1]));
        let bonded = ["0000:08:00.0_mlx5_bond_0", "0000:08:00.0_mlx5_bond_0_representor_c0pf1vf2"];
        assert_eq!(found("pf1vf2", &bonded).as_deref(), Some(bonded[1]));
        assert_eq!(found("pf0", &bonded).as_deref(), Some(bonded[0]));
    }

    #[test]
    fn names_of_other_drivers_lead_to_functions_too() {
        // bnxt_ethdev.c, i40e_ethdev.c, ixgbe_ethdev.c: "net_%s_representor_%d".
        let there = ["0000:3b:00.1", "net_0000:3b:00.1_representor_4"];
        assert_eq!(found("pf1vf4", &there).as_deref(), Some(there[1]));
        assert_eq!(found("0000:3b:00.1/vf4", &there).as_deref(), Some(there[1]));
    }

    #[test]
    fn dpdks_own_name_is_always_good_and_nothing_is_guessed() {
        let there = ["net_af_packet0", "pf0vf0", "0000:08:00.0_representor_vf0"];
        assert_eq!(found("net_af_packet0", &there).as_deref(), Some("net_af_packet0"));
        assert_eq!(found("pf0vf0", &there).as_deref(), Some("pf0vf0"));
        for asked in ["", "pf", "pfvf0", "pf0vf", "pf0vfx", "pf0vf0x", "eth0", "08:00.0/vf0", "pf99999vf0", "/vf0"] {
            assert_eq!(resolve(asked, &names(&ONE)), Err(Unresolved::Missing), "{asked:?}");
        }
    }

    #[test]
    fn two_nics_that_have_such_a_port_are_both_told() {
        let there = ["0000:08:00.0_representor_vf0", "0000:09:00.0_representor_vf0"];
        assert_eq!(resolve("pf0vf0", &names(&there)), Err(Unresolved::Ambiguous(names(&there))));
        assert_eq!(found("0000:09:00.0/vf0", &there).as_deref(), Some(there[1]));
    }

    #[test]
    fn a_name_of_a_function_tells_its_address_where_it_has_one() {
        assert_eq!(function_of("0000:08:00.0/vf3"), Some(Some("0000:08:00.0")));
        assert_eq!(function_of("0000:08:00.0_representor_vf3"), Some(Some("0000:08:00.0")));
        assert_eq!(function_of("pf0vf3"), Some(None));
        assert_eq!((function_of("0000:08:00.0"), function_of("eth0")), (None, None));
    }
}
