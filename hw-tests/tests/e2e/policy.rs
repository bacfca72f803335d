//! Access lists, and how an operator sees what they deny.

use hw_tests::lab::{L3vpn, Options, Ping, Site, Tenant, WebServer, scenario};
use proto::v1;

/// The access list on every tenant vif.
const TENANT_ACL: u32 = 65;

#[test]
fn a_denied_flow_is_seen_by_operators() -> Result<(), String> {
    scenario("a_denied_flow_is_seen_by_operators", || {
        let mut l3vpn = L3vpn::new(&Options::default())?;
        let host1 = l3vpn.host(Tenant::Blue, Site::Ce1);
        let page = Tenant::Blue.page(Site::Ce2);
        let _web = WebServer::start(l3vpn.lab(), l3vpn.host(Tenant::Blue, Site::Ce2), &page)?;
        assert_eq!(host1.curl("http://192.168.1.100/")?, page);

        // Deny TCP to port 80 before all else is permitted.
        let node = l3vpn.node(Site::Ce1)?;
        let deny = v1::Ace {
            id: 10,
            action: v1::AclAction::Deny.into(),
            proto: Some(6),
            destination_ports: Some(v1::PortRange { first: 80, last: 80 }),
            ..Default::default()
        };
        let permit = v1::Ace { id: 20, action: v1::AclAction::Permit.into(), ..Default::default() };
        let acl = |entries| v1::Acl { id: TENANT_ACL, name: "web".to_owned(), entries, default_action: 0 };
        node.client().change(v1::ForwardingDelta { acls: vec![acl(vec![deny, permit])], ..Default::default() })?;

        let refused = host1.curl_output("http://192.168.1.100/")?;
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
        // Only that: everything else still runs.
        host1.ping(&Ping::to("192.168.1.100"))?.all_answered()?;

        // The table of drops names the reason, the list of flows the flow with its action, and the flow the entry.
        let drops = node.host_ctl(&["drops", "--nonzero"])?;
        assert!(drops.lines().any(|line| line.starts_with("Flow Action Drop")), "{drops}");
        let list = node.host_ctl(&["flow", "--list", "--action", "D"])?;
        assert!(list.contains("192.168.1.100:80"), "{list}");
        assert!(!node.host_ctl(&["flow", "--list", "--action", "F"])?.contains("192.168.1.100:80"));
        let denied = node.client().flows(v1::ListFlowsRequest {
            action: v1::FlowAction::Drop.into(),
            destination_port: Some(80),
            ..Default::default()
        })?;
        assert!(
            !denied.is_empty() && denied.iter().all(|flow| (flow.acl, flow.ace) == (TENANT_ACL, 10)),
            "{denied:#?}"
        );
        for flow in &denied {
            let shown = node.host_ctl(&["flow", "--get", &flow.index.to_string()])?;
            assert!(shown.contains("65") && shown.contains("10"), "{shown}");
        }

        // Without the entry the same flow goes on.
        let permit = v1::Ace { id: 20, action: v1::AclAction::Permit.into(), ..Default::default() };
        node.client().change(v1::ForwardingDelta { acls: vec![acl(vec![permit])], ..Default::default() })?;
        assert_eq!(host1.curl("http://192.168.1.100/")?, page);
        l3vpn.assert_healthy()
    })
}
