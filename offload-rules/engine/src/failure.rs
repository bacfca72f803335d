//! What a NIC or its driver refuses, and what to do about it.

use offload_rules::lower::FailureClass;

use crate::errno;

/// Why a NIC, or its driver, did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{class} (errno {errno}): {message}")]
pub struct Failure {
    /// What to do about it.
    pub class: FailureClass,
    /// As the driver gave it, positive; 0 where there was none.
    pub errno: i32,
    /// The driver's error message, for operators.
    pub message: String,
}

impl Failure {
    /// A failure with the class that [`classify`] finds. The sign of `errno` does not matter: drivers use both.
    #[must_use]
    pub fn from_errno(errno: i32, message: impl Into<String>) -> Self {
        Self { class: classify(errno), errno: errno.saturating_abs(), message: message.into() }
    }
}

/// The class of an errno (either sign). Drivers disagree on errnos, so a class only decides when to try again, never whether the
/// flow is safe in software: it always is.
#[must_use]
pub fn classify(errno: i32) -> FailureClass {
    match errno.saturating_abs() {
        errno::ENOTSUP | errno::EINVAL | errno::ENOSYS => FailureClass::Shape,
        // ENODATA: mlx5 has no counters left (mlx5_flow_dv.c, `flow_dv_counter_pool_prepare`).
        errno::ENOSPC | errno::ENOMEM | errno::ENOENT | errno::ENODATA => FailureClass::Capacity,
        errno::EAGAIN | errno::EBUSY => FailureClass::Busy,
        errno::EEXIST => FailureClass::Duplicate,
        errno::ETIMEDOUT => FailureClass::Timeout,
        _ => FailureClass::Device,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_have_the_classes_that_drivers_mean_whatever_their_sign() {
        for (errnos, class) in [
            (&[errno::ENOTSUP, libc::EOPNOTSUPP, errno::EINVAL, errno::ENOSYS][..], FailureClass::Shape),
            (&[errno::ENOSPC, errno::ENOMEM, errno::ENOENT, errno::ENODATA], FailureClass::Capacity),
            (&[errno::EAGAIN, libc::EWOULDBLOCK, errno::EBUSY], FailureClass::Busy),
            (&[errno::EEXIST], FailureClass::Duplicate),
            (&[errno::EIO, errno::ENODEV, 0, i32::MIN], FailureClass::Device),
        ] {
            for errno in errnos {
                assert_eq!(classify(*errno), class, "{errno}");
                assert_eq!(classify(errno.wrapping_neg()), class, "-{errno}");
            }
        }
    }
}
