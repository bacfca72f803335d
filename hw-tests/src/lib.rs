//! Labs of network namespaces as Rust types, the demo, and what the end-to-end tests share.
//!
//! Nothing here decides how the product forwards: a lab builds the world around a node, drives real hosts, and looks at the
//! node only through its public interfaces (command line, gRPC, wire).

pub mod bench_io;
pub mod demo;
pub mod demo_offload;
pub mod lab;
