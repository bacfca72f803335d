//! End-to-end scenarios: real hosts, real nodes, network namespaces. Each names itself and its result, and closes the packet
//! account of every node that it used.

mod churn;
mod device;
mod faults;
mod garbage;
mod gateway;
mod ike;
mod inline;
mod ipsec;
mod isolation;
mod kernel_peer;
mod l3vpn;
mod lab;
mod lifecycle;
mod neighbours;
mod offload;
mod policy;
mod punt;
