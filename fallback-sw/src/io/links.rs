//! Link events of the kernel, also of links that go down for a moment (rtnetlink(7)): a look at a device every half second misses them.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use super::sys;

/// Octets of `nlmsghdr` and of `ifinfomsg`.
const HEADER: usize = 16;
const INFO: usize = 16;
/// Octets read at once: more than the kernel puts together for a listener.
const ROOM: usize = 32_768;

/// Links of this network namespace.
#[derive(Debug)]
pub struct Links {
    socket: OwnedFd,
    room: Vec<u8>,
    /// How often each device has lost its carrier, by interface index.
    carrier_losses: BTreeMap<i32, u32>,
}

impl Links {
    /// Listens from now on.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn listen() -> io::Result<Self> {
        let socket = sys::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_NONBLOCK, libc::NETLINK_ROUTE)?;
        // SAFETY: a structure of integers, for all of which zero is a value.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = libc::RTMGRP_LINK as u32;
        let len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        // SAFETY: `address` is a live sockaddr_nl of `len` octets.
        if unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let links = Self { socket, room: vec![0; ROOM], carrier_losses: BTreeMap::new() };
        links.ask()?;
        Ok(links)
    }

    /// Asks for all devices as they are now; the answers come as news do.
    fn ask(&self) -> io::Result<()> {
        let mut request = [0u8; HEADER + INFO];
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        let (len, kind) = ((HEADER + INFO) as u32, libc::RTM_GETLINK);
        request[..4].copy_from_slice(&len.to_ne_bytes());
        request[4..6].copy_from_slice(&kind.to_ne_bytes());
        request[6..8].copy_from_slice(&flags.to_ne_bytes());
        // SAFETY: the kernel reads `len` octets of a live array.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Names of the devices whose link was lost since the last call, or is down. Never waits.
    pub fn take_lost(&mut self) -> Vec<String> {
        let mut lost = Vec::new();
        loop {
            let (room, len) = (self.room.as_mut_ptr(), self.room.len());
            // SAFETY: the kernel writes at most `len` octets into a live vector of that length.
            let read = unsafe { libc::recv(self.socket.as_raw_fd(), room.cast(), len, 0) };
            let Ok(read) = usize::try_from(read) else {
                if io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS) && self.ask().is_ok() {
                    // LinkChange were lost: the counts of what is there tell what was missed.
                    continue;
                }
                return lost;
            };
            for news in messages(self.room.get(..read).unwrap_or(&[])) {
                lost.extend(news.name.clone().filter(|_| is_loss(&mut self.carrier_losses, &news)));
            }
            if read == 0 {
                return lost;
            }
        }
    }
}

/// A change of a device's link.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LinkChange {
    index: i32,
    name: Option<String>,
    /// The device is set up and operational, and not deleted.
    operational: bool,
    gone: bool,
    /// Absent before Linux 4.16.
    carrier_losses: Option<u32>,
}

/// Was the link lost since the news before?
fn is_loss(known: &mut BTreeMap<i32, u32>, news: &LinkChange) -> bool {
    let before = match (news.gone, news.carrier_losses) {
        (false, Some(losses)) => known.insert(news.index, losses),
        _ => known.remove(&news.index),
    };
    !news.operational || before.zip(news.carrier_losses).is_some_and(|(before, now)| now != before)
}

/// The messages about links in what was received; others are skipped, and so is what follows a malformed one.
fn messages(mut octets: &[u8]) -> impl Iterator<Item = LinkChange> + '_ {
    std::iter::from_fn(move || {
        loop {
            let len = usize::try_from(word(octets, 0)?).ok().filter(|len| *len >= HEADER)?;
            let (message, rest) = (octets.get(..len)?, octets.get(len.next_multiple_of(4)..).unwrap_or(&[]));
            octets = rest;
            if let Some(news) = news(message) {
                return Some(news);
            }
        }
    })
}

fn news(message: &[u8]) -> Option<LinkChange> {
    let kind = half(message, 4)?;
    let gone = kind == libc::RTM_DELLINK;
    if !gone && kind != libc::RTM_NEWLINK {
        return None;
    }
    let index = word(message, HEADER + 4)?.cast_signed();
    let running = (libc::IFF_UP | libc::IFF_RUNNING).cast_unsigned();
    let operational = !gone && word(message, HEADER + 8)? & running == running;
    let (mut name, mut carrier_losses) = (None, None);
    let mut attributes = message.get(HEADER + INFO..)?;
    while let (Some(len), Some(kind)) = (half(attributes, 0), half(attributes, 2)) {
        let len = usize::from(len);
        let Some(value) = attributes.get(4..len) else { break };
        match kind {
            libc::IFLA_IFNAME => {
                let name_end = value.iter().position(|octet| *octet == 0).unwrap_or(value.len());
                name = value.get(..name_end).map(|name| String::from_utf8_lossy(name).into_owned());
            }
            libc::IFLA_CARRIER_DOWN_COUNT => carrier_losses = word(value, 0),
            _ => {}
        }
        attributes = attributes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some(LinkChange { index, name, operational, gone, carrier_losses })
}

fn word(octets: &[u8], at: usize) -> Option<u32> {
    octets.get(at..at + 4)?.first_chunk().map(|octets| u32::from_ne_bytes(*octets))
}

fn half(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..at + 2)?.first_chunk().map(|octets| u16::from_ne_bytes(*octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: u32 = (libc::IFF_UP | libc::IFF_RUNNING) as u32;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = value.len() + 4;
        let mut octets = [&(len as u16).to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        octets.resize(len.next_multiple_of(4), 0);
        octets
    }

    fn message(kind: u16, flags: u32, losses: Option<u32>) -> Vec<u8> {
        let mut body = [&[0; 4][..], &7i32.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 4]].concat();
        body.extend(attribute(libc::IFLA_MTU, &1500u32.to_ne_bytes()));
        body.extend(attribute(libc::IFLA_IFNAME, b"wan0\0"));
        body.extend(losses.map(|n| attribute(libc::IFLA_CARRIER_DOWN_COUNT, &n.to_ne_bytes())).unwrap_or_default());
        let len = (HEADER + body.len()) as u32;
        [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], &body].concat()
    }

    fn losses(messages_of: &[Vec<u8>]) -> Vec<bool> {
        let mut known = BTreeMap::new();
        let octets = messages_of.concat();
        messages(&octets)
            .map(|news| {
                assert_eq!((news.index, news.name.as_deref()), (7, Some("wan0")));
                is_loss(&mut known, &news)
            })
            .collect()
    }

    #[test]
    fn a_link_is_lost_when_it_is_down_gone_or_was_down_between_two_news() {
        let up = |count| message(libc::RTM_NEWLINK, UP, Some(count));
        let no_carrier = message(libc::RTM_NEWLINK, libc::IFF_UP as u32, Some(2));
        let gone = message(libc::RTM_DELLINK, UP, Some(3));
        let told = losses(&[up(1), up(1), no_carrier, up(2), up(3), gone, up(3)]);
        assert_eq!(told, [false, false, true, false, true, true, false]);
    }

    #[test]
    fn a_kernel_that_does_not_count_tells_by_the_flags_alone() {
        let news = |flags| message(libc::RTM_NEWLINK, flags, None);
        assert_eq!(losses(&[news(UP), news(0), news(UP)]), [false, true, false]);
    }

    #[test]
    fn other_messages_are_skipped_and_cut_ones_end_it() {
        let other = message(libc::RTM_NEWROUTE, UP, None);
        let link = message(libc::RTM_NEWLINK, UP, None);
        let octets = [&other[..], &link].concat();
        assert_eq!(messages(&octets).count(), 1);
        for len in 0..link.len() {
            let cut = &link[..len];
            assert_eq!(messages(cut).count(), 0, "{len}");
        }
        for len in 0..=u16::MAX {
            // Any length of the first attribute.
            let mut spoilt = link.clone();
            spoilt[HEADER + INFO..HEADER + INFO + 2].copy_from_slice(&len.to_ne_bytes());
            assert!(messages(&spoilt).count() <= 1);
        }
    }
}
