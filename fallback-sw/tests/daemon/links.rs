//! What is said of links that are not there.

use proto::v1::OperState;

use crate::process::{Daemon, until, write};

const STATE: &str = r#"{"generation": 1, "vrfs": [{"id": 1, "name": "one"}],
    "vifs": [{"id": 1, "name": "trunk-of-test", "type": "PHYSICAL", "mac": "02:00:00:00:00:c1", "vrf": 1},
      {"id": 2, "name": "tagged", "type": "PHYSICAL_VLAN", "parent": 1, "outerVlan": {"vid": 300}, "vrf": 1,
        "mac": "02:00:00:00:00:c1"}]}"#;

#[test]
fn a_sub_interface_is_down_for_the_reason_of_its_parent() {
    let folder = tempfile::tempdir().unwrap();
    let state = write(folder.path(), "state.json", STATE);
    let node = Daemon::start(folder.path(), "node", &["--state", &state]);
    for vif in [1, 2] {
        let info = until("the vif is down, and why", || {
            Some(node.vif(vif)).filter(|info| info.oper_state() == OperState::Down && !info.oper_error.is_empty())
        });
        assert!(info.oper_error.contains("'trunk-of-test'"), "vif {vif}: '{}'", info.oper_error);
    }
}
