//! The state that a node starts with: the newer one of that given by `--state` and that kept in `--last-state`.

use std::path::Path;

use offload_rules::forwarding::Snapshot;

use super::persist::LastState;
use crate::replay;

/// The state that a node starts with, and the file that keeps the last one.
pub(super) struct InitialState {
    pub(super) snapshot: Snapshot,
    pub(super) last_state: Option<LastState>,
}

impl InitialState {
    /// Takes the file of the last state, and says which state is taken and why.
    ///
    /// # Errors
    /// A file that is of no use; a kept state that cannot be read when there is no other.
    pub(super) fn load(state: Option<&Path>, last_state_file: Option<&Path>) -> anyhow::Result<Self> {
        let given = state.map(replay::load_state).transpose()?;
        let mut last_state = last_state_file.map(LastState::open).transpose()?;
        let kept = match last_state.as_mut().map(LastState::load) {
            None | Some(Ok(None)) => None,
            Some(Ok(Some(kept))) => Some(kept),
            Some(Err(error)) if given.is_some() => {
                tracing::warn!(%error, "the kept state is of no use");
                None
            }
            Some(Err(error)) => return Err(error.into()),
        };
        if let (Some(last_state), Some(given)) = (&mut last_state, &given) {
            last_state.add_given_state(given);
        }
        let given_name = state.map(|file| file.display().to_string()).unwrap_or_default();
        let kept_name = last_state_file.map(|file| file.display().to_string()).unwrap_or_default();
        let of = |state: &Option<Snapshot>| state.as_ref().map(Snapshot::generation);
        let snapshot = match (of(&given), of(&kept)) {
            (Some(theirs), Some(ours)) if ours > theirs => {
                tracing::info!(
                    "beginning with the kept state {kept_name}, generation {ours}; --state {given_name} has {theirs}"
                );
                last_state.iter_mut().for_each(LastState::start_from_kept);
                kept
            }
            (Some(theirs), Some(ours)) => {
                tracing::info!(
                    "beginning with --state {given_name}, generation {theirs}; the kept state {kept_name} has {ours}"
                );
                given
            }
            (Some(theirs), None) => {
                tracing::info!("beginning with --state {given_name}, generation {theirs}");
                given
            }
            (None, Some(ours)) => {
                tracing::info!("beginning with the kept state {kept_name}, generation {ours}");
                last_state.iter_mut().for_each(LastState::start_from_kept);
                kept
            }
            (None, None) => {
                tracing::info!("beginning without a state, waiting for one");
                None
            }
        };
        Ok(Self { snapshot: snapshot.unwrap_or_else(Snapshot::empty), last_state })
    }
}
