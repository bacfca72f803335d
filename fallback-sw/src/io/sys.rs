//! The system calls that the ports share, with errors that name the device.

use std::{
    ffi::c_void,
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use super::PortError;

/// A device name as the kernel takes it, padded with zeros.
pub(super) type RawName = [libc::c_char; libc::IFNAMSIZ];

/// The name as the kernel takes it.
///
/// # Errors
/// [`PortError::BadName`].
pub(super) fn raw_name(device: &str) -> Result<RawName, PortError> {
    let fits = !device.is_empty()
        && device.len() < libc::IFNAMSIZ
        && !matches!(device, "." | "..")
        && !device.bytes().any(|octet| octet == b'/' || octet == b':' || octet == 0 || octet.is_ascii_whitespace());
    if !fits {
        return Err(PortError::BadName { device: device.to_owned() });
    }
    let mut name: RawName = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    Ok(name)
}

/// What an errno of the network stack means for a device.
pub(super) fn device_error(device: &str, action: &'static str, source: io::Error) -> PortError {
    match source.raw_os_error() {
        Some(libc::ENODEV | libc::ENXIO | libc::EBADFD) => PortError::NoDevice { device: device.to_owned() },
        Some(libc::ENETDOWN) => PortError::Down { device: device.to_owned() },
        _ => PortError::Os { device: device.to_owned(), action, source },
    }
}

/// A socket that is closed on exec.
pub(super) fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just made this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets a socket option. `T` is what the option's documentation names.
pub(super) fn set_option<T: Copy>(socket: &impl AsFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: `value` is a live, initialised T of `len` octets; the kernel only reads it.
    let done = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, std::ptr::from_ref(value).cast::<c_void>(), len)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads a socket option into `value`, whose bit patterns are all valid (integers and structures of integers).
pub(super) fn get_option<T: Copy>(socket: &impl AsFd, level: i32, name: i32, mut value: T) -> io::Result<T> {
    let mut len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` octets, the size of `value`.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_mut(&mut value).cast::<c_void>(),
            &raw mut len,
        )
    };
    if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// An `ioctl` whose argument is a structure that the kernel reads or fills.
///
/// # Safety
/// `T` must be the structure that `request` is defined for, and every pointer in it must be valid for what the request does.
pub(super) unsafe fn ioctl<T>(fd: &impl AsFd, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: the caller vouches for the structure; it is live for the call.
    let done = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request as _, std::ptr::from_mut(argument)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
