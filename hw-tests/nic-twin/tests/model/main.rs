//! The NIC's model against packets made by hand and against a linear scan.
#![allow(clippy::unwrap_used, clippy::panic)]

mod actions;
mod hairpin;
mod kit;
mod limits;
mod matching;
mod mlx5;
mod oracle;
mod parsing;
mod sessions;
mod tables;
