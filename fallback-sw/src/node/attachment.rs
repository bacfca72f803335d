//! What works beside a running node and shows itself in its API.

use tonic::service::Routes;

use super::handle::Handle;

/// Something that works beside a running node.
pub trait Attachment {
    /// The node runs: its handle, and the services of its API, to which others may be added.
    fn attach(&mut self, node: &Handle, routes: Routes) -> Routes;

    /// The node is about to end; its workers still forward.
    fn detach(&mut self);
}
