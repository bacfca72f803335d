//! `drops`.

use std::fmt;

use proto::v1::Drops;

/// Every reason with its packets, then the sum.
///
/// # Errors
/// Those of `out`.
pub fn render(drops: &Drops, out: &mut impl fmt::Write) -> fmt::Result {
    for drop in &drops.drops {
        writeln!(out, "{:<30}{}", drop.reason, drop.packets)?;
    }
    let total: u64 = drops.drops.iter().map(|drop| drop.packets).sum();
    writeln!(out, "\n{:<30}{total}", "Total")
}

#[cfg(test)]
mod tests {
    use offload_rules::DropReason;
    use proto::v1::DropCount;

    use super::*;

    #[test]
    fn every_reason_is_listed_with_its_packets_and_the_sum() {
        let count = |reason: DropReason, packets| DropCount { reason: reason.name().to_owned(), packets };
        let drops =
            vec![count(DropReason::NoRoute, 11), count(DropReason::InvalidLabel, 0), count(DropReason::PolicyDeny, 4)];
        let mut text = String::new();
        render(&Drops { drops }, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        No Route                      11
        Invalid Label                 0
        Policy Deny                   4

        Total                         15
        ");
    }

    #[test]
    fn the_name_of_every_reason_fits_its_column() {
        for reason in DropReason::all() {
            assert!(reason.name().len() < 30, "{}", reason.name());
        }
    }
}
