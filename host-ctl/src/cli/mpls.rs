//! `mpls --dump` and `mpls --get`.

use std::fmt;

use proto::v1::ListLabelsResponse;

use super::text::row;

/// Labels and their nexthops.
///
/// # Errors
/// Those of `out`.
pub fn render(response: &ListLabelsResponse, out: &mut impl fmt::Write) -> fmt::Result {
    const WIDTHS: [usize; 1] = [11];
    writeln!(out, "MPLS Input Label Map\n")?;
    row(out, &WIDTHS, &[&"Label", &"NextHop"])?;
    writeln!(out, "------------------")?;
    response.labels.iter().try_for_each(|label| row(out, &WIDTHS, &[&label.label, &label.nexthop]))
}

#[cfg(test)]
mod tests {
    use proto::v1::MplsLabel;

    use super::*;

    #[test]
    fn labels_look_like_280_and_284_of_the_second_customer_edge() {
        let labels = vec![MplsLabel { label: 280, nexthop: 513 }, MplsLabel { label: 284, nexthop: 605 }];
        let mut text = String::new();
        render(&ListLabelsResponse { labels }, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        MPLS Input Label Map

        Label      NextHop
        ------------------
        280        513
        284        605
        ");
    }
}
