//! Links: pairs of virtual Ethernet devices.

use std::time::Duration;

use super::{LabError, Namespace};

/// One end of a link.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Name of the device there.
    pub device: &'a str,
    /// MAC: "00:0c:29:0f:f4:a1".
    pub mac: &'a str,
}

/// A link between two namespaces. It goes with either namespace, or by [`Veth::unplug`].
#[derive(Debug)]
pub struct Veth;

impl Veth {
    /// Connects two namespaces. Both ends are up and send complete frames: without offloads, checksums are filled in and
    /// nothing is longer than the MTU, as on a real wire.
    ///
    /// # Errors
    /// What `ip` or `ethtool` say.
    pub fn plug(a: End<'_>, b: End<'_>, mtu: u16) -> Result<Self, LabError> {
        a.namespace.ip(&format!(
            "link add name {} address {} mtu {mtu} type veth peer name {} address {} mtu {mtu} netns {}",
            a.device,
            a.mac,
            b.device,
            b.mac,
            b.namespace.name()
        ))?;
        for end in [a, b] {
            let off = ["-K", end.device, "tx", "off", "tso", "off", "gso", "off", "gro", "off"];
            end.namespace.run("ethtool", &off, Duration::from_secs(10))?.success()?;
            end.namespace.ip(&format!("link set {} up", end.device))?;
        }
        Ok(Self)
    }

    /// Removes the link that has `device` at this end; both ends disappear.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn unplug(namespace: &Namespace, device: &str) -> Result<(), LabError> {
        namespace.ip(&format!("link del {device}")).map(drop)
    }
}
