//! The tables in which names of rules are looked up: ports, sessions, stages.

use super::stages::Stages;
use crate::{port::PortSet, security::Sessions};

/// The tables in which names of rules are looked up.
#[derive(Debug, Clone, Copy)]
pub(super) struct NameTables<'a> {
    pub(super) ports: &'a PortSet,
    pub(super) sessions: &'a Sessions,
    pub(super) stages: &'a Stages,
}
