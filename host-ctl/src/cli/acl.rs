//! `acl`.

use std::fmt;

use proto::v1::{Ace, AclAction, AclScope, ListAclsResponse, PortRange};

use super::text::{protocol, row};

/// Each list with its entries, a blank line between two.
///
/// # Errors
/// Those of `out`.
pub fn render(response: &ListAclsResponse, out: &mut impl fmt::Write) -> fmt::Result {
    for (i, acl) in response.acls.iter().enumerate() {
        if i > 0 {
            writeln!(out)?;
        }
        let default = match acl.default_action() {
            AclAction::Unspecified => "next list",
            AclAction::Permit => "permit",
            AclAction::Deny => "deny",
        };
        let name = if acl.name.is_empty() { String::new() } else { format!("  Name:{}", acl.name) };
        writeln!(out, "Acl:{}{name}  Entries:{}  Default:{default}", acl.id, acl.entries.len())?;
        acl.entries.iter().try_for_each(|entry| ace(entry, out))?;
    }
    Ok(())
}

fn ace(ace: &Ace, out: &mut impl fmt::Write) -> fmt::Result {
    let action = match ace.action() {
        AclAction::Unspecified => "-",
        AclAction::Permit => "permit",
        AclAction::Deny => "deny",
    };
    let scope = match ace.scope() {
        AclScope::Stateful => "stateful",
        AclScope::Stateless => "stateless",
    };
    let proto = ace.proto.map_or_else(|| "any".to_owned(), protocol);
    let source = end(&ace.source, ace.source_ports.as_ref());
    let destination = end(&ace.destination, ace.destination_ports.as_ref());
    row(out, &[6, 10, 8, 11, 8], &[&"", &ace.id, &action, &scope, &proto, &format!("{source} -> {destination}")])
}

/// `10.0.0.0/8 80-81`, `any 53`, `any`.
fn end(prefix: &str, ports: Option<&PortRange>) -> String {
    let prefix = if prefix.is_empty() { "any" } else { prefix };
    match ports {
        None => prefix.to_owned(),
        Some(ports) if ports.first == ports.last => format!("{prefix} {}", ports.first),
        Some(ports) => format!("{prefix} {}-{}", ports.first, ports.last),
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::Acl;

    use super::*;

    #[test]
    fn lists_are_shown_with_their_entries_in_order() {
        let web = Ace {
            id: 1,
            action: AclAction::Permit.into(),
            proto: Some(6),
            source: "192.168.1.0/24".into(),
            destination_ports: Some(PortRange { first: 80, last: 80 }),
            ..Ace::default()
        };
        let rest = Ace {
            id: 2,
            action: AclAction::Deny.into(),
            scope: AclScope::Stateless.into(),
            destination: "10.0.0.0/8".into(),
            source_ports: Some(PortRange { first: 1024, last: 65535 }),
            ..Ace::default()
        };
        let acls = vec![
            Acl { id: 65, name: "tenant".into(), entries: vec![web, rest], default_action: 0 },
            Acl { id: 67, default_action: AclAction::Deny.into(), ..Acl::default() },
        ];
        let mut text = String::new();
        render(&ListAclsResponse { acls }, &mut text).unwrap();
        insta::assert_snapshot!(text, @"
        Acl:65  Name:tenant  Entries:2  Default:next list
              1         permit  stateful   TCP     192.168.1.0/24 -> any 80
              2         deny    stateless  any     any 1024-65535 -> 10.0.0.0/8

        Acl:67  Entries:0  Default:deny
        ");
    }
}
