//! Longest prefix match.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::Route;

/// Routes of one VRF and one family. Persistent: a clone is cheap, and a changed clone shares what did not change.
#[derive(Debug, Clone, Default)]
pub struct Fib {
    _routes: Vec<Arc<Route>>,
}

#[allow(unused_variables, dead_code)]
impl Fib {
    /// Longest match.
    pub fn lookup(&self, destination: IpAddr) -> Option<&Arc<Route>> {
        todo!()
    }
    /// The route with exactly this prefix.
    pub fn get(&self, prefix: IpNet) -> Option<&Arc<Route>> {
        todo!()
    }
    /// Adds or replaces; returns what was there.
    pub fn insert(&mut self, route: Arc<Route>) -> Option<Arc<Route>> {
        todo!()
    }
    /// Removes; what it covered is found again.
    pub fn remove(&mut self, prefix: IpNet) -> Option<Arc<Route>> {
        todo!()
    }
    /// In order of prefix.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Route>> {
        std::iter::empty()
    }
    /// Number of routes.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// No routes.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
}
