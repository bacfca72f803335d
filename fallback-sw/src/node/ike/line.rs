//! The protocol of charon's plugin: a line of words for each request and each answer. Keys are never written, nor part of an error.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, str::FromStr};

use offload_rules::{
    VifId,
    forwarding::{IkeSaError, Lifetime, SaDirection, SaKey},
};

/// Version of the protocol.
pub const VERSION: u32 = 1;
/// Octets of the longest line with its end.
pub(super) const MAX_LINE: usize = 1024;

/// An SA as charon has negotiated it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSa {
    /// Which way.
    pub direction: SaDirection,
    /// Outer source.
    pub source: Ipv4Addr,
    /// Outer destination.
    pub destination: Ipv4Addr,
    /// Index.
    pub spi: u32,
    /// Key and salt.
    pub key: SaKey,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Replay window in packets.
    pub window: u32,
    /// In UDP: source and destination port.
    pub udp: Option<(u16, u16)>,
    /// Number of the tunnel vif; 0: found by source and destination.
    pub if_id: u32,
    /// Soft lifetime.
    pub soft: Lifetime,
    /// Hard lifetime.
    pub hard: Lifetime,
}

/// A request of charon's plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The first line of a connection: which instance of charon connects, and whether the connection is for events.
    Hello {
        /// Drawn by each charon when it starts.
        charon: u64,
        /// Events go here, and nothing is asked any more.
        events: bool,
    },
    /// An index that no SA has.
    GetSpi {
        /// Outer source and destination of the packets that will have it, from plugins that say so.
        between: Option<(Ipv4Addr, Ipv4Addr)>,
    },
    /// A new SA.
    AddSa(Box<NewSa>),
    /// Other addresses or ports.
    UpdateSa {
        /// Index.
        spi: u32,
        /// Outer destination so far.
        destination: Ipv4Addr,
        /// Outer source from now on.
        new_source: Ipv4Addr,
        /// Outer destination from now on.
        new_destination: Ipv4Addr,
        /// In UDP: source and destination port.
        udp: Option<(u16, u16)>,
    },
    /// Counters.
    QuerySa {
        /// Index.
        spi: u32,
        /// Outer destination.
        destination: Ipv4Addr,
    },
    /// The end of an SA.
    DelSa {
        /// Index.
        spi: u32,
        /// Outer destination.
        destination: Ipv4Addr,
    },
    /// The end of all.
    Flush,
}

/// An event for charon's plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A lifetime is over.
    Expire {
        /// Index.
        spi: u32,
        /// Outer destination.
        destination: Ipv4Addr,
        /// Its end; else time for a new one.
        hard: bool,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Expire { spi, destination, hard } = self;
        writeln!(f, "event expire spi={spi:08x} dst={destination} hard={}", u8::from(*hard))
    }
}

/// Why a line is refused. The first word is for programs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a line of the protocol.
    #[error("bad-request {0}")]
    Bad(String),
    /// Another version.
    #[error("bad-version {0}; this node speaks {VERSION}")]
    Version(u32),
    /// The line is not ended within 1024 octets.
    #[error("too-long a line has {MAX_LINE} octets at most")]
    TooLong,
    /// `hello` has to come first, once.
    #[error("no-hello begin with hello, once")]
    Hello,
    /// No such SA.
    #[error("unknown-sa no SA with spi {0:#010x} to {1}")]
    Unknown(u32, Ipv4Addr),
    /// No tunnel for it.
    #[error("no-tunnel {0}")]
    NoTunnel(String),
    /// The SA cannot be taken.
    #[error("refused {0}")]
    Sa(#[from] IkeSaError),
    /// The node is about to end.
    #[error("ended the node is shutting down")]
    Ended,
}

struct Words<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Words<'a> {
    fn take(&mut self, name: &str) -> Result<&'a str, Refused> {
        self.0.remove(name).ok_or_else(|| Refused::Bad(format!("{name}= is missing")))
    }

    fn parse<T: FromStr>(&mut self, name: &str) -> Result<T, Refused> {
        self.take(name)?.parse().map_err(|_| Refused::Bad(format!("{name}= is of no use")))
    }

    fn or_zero<T: FromStr + Default>(&mut self, name: &str) -> Result<T, Refused> {
        if self.0.contains_key(name) { self.parse(name) } else { Ok(T::default()) }
    }

    fn flag(&mut self, name: &str) -> Result<bool, Refused> {
        match self.take(name)? {
            "0" => Ok(false),
            "1" => Ok(true),
            _ => Err(Refused::Bad(format!("{name}= is 0 or 1"))),
        }
    }

    fn spi(&mut self) -> Result<u32, Refused> {
        u32::from_str_radix(self.take("spi")?, 16).map_err(|_| Refused::Bad("spi= is hexadecimal".to_owned()))
    }

    /// Source and destination, where both are given and IPv4.
    fn between(&mut self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        Some((self.parse("src").ok()?, self.parse("dst").ok()?))
    }

    fn udp(&mut self) -> Result<Option<(u16, u16)>, Refused> {
        if !self.flag("encap")? {
            return Ok(None);
        }
        let ports = (self.parse("sport")?, self.parse("dport")?);
        if ports.0 == 0 || ports.1 == 0 {
            return Err(Refused::Bad("sport= and dport= are 1..65535".to_owned()));
        }
        Ok(Some(ports))
    }

    fn lifetime(&mut self, kind: &str) -> Result<Lifetime, Refused> {
        let mut limit = |unit: &str| self.or_zero(&format!("{kind}_{unit}"));
        Ok(Lifetime { seconds: limit("seconds")?, bytes: limit("bytes")?, packets: limit("packets")? })
    }

    fn key(&mut self) -> Result<SaKey, Refused> {
        let bad = || Refused::Bad("key= is not 20 or 36 octets in hexadecimal".to_owned());
        let text = self.take("key")?;
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let digit = |octet: u8| char::from(octet).to_digit(16).map(|digit| digit as u8);
        if !rest.is_empty() || !matches!(pairs.len(), 20 | 36) {
            return Err(bad());
        }
        let mut octets = Vec::with_capacity(pairs.len());
        for [high, low] in pairs {
            match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => octets.push(high << 4 | low),
                _ => {
                    octets.fill(0);
                    return Err(bad());
                }
            }
        }
        // Its capacity is its length: the box is the same memory.
        Ok(SaKey::new(octets.into_boxed_slice()))
    }
}

impl Request {
    /// Reads a line without its end.
    ///
    /// # Errors
    /// [`Refused::Bad`] and [`Refused::Version`].
    pub fn parse(line: &[u8]) -> Result<Self, Refused> {
        let text = std::str::from_utf8(line).map_err(|_| Refused::Bad("not ASCII".to_owned()))?;
        let mut words = text.split_ascii_whitespace();
        let verb = words.next().ok_or_else(|| Refused::Bad("an empty line".to_owned()))?;
        let mut given = Words(BTreeMap::new());
        for word in words {
            let (name, value) =
                word.split_once('=').ok_or_else(|| Refused::Bad("a word is no name=value".to_owned()))?;
            if given.0.insert(name, value).is_some() {
                return Err(Refused::Bad("a name is given twice".to_owned()));
            }
        }
        let request = match verb {
            "hello" => {
                let version = given.parse("version")?;
                if version != VERSION {
                    return Err(Refused::Version(version));
                }
                let charon = u64::from_str_radix(given.take("charon")?, 16)
                    .map_err(|_| Refused::Bad("charon= is 64 bits in hexadecimal".to_owned()))?;
                Self::Hello { charon, events: given.flag("events")? }
            }
            "get-spi" => Self::GetSpi { between: given.between() },
            "add-sa" => {
                let direction = match given.take("dir")? {
                    "in" => SaDirection::Inbound,
                    "out" => SaDirection::Outbound,
                    _ => return Err(Refused::Bad("dir= is in or out".to_owned())),
                };
                Self::AddSa(Box::new(NewSa {
                    direction,
                    source: given.parse("src")?,
                    destination: given.parse("dst")?,
                    spi: given.spi()?,
                    key: given.key()?,
                    esn: given.flag("esn")?,
                    window: given.or_zero("window")?,
                    udp: given.udp()?,
                    if_id: given.or_zero("if_id")?,
                    soft: given.lifetime("soft")?,
                    hard: given.lifetime("hard")?,
                }))
            }
            "update-sa" => Self::UpdateSa {
                spi: given.spi()?,
                destination: given.parse("dst")?,
                new_source: given.parse("new_src")?,
                new_destination: given.parse("new_dst")?,
                udp: given.udp()?,
            },
            "query-sa" => Self::QuerySa { spi: given.spi()?, destination: given.parse("dst")? },
            "del-sa" => Self::DelSa { spi: given.spi()?, destination: given.parse("dst")? },
            "flush" => Self::Flush,
            _ => return Err(Refused::Bad("an unknown verb".to_owned())),
        };
        // A name that is not known is left alone: a newer plugin may say more.
        Ok(request)
    }
}

impl Refused {
    pub(super) fn no_tunnel(if_id: u32, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        let wanted = match VifId::new(if_id) {
            Ok(vif) => format!("vif {vif} is no tunnel with \"ike\" from {source}: set if_id_in and if_id_out to one"),
            Err(_) => format!(
                "not exactly one tunnel with \"ike\" from {source} to {destination}: set if_id_in and if_id_out to its vif"
            ),
        };
        Self::NoTunnel(wanted)
    }
}

#[cfg(test)]
mod tests;
