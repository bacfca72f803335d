//! Sluicegate's host side. So far its command line, which asks the node on this machine.

#![forbid(unsafe_code)]

pub mod cli;
