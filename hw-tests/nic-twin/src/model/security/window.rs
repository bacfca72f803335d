//! The replay window (RFC 4303 §3.4.3 and Appendix A2), as a set of the numbers that were received.

use std::collections::BTreeSet;

/// Why a number is refused; `None` where there is no such number.
pub(super) struct Replayed;

/// The window of one session.
pub(super) struct Window {
    size: u64,
    esn: bool,
    /// Lowest number that may be received at all.
    from: u64,
    top: u64,
    seen: BTreeSet<u64>,
}

impl Window {
    /// Packets that it spans, 0: no protection; and the lowest number that it takes.
    pub(super) fn new(size: u32, esn: bool, from: u64) -> Window {
        Window { size: size.into(), esn, from, top: from - 1, seen: BTreeSet::new() }
    }

    /// The full number of which these are the lower 32 bits, if it may be received.
    pub(super) fn check(&self, low: u32) -> Result<u64, Replayed> {
        let number = if self.esn { self.nearest(low).ok_or(Replayed)? } else { low.into() };
        if self.size == 0 {
            return Ok(number);
        }
        let left = self.left().is_some_and(|left| number <= left);
        if number < self.from || left || self.seen.contains(&number) { Err(Replayed) } else { Ok(number) }
    }

    /// The highest number left of the window; `None` while nothing is.
    fn left(&self) -> Option<u64> {
        self.top.checked_sub(self.size)
    }

    /// RFC 4303 Appendix A2.2: the half that is not sent is the one with which the number is in the window, or else right of it.
    /// `None`: that would be beyond the last number there is.
    fn nearest(&self, low: u32) -> Option<u64> {
        let (low, high) = (u64::from(low), self.top >> 32);
        let first = self.top.saturating_sub(self.size.max(1) - 1);
        let same = high << 32 | low;
        if same >= first && same >> 32 == high {
            // In the window or right of it; or it is of the round before, when the window reaches back into that.
            let before = same.checked_sub(1 << 32).filter(|number| *number >= first);
            return Some(before.unwrap_or(same));
        }
        same.checked_add(1 << 32)
    }

    /// Takes lower numbers too, as far as it reaches back.
    pub(super) fn without_floor(self) -> Window {
        Window { from: 1, ..self }
    }

    /// The packet with this number was authentic.
    pub(super) fn take(&mut self, number: u64) {
        self.top = self.top.max(number);
        self.seen.insert(number);
        let left = self.left();
        while self.seen.first().is_some_and(|oldest| left.is_some_and(|left| *oldest <= left)) {
            self.seen.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(window: &mut Window, number: u64) -> bool {
        match window.check(number as u32) {
            Ok(full) if full == number => {
                window.take(number);
                true
            }
            _ => false,
        }
    }

    #[test]
    fn each_number_is_taken_once_in_any_order_inside_the_window() {
        let mut window = Window::new(64, false, 1);
        for number in [1, 5, 3, 2, 4, 100, 37, 99, 38] {
            assert!(takes(&mut window, number), "{number}");
            assert!(!takes(&mut window, number), "{number} twice");
        }
        assert!(!takes(&mut window, 36), "left of the window");
        assert!(!takes(&mut window, 0));
    }

    #[test]
    fn numbers_below_the_first_are_not_taken() {
        let mut window = Window::new(64, true, 1000);
        assert!(!takes(&mut window, 999));
        assert!(takes(&mut window, 1000));
    }

    #[test]
    fn without_a_floor_lower_numbers_are_taken_as_far_as_the_window_reaches() {
        let mut window = Window::new(64, true, 1000).without_floor();
        assert!(!takes(&mut window, 935));
        for number in [936, 999, 1000] {
            assert!(takes(&mut window, number), "{number}");
            assert!(!takes(&mut window, number), "{number} twice");
        }
    }

    #[test]
    fn the_half_that_is_not_sent_is_found_across_the_end_of_a_round() {
        let round = 1_u64 << 32;
        let mut window = Window::new(64, true, round - 10);
        for number in [round - 10, round - 1, round + 3, round - 2, round, round + 60, round - 3] {
            assert!(takes(&mut window, number), "{number:#x}");
        }
        assert!(!takes(&mut window, round - 4), "left of the window");
        assert!(takes(&mut window, round + 61));
    }

    #[test]
    fn the_window_ends_with_the_last_number() {
        for size in [0, 1, 64] {
            let mut window = Window::new(size, true, u64::MAX - 1);
            assert!(window.check(0).is_err(), "window {size}: there is no number beyond the last");
            assert!(takes(&mut window, u64::MAX - 1), "window {size}");
            assert!(takes(&mut window, u64::MAX), "window {size}");
            assert!(window.check(0).is_err(), "window {size}");
            assert_eq!(takes(&mut window, u64::MAX), size == 0, "window {size}: twice");
        }
    }
}
