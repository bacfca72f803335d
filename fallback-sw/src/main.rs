//! The daemon of a customer edge.

fn main() {}
