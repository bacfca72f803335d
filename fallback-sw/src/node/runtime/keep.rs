//! What the control thread keeps on disk: reserved sequence numbers before they are used, and the state in force for the next start.

use std::sync::Arc;

use offload_rules::{
    SaId,
    forwarding::{IKE_SAS, Sa, SaDirection, Snapshot, StateError, StateErrors},
};

use super::{Applied, Command, ControlThread};
use crate::{node::persist::LastState, worker::Grant};

/// Milliseconds between two attempts to keep what could not be kept.
const KEEP_AGAIN_MS: u64 = 2000;

/// What else is said when not even the numbers could be kept.
const NOT_KEPT: &str = "; and the state is in force and could not be kept: a restart would not begin with it. It is kept as soon as it can be";

/// What is saved, and what is still to be saved.
pub(super) struct StateKeeper {
    file: Option<LastState>,
    /// Numbers that are not on disk yet.
    ungranted: Vec<Grant>,
    /// The ledger on disk is not that of this run.
    is_ledger_due: bool,
    /// The state on disk is not the one in force.
    is_state_due: bool,
    again_at: u64,
    /// What is wrong, as it was logged last.
    told: Option<String>,
}

impl StateKeeper {
    pub(super) fn new(file: Option<LastState>) -> Self {
        let is_state_due = file.as_ref().is_some_and(|file| !file.is_in_force());
        Self { file, ungranted: Vec::new(), is_ledger_due: true, is_state_due, again_at: 0, told: None }
    }

    fn is_due(&self) -> bool {
        self.file.is_some() && (self.is_state_due || self.is_ledger_due || !self.ungranted.is_empty())
    }

    /// Something has been kept.
    fn kept(&mut self) {
        if !self.is_due()
            && self.told.take().is_some()
            && let Some(file) = &self.file
        {
            tracing::info!(file = %file.file().display(), "what is in force is kept again");
        }
    }

    /// Logs once for each problem, not with each attempt.
    fn trouble(&mut self, problem: String) {
        if self.told.as_ref() != Some(&problem) {
            tracing::error!("{problem}");
            self.told = Some(problem);
        }
    }
}

/// Why an outbound SA needs a place to keep its numbers.
pub(super) fn no_file(sa: SaId) -> String {
    format!(
        "sa {sa} is OUTBOUND, and there is no file to keep its sequence numbers in: run the node with --last-state, so that none \
         is used twice after a restart"
    )
}

impl ControlThread {
    /// Keeps the numbers that the node begins with. The state follows: one without numbers is one whose numbers were lost.
    pub(super) fn begin_keeping(&mut self) {
        for (sa, why) in self.control.refused() {
            tracing::error!(%sa, "security association refused: {why}; give it a new key");
        }
        self.grant();
    }

    /// A state or a change is in force: it is saved, and the caller gets warnings.
    pub(super) fn applied(&mut self, applied: Result<Arc<Snapshot>, StateErrors>) -> Result<Applied, StateErrors> {
        let snapshot = applied?;
        self.keeper.is_state_due = true;
        self.hold();
        // Before the SAs that use them.
        self.grant();
        self.adopt(&snapshot);
        self.tell_ike();
        self.reconcile_ports();
        self.keep_state();
        tracing::info!(generation = snapshot.generation(), "forwarding state in force");
        Ok(Applied { generation: snapshot.generation(), warnings: self.warnings() })
    }

    fn warnings(&self) -> Vec<String> {
        let refused = |(sa, why)| format!("sa {sa} is refused and seals nothing: {why}; give it a new key");
        let mut warnings: Vec<String> = self.control.refused().map(refused).collect();
        if self.keeper.is_due() {
            warnings.extend(self.keeper.told.clone());
        }
        warnings
    }

    /// Refuses outbound SAs where the sequence numbers that they use could not be kept.
    pub(super) fn accept(&self, sas: &[Sa]) -> Result<(), StateErrors> {
        let outbound = sas.iter().filter(|sa| sa.direction == SaDirection::Outbound && self.keeper.file.is_none());
        let errors: Vec<_> =
            outbound.map(|sa| StateError::new(format!("sa {}", sa.id), "direction", no_file(sa.id))).collect();
        if errors.is_empty() { Ok(()) } else { Err(StateErrors(errors)) }
    }

    /// Lets workers use what has been reserved, once it is on disk.
    pub(super) fn grant(&mut self) {
        let now = self.now();
        let grants = self.control.take_grants();
        if grants.is_empty() && now < self.keeper.again_at {
            return;
        }
        // No other run of the node has the keys of IKE: their numbers need not be saved.
        let (of_ike, others): (Vec<_>, Vec<_>) =
            grants.into_iter().partition(|grant| IKE_SAS.contains(&grant.sa.id.get()));
        self.tell_of(of_ike);
        let keeper = &mut self.keeper;
        keeper.ungranted.extend(others);
        let Some(file) = &mut keeper.file else { return };
        if !keeper.is_ledger_due && keeper.ungranted.is_empty() {
            return;
        }
        match file.save_sequences(self.control.sequences()) {
            Ok(()) => {
                keeper.is_ledger_due = false;
                let grants = std::mem::take(&mut keeper.ungranted);
                keeper.kept();
                self.tell_of(grants);
            }
            Err(error) => {
                keeper.is_ledger_due = true;
                keeper.again_at = now + KEEP_AGAIN_MS;
                let path = file.sequences_file();
                // Not without its numbers.
                let state = if keeper.is_state_due { NOT_KEPT } else { "" };
                keeper.trouble(format!(
                    "{}: {error}: sequence numbers could not be reserved; security associations without any seal nothing until \
                     they can{state}",
                    path.display()
                ));
            }
        }
    }

    fn tell_of(&self, grants: Vec<Grant>) {
        if !grants.is_empty() {
            let grants: Arc<[Grant]> = grants.into();
            self.workers.iter().for_each(|worker| worker.send_command(Command::Grant(Arc::clone(&grants))));
        }
    }

    fn keep_state(&mut self) {
        let keeper = &mut self.keeper;
        let Some(file) = &mut keeper.file else { return };
        if !keeper.is_state_due || keeper.is_ledger_due {
            return;
        }
        match file.save(&self.control.snapshot().to_state()) {
            Ok(()) => {
                keeper.is_state_due = false;
                keeper.kept();
            }
            Err(error) => {
                let problem = format!(
                    "{}: {error}: the state is in force and could not be kept; a restart would not begin with it. It is kept as \
                     soon as it can be",
                    file.file().display()
                );
                keeper.trouble(problem);
            }
        }
    }

    /// Makes sure that what is kept next goes to a folder that is this node's: in one that was made again, the numbers come first.
    fn hold(&mut self) {
        let keeper = &mut self.keeper;
        let Some(file) = &mut keeper.file else { return };
        // Where it fails, saving fails the same way, and reports it.
        if file.hold().is_ok_and(|made_again| made_again) {
            (keeper.is_ledger_due, keeper.again_at) = (true, 0);
        }
    }

    /// Keeps, at an orderly end, what is in force and not kept yet.
    pub(super) fn end_keeping(&mut self) {
        if self.keeper.is_due() {
            self.hold();
            self.grant();
            self.keep_state();
        }
    }

    /// Keeps what is in force and not kept yet.
    pub(super) fn keep_again(&mut self) {
        let now = self.now();
        if self.keeper.is_due() && now >= self.keeper.again_at {
            self.hold();
            self.grant();
            self.keep_state();
            self.keeper.again_at = now + KEEP_AGAIN_MS;
        }
    }
}
