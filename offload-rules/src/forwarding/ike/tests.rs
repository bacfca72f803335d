use super::{
    super::{
        Lifetime, SaKey,
        testing::{ipsec, vif_id},
    },
    *,
};
use crate::forwarding::{Delta, State, Vif};

fn empty() {}
