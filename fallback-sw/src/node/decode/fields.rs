//! Fields of one object: each is read to a typed value, or its error is noted.

use std::{fmt::Display, net::IpAddr};

use ipnet::IpNet;
use offload_rules::{IdError, MacAddr, forwarding::StateError};

/// An object that is being read. A method returns `None` after it has noted what is wrong.
pub(super) struct Object<'a> {
    name: String,
    errors: &'a mut Vec<StateError>,
}

/// An address and a length. Octets of IPv4 with leading zeros are refused: some read them as octal (RFC 6943 §3.1.1).
pub(super) fn net(text: &str) -> Option<IpNet> {
    let (address, _) = text.split_once('/')?;
    address.parse::<IpAddr>().ok()?;
    text.parse().ok()
}

impl<'a> Object<'a> {
    pub(super) fn new(name: impl Into<String>, errors: &'a mut Vec<StateError>) -> Self {
        Self { name: name.into(), errors }
    }

    /// `nexthop 489`; without a number its place in the message: `nexthops[3]`.
    pub(super) fn numbered(kind: &str, id: u32, place: &str, errors: &'a mut Vec<StateError>) -> Self {
        let name = if id == 0 { format!("{kind} at {place}") } else { format!("{kind} {id}") };
        Self::new(name, errors)
    }

    pub(super) fn wrong(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.errors.push(StateError::new(self.name.clone(), field, problem));
    }

    /// Something of a later step.
    pub(super) fn not_implemented(&mut self, field: &str, what: &str) {
        self.wrong(field, format!("is not implemented yet by this node ({what})"));
    }

    pub(super) fn id<T>(&mut self, field: &str, number: u32, new: impl Fn(u32) -> Result<T, IdError>) -> Option<T> {
        match new(number) {
            Ok(id) => Some(id),
            Err(_) if number == 0 => {
                self.wrong(field, "is missing");
                None
            }
            Err(error) => {
                self.wrong(field, error.to_string());
                None
            }
        }
    }

    /// 0 stands for "none"; the outer `None` is an error.
    pub(super) fn optional_id<T>(
        &mut self,
        field: &str,
        number: u32,
        new: impl Fn(u32) -> Result<T, IdError>,
    ) -> Option<Option<T>> {
        if number == 0 { Some(None) } else { self.id(field, number, new).map(Some) }
    }

    pub(super) fn ids<T>(
        &mut self,
        field: &str,
        numbers: &[u32],
        new: impl Fn(u32) -> Result<T, IdError>,
    ) -> Option<Vec<T>> {
        self.each(field, numbers, |object, field, number| object.id(field, *number, &new))
    }

    /// A list, all of whose errors are noted.
    pub(super) fn each<P, T>(
        &mut self,
        field: &str,
        values: &[P],
        mut read: impl FnMut(&mut Self, &str, &P) -> Option<T>,
    ) -> Option<Vec<T>> {
        let mut typed = Vec::with_capacity(values.len());
        for (i, value) in values.iter().enumerate() {
            typed.extend(read(self, &format!("{field}[{i}]"), value));
        }
        (typed.len() == values.len()).then_some(typed)
    }

    /// A number within limits.
    pub(super) fn number<T: TryFrom<u32> + Display + Into<u32> + Copy>(
        &mut self,
        field: &str,
        value: u32,
        min: T,
        max: T,
    ) -> Option<T> {
        let typed = T::try_from(value).ok().filter(|_| (min.into()..=max.into()).contains(&value));
        if typed.is_none() {
            self.wrong(field, format!("{value} is out of range, use {min}..={max}"));
        }
        typed
    }

    /// A prefix whose host bits are 0.
    pub(super) fn prefix(&mut self, field: &str, text: &str) -> Option<IpNet> {
        if text.is_empty() {
            self.wrong(field, "is missing, write it as 192.168.1.0/24 or ff::13:6c00:2/128");
            return None;
        }
        let Some(net) = net(text) else {
            let hint = text.parse::<IpAddr>().map_or_else(
                |_| "write it as 192.168.1.0/24 or ff::13:6c00:2/128".to_owned(),
                |address| format!("write {} for this address alone", IpNet::from(address)),
            );
            self.wrong(field, format!("'{text}' is not a prefix, {hint}"));
            return None;
        };
        if net.trunc() != net {
            self.wrong(field, format!("'{text}' has host bits set, write {}", net.trunc()));
            return None;
        }
        Some(net)
    }

    /// An address of a host.
    pub(super) fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let Ok(address) = text.parse::<IpAddr>() else {
            self.wrong(field, format!("'{text}' is not an address, write it as 192.168.1.1 or fe80::1"));
            return None;
        };
        self.unicast(field, address).then_some(address)
    }

    /// Can a host have it? (RFC 1122 §3.2.1.3, RFC 4291 §2.)
    pub(super) fn unicast(&mut self, field: &str, address: IpAddr) -> bool {
        let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
        let bad = address.is_unspecified() || address.is_multicast() || broadcast;
        if bad {
            self.wrong(field, format!("{address} is not a unicast address, give that of one host"));
        }
        !bad
    }

    /// A unicast MAC.
    pub(super) fn mac(&mut self, field: &str, text: &str) -> Option<MacAddr> {
        match text.parse::<MacAddr>() {
            Ok(mac) if mac.is_multicast() => {
                self.wrong(field, format!("{mac} is a group address, give a unicast one"));
                None
            }
            Ok(mac) => Some(mac),
            Err(error) => {
                self.wrong(field, error.to_string());
                None
            }
        }
    }

    /// Octets in hexadecimal, which blanks, colons or dashes may separate.
    pub(super) fn octets(&mut self, field: &str, text: &str) -> Option<Vec<u8>> {
        let mut octets = Vec::new();
        for group in text.split([' ', ':', '-']).filter(|group| !group.is_empty()) {
            let mut digits = group.chars();
            while let Some(high) = digits.next() {
                let pair = (high.to_digit(16), digits.next().and_then(|low| low.to_digit(16)));
                let (Some(high), Some(low)) = pair else {
                    self.wrong(field, format!("'{group}' is not octets of two hexadecimal digits, write 00 0c 29 …"));
                    return None;
                };
                // Invariant: both are below 16.
                octets.push((high << 4 | low) as u8);
            }
        }
        Some(octets)
    }
}
