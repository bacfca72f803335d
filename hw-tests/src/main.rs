//! hw-tests

fn main() {}
