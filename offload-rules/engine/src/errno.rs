//! Error numbers that drivers answer with: Linux's generic ones (asm-generic/errno-base.h, errno.h), the same on x86_64 and aarch64.

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        $($(#[$doc])* pub const $name: i32 = $value;)*

        #[cfg(test)]
        const ALL: &[(i32, i32)] = &[$(($name, libc::$name)),*];
    };
}

errnos! {
    /// No such rule, session or file.
    ENOENT = 2,
    /// Input/output error.
    EIO = 5,
    /// Not now.
    EAGAIN = 11,
    /// No memory.
    ENOMEM = 12,
    /// In use.
    EBUSY = 16,
    /// It exists already.
    EEXIST = 17,
    /// The device is gone, or not started.
    ENODEV = 19,
    /// Not a valid argument.
    EINVAL = 22,
    /// No space left.
    ENOSPC = 28,
    /// Not implemented.
    ENOSYS = 38,
    /// No data available.
    ENODATA = 61,
    /// Not supported; the same number as EOPNOTSUPP.
    ENOTSUP = 95,
    /// Timed out.
    ETIMEDOUT = 110,
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_numbers_are_those_of_the_c_library() {
        for (ours, theirs) in super::ALL {
            assert_eq!(ours, theirs);
        }
    }
}
