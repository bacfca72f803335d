//! Arguments of the virtual device: `net_twin0,port=net_ring0,profile=mlx5-hws,full_at=100`.

/// What lies below a twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Below {
    /// A DPDK port that exists already, by name.
    Port(String),
    /// A network device of the kernel; a `net_af_packet` is made for it.
    Interface(String),
    /// A `net_ring` that is made for it: what is sent comes back.
    Loop,
}

/// A twin's arguments: what is below it; the rest describes the NIC and is the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Args {
    /// What lies below.
    pub(super) below: Below,
    /// File of faults that is followed at run time.
    pub(super) control: Option<String>,
    /// `role=function`: the port is the representor of a virtual function.
    pub(super) function: bool,
    /// `domain=N`: the switch that it is at.
    pub(super) domain: Option<u16>,
    /// Everything else, in order.
    pub(super) nic: Vec<(String, String)>,
}

/// Arguments that make no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArgsError {
    /// Not of the form key=value.
    #[error("argument {0:?} is not key=value")]
    NotAPair(String),
    /// None, or more than one.
    #[error("give what lies below: one of port=<name of a DPDK port>, iface=<network device> and loop=1")]
    NoPort,
    /// Not what a port can be.
    #[error("role={0} is no role: wire or function")]
    Role(String),
    /// Not the number of a switch.
    #[error("domain={0} is no number of a switch: 0 to 65534")]
    Domain(String),
    /// Given twice.
    #[error("argument {0:?} is given twice")]
    Twice(String),
}

/// Reads the text behind the device's name.
pub(super) fn parse(text: &str) -> Result<Args, ArgsError> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once('=').ok_or_else(|| ArgsError::NotAPair(part.to_owned()))?;
        if pairs.iter().any(|(known, _)| known == key) {
            return Err(ArgsError::Twice(key.to_owned()));
        }
        pairs.push((key.to_owned(), value.to_owned()));
    }
    let mut take = |key: &str| {
        let at = pairs.iter().position(|(known, value)| known == key && !value.is_empty())?;
        Some(pairs.remove(at).1)
    };
    let control = take("control");
    let function = match take("role").as_deref() {
        None | Some("wire") => false,
        Some("function") => true,
        Some(other) => return Err(ArgsError::Role(other.to_owned())),
    };
    let domain = match take("domain") {
        // 65535 says that there is none (RTE_ETH_DEV_SWITCH_DOMAIN_ID_INVALID).
        Some(text) => {
            let number = text.parse().ok().filter(|number| *number < u16::MAX);
            Some(number.ok_or(ArgsError::Domain(text))?)
        }
        None => None,
    };
    let below = match (take("port"), take("iface"), take("loop").as_deref()) {
        (Some(port), None, None) => Below::Port(port),
        (None, Some(interface), None) => Below::Interface(interface),
        (None, None, Some("1")) => Below::Loop,
        _ => return Err(ArgsError::NoPort),
    };
    Ok(Args { below, control, function, domain, nic: pairs })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_is_told_from_the_arguments_of_the_nic() {
        let args = parse("port=net_ring0,profile=mlx5-hws,full_at=100").unwrap();
        assert_eq!(args.below, Below::Port("net_ring0".to_owned()));
        let nic = [("profile", "mlx5-hws"), ("full_at", "100")];
        assert_eq!(args.nic, nic.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert_eq!(parse("iface=veth0").unwrap().below, Below::Interface("veth0".to_owned()));
        assert_eq!(parse("loop=1").unwrap().below, Below::Loop);
        let placed = parse("loop=1,role=function,domain=7").unwrap();
        assert_eq!((placed.function, placed.domain), (true, Some(7)));
    }

    #[test]
    fn arguments_without_one_port_below_are_refused() {
        for text in ["", "profile=twin", "port=a,iface=b", "port=", "loop=2", "port=a,loop=1"] {
            assert_eq!(parse(text), Err(ArgsError::NoPort), "{text:?}");
        }
        assert_eq!(parse("loop=1,role=uplink"), Err(ArgsError::Role("uplink".to_owned())));
        assert_eq!(parse("loop=1,domain=65535"), Err(ArgsError::Domain("65535".to_owned())));
        assert_eq!(parse("port"), Err(ArgsError::NotAPair("port".to_owned())));
        assert_eq!(parse("port=a,port=b"), Err(ArgsError::Twice("port".to_owned())));
    }
}
