//! Access lists.

use std::collections::HashSet;

use super::Check;
use crate::forwarding::{Ace, Acl};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

impl Check<'_> {
    pub(super) fn acl(&mut self, acl: &Acl) {
        let object = format_args!("acl {}", acl.id);
        if acl.id.get() == 0 {
            self.found.push(object, "id", "0 is no access list; use 1 or more");
        }
        let mut ids = HashSet::new();
        for (i, ace) in acl.entries.iter().enumerate() {
            if !ids.insert(ace.id) {
                let problem = format_args!("{} is given twice; number the entries of a list differently", ace.id);
                self.found.push(object, format_args!("entries[{i}].id"), problem);
            }
            self.ace(acl, i, ace);
        }
    }

    fn ace(&mut self, acl: &Acl, i: usize, ace: &Ace) {
        let object = format_args!("acl {}", acl.id);
        for (field, prefix) in [("source", ace.source), ("destination", ace.destination)] {
            if let Some(prefix) = prefix.filter(|prefix| prefix.addr() != prefix.network()) {
                let problem = format_args!("{prefix} has host bits set; write {}", prefix.trunc());
                self.found.push(object, format_args!("entries[{i}].{field}"), problem);
            }
        }
        if let (Some(source), Some(destination)) = (ace.source, ace.destination)
            && source.addr().is_ipv4() != destination.addr().is_ipv4()
        {
            let problem = format_args!("{destination} is of another family than the source {source}; use one family");
            self.found.push(object, format_args!("entries[{i}].destination"), problem);
        }
        let ranges = [("source_ports", true, ace.source_ports), ("destination_ports", false, ace.destination_ports)];
        for (field, of_source, ports) in ranges {
            let Some((first, last)) = ports else { continue };
            let field = format_args!("entries[{i}].{field}");
            if first > last {
                self.found.push(object, field, format_args!("{first} comes after {last}; write the smaller one first"));
            }
            match ace.proto {
                Some(TCP | UDP | SCTP) => {}
                Some(ICMP | ICMPV6) if of_source => {
                    let problem = "ICMP has no source ports; put the types into destination_ports";
                    self.found.push(object, field, problem);
                }
                Some(ICMP | ICMPV6) => {
                    if last > 255 {
                        self.found.push(object, field, format_args!("{last} is no ICMP type; use 0..=255"));
                    }
                }
                Some(proto) => {
                    let problem =
                        format_args!("protocol {proto} has no ports; leave them out, or use 6, 17, 132, 1 or 58");
                    self.found.push(object, field, problem);
                }
                None => {
                    self.found.push(object, field, "needs a protocol that has ports; set proto to 6, 17, 132, 1 or 58")
                }
            }
        }
    }
}
