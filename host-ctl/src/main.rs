//! host-ctl

fn main() {}
