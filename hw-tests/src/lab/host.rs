//! End hosts: a real network stack behind a link.

use std::time::Duration;

use super::{LabError, Namespace, Output, Ping, PingReport};

/// What a host is told about its network.
#[derive(Debug, Clone, Copy)]
pub struct HostConfig<'a> {
    /// Its device.
    pub device: &'a str,
    /// Own addresses with prefix length, both families.
    pub addresses: &'a [&'a str],
    /// Default gateways, both families.
    pub gateways: &'a [&'a str],
}

/// A host in a namespace of its own.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
    device: String,
    addresses: Vec<String>,
    gateways: Vec<String>,
}

impl Host {
    /// Turns a namespace into a host; its device comes with [`super::Veth::plug`], then follows [`Host::configure`].
    ///
    /// # Errors
    /// [`LabError::Io`] when the kernel refuses a setting.
    pub fn new(namespace: Namespace, config: HostConfig<'_>) -> Result<Self, LabError> {
        for scope in ["all", "default"] {
            namespace.sysctl(&format!("ipv6/conf/{scope}/accept_ra"), "0")?;
            namespace.sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
            namespace.sysctl(&format!("ipv6/conf/{scope}/router_solicitations"), "0")?;
        }
        let owned = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
        Ok(Self {
            namespace,
            device: config.device.to_owned(),
            addresses: owned(config.addresses),
            gateways: owned(config.gateways),
        })
    }

    /// Gives the device its addresses and routes; again after it was unplugged and came back.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn configure(&self) -> Result<(), LabError> {
        for address in &self.addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            self.namespace.ip(&format!("addr add {address} dev {}{nodad}", self.device))?;
        }
        for gateway in &self.gateways {
            let family = if gateway.contains(':') { "-6" } else { "-4" };
            self.namespace.ip(&format!("{family} route add default via {gateway} dev {}", self.device))?;
        }
        Ok(())
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// "host1".
    #[must_use]
    pub fn role(&self) -> &str {
        self.namespace.role()
    }

    /// Its device.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Pings and waits for the end.
    ///
    /// # Errors
    /// When `ping` cannot run; lost packets are no error: see [`PingReport`].
    pub fn ping(&self, ping: &Ping<'_>) -> Result<PingReport, LabError> {
        ping.run(&self.namespace)
    }

    /// Fetches a page within five seconds.
    ///
    /// # Errors
    /// [`LabError::Command`] when `curl` gets none.
    pub fn curl(&self, url: &str) -> Result<String, LabError> {
        self.curl_output(url)?.success()
    }

    /// Fetches a page and keeps also curl's failure.
    ///
    /// # Errors
    /// When `curl` cannot run.
    pub fn curl_output(&self, url: &str) -> Result<Output, LabError> {
        self.namespace.run("curl", &["-sS", "-g", "--max-time", "5", url], Duration::from_secs(10))
    }

    /// Addresses of the hops to a destination, in order; "*" where nobody answered.
    ///
    /// # Errors
    /// When `traceroute` fails.
    pub fn traceroute(&self, destination: &str) -> Result<Vec<String>, LabError> {
        let family = if destination.contains(':') { "-6" } else { "-4" };
        let arguments = [family, "-n", "-I", "-q", "1", "-w", "2", "-m", "8", destination];
        let text = self.namespace.run("traceroute", &arguments, Duration::from_secs(30))?.success()?;
        Ok(text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect())
    }

    /// Path MTU that the host has learnt toward a destination; `None` when it uses its device's.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn learnt_mtu(&self, destination: &str) -> Result<Option<u32>, LabError> {
        let text = self.namespace.ip(&format!("route get {destination}"))?;
        let mut words = text.split_whitespace().skip_while(|word| *word != "mtu").skip(1);
        // A locked value is printed as "mtu lock 1400".
        let value = words.next().map(|word| if word == "lock" { words.next().unwrap_or_default() } else { word });
        Ok(value.and_then(|word| word.parse().ok()))
    }

    /// Forgets neighbours and learnt path MTUs.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn forget(&self) -> Result<(), LabError> {
        self.namespace.ip(&format!("neigh flush dev {}", self.device))?;
        self.namespace.ip("route flush cache")?;
        self.namespace.ip("-6 route flush cache").map(drop)
    }
}
