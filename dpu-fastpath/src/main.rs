//! dpu-fastpath

fn main() {}
