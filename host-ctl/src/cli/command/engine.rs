//! `offload`: asks the engine that a node with a NIC has.

use std::io;

use proto::v1::{GetDiffRequest, GetOffloadStatusRequest, GetRulesRequest, ListReasonsRequest, SetEnabledRequest};
use tonic::{Response, Status};

use super::{
    super::{Error, Exit, args::OffloadWhat, offload},
    Session,
};

impl<W: io::Write> Session<'_, W> {
    pub(super) async fn offload(&mut self, what: OffloadWhat) -> Result<Exit, Error> {
        match what {
            OffloadWhat::Status => {
                let answer = self.offload.get_offload_status(GetOffloadStatusRequest {}).await;
                let status = self.engine_answer("offload status", answer)?;
                self.show(&status, |out| offload::render_status(&status, out))
            }
            OffloadWhat::Reasons => {
                let answer = self.offload.list_reasons(ListReasonsRequest {}).await;
                let reasons = self.engine_answer("offload reasons", answer)?;
                self.show(&reasons, |out| offload::render_reasons(&reasons, out))
            }
            OffloadWhat::Rules { flow } => {
                let what = format!("rules of flow {flow}");
                let answer = self.offload.get_rules(GetRulesRequest { flow }).await;
                let rules = self.engine_answer(&what, answer)?;
                if rules.forward.is_none() {
                    return Err(Error::Incomplete { what, part: "direction" });
                }
                self.show(&rules, |out| offload::render_rules(&rules, out))
            }
            OffloadWhat::Diff => {
                let answer = self.offload.get_diff(GetDiffRequest {}).await;
                let diff = self.engine_answer("offload diff", answer)?;
                self.show(&diff, |out| offload::render_diff(&diff, out))?;
                Ok(if diff.differences.is_empty() { Exit::Ok } else { Exit::Failed })
            }
            OffloadWhat::On => self.switch(true).await,
            OffloadWhat::Off => self.switch(false).await,
        }
    }

    async fn switch(&mut self, enabled: bool) -> Result<Exit, Error> {
        let what = if enabled { "offload on" } else { "offload off" };
        let answer = self.offload.set_enabled(SetEnabledRequest { enabled }).await;
        let result = self.engine_answer(what, answer)?;
        self.show(&result, |out| offload::render_switch(&result, out))
    }

    fn engine_answer<T>(&self, what: &str, answer: Result<Response<T>, Status>) -> Result<T, Error> {
        answer.map(Response::into_inner).map_err(|status| Error::of_offload_call(what, &status, self.seconds))
    }
}
