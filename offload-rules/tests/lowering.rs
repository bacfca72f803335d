//! Rules against packets, by a matcher that knows nothing of how rules are made.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "lowering/dialects.rs"]
mod dialects;
#[path = "lowering/document.rs"]
mod document;
#[path = "lowering/flow.rs"]
mod flow;
#[path = "lowering/golden.rs"]
mod golden;
#[path = "lowering/oracle.rs"]
mod oracle;
#[path = "lowering/packet.rs"]
mod packet;
#[path = "lowering/refusals.rs"]
mod refusals;
#[path = "lowering/shapes.rs"]
mod shapes;
#[path = "lowering/template.rs"]
mod template;
