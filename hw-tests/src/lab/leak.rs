//! The leak test: no plaintext on untrusted links.

use super::{Capture, CaptureVerdict, Edge, Lab, LabError, Namespace, check_capture};

/// Watches links for anything that is neither ESP, bare or in UDP, nor ARP.
#[derive(Debug)]
pub struct LeakWatch {
    captures: Vec<(String, Capture)>,
}

/// What may be seen on an untrusted link is what this does not take.
const LEAKS: &str = "not arp and not ip proto 50 and not udp port 4500";
/// Frames that prove a leak.
const PROOF: u32 = 1000;

impl LeakWatch {
    /// Begins to watch.
    ///
    /// # Errors
    /// When tcpdump does not start.
    pub fn start(lab: &Lab, edge: &Edge) -> Result<Self, LabError> {
        let start = |(namespace, device): (&Namespace, &str)| {
            let capture = Capture::filtered(lab, namespace, device, PROOF, LEAKS)?;
            Ok((format!("{device} of {}", namespace.role()), capture))
        };
        Ok(Self { captures: edge.untrusted().into_iter().map(start).collect::<Result<_, LabError>>()? })
    }

    /// Ends; what was in the clear on each link.
    ///
    /// # Errors
    /// When tcpdump does not end, or tshark cannot read.
    pub fn stop(self) -> Result<Vec<(String, CaptureVerdict)>, LabError> {
        let end = |(link, capture): (String, Capture)| Ok((link, check_capture(&capture.stop()?)?));
        self.captures.into_iter().map(end).collect()
    }

    /// Ends; fails when anything was in the clear. Returns the links that were watched.
    ///
    /// # Errors
    /// [`LabError::Violated`] with what was seen where.
    pub fn nothing_leaked(self) -> Result<Vec<String>, LabError> {
        let mut links = Vec::new();
        for (link, verdict) in self.stop()? {
            if verdict.frames > 0 {
                let seen = format!("{} frames in the clear on {link}: {:?}", verdict.frames, verdict.protocols);
                return Err(LabError::Violated(seen));
            }
            links.push(link);
        }
        Ok(links)
    }
}
