//! One question: a chain of rules is put into the NIC in its order, and taken out again.

use std::time::{Duration, Instant};

use offload_engine::{Completion, Failure, RuleBackend, Token};
use offload_rules::lower::{Chain, Rule, Unsupported};

/// How long a NIC may take for one operation.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at what has completed.
const LOOK: Duration = Duration::from_micros(100);

/// What was asked of the driver when it refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Validate,
    Create,
    Destroy,
}

impl Step {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Create => "create",
            Self::Destroy => "destroy",
        }
    }
}

/// What a NIC says to a question.
pub(super) enum Answer {
    /// The profile does not ask.
    Unsupported(Unsupported),
    /// Every rule was created, and is gone again.
    Created,
    /// A rule was refused.
    Refused {
        /// Which of the chain's, from 0.
        rule: usize,
        step: Step,
        failure: Failure,
    },
}

/// The chain's rules, those that it needs first.
pub(super) fn rules(chain: &Chain) -> impl Iterator<Item = &Rule> {
    chain.needs.iter().chain([&chain.rule])
}

/// Asks about a chain. What was created is removed whatever comes.
pub(super) fn ask(backend: &mut dyn RuleBackend, chain: &Chain) -> Answer {
    let mut created = Vec::new();
    let mut refused = None;
    for (index, rule) in rules(chain).enumerate() {
        let token = TOKENS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match backend
            .validate(rule)
            .map_err(|failure| (Step::Validate, failure))
            .and_then(|()| create(backend, token, rule).map_err(|failure| (Step::Create, failure)))
        {
            Ok(()) => created.push((index, token)),
            Err((step, failure)) => {
                refused = Some(Answer::Refused { rule: index, step, failure });
                break;
            }
        }
    }
    for (rule, token) in created.into_iter().rev() {
        if let Err(failure) = destroy(backend, token) {
            refused = refused.or(Some(Answer::Refused { rule, step: Step::Destroy, failure }));
        }
    }
    refused.unwrap_or(Answer::Created)
}

/// Numbers of rules are never used again.
static TOKENS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

fn create(backend: &mut dyn RuleBackend, token: Token, rule: &Rule) -> Result<(), Failure> {
    backend.create(token, rule)?;
    wait(backend, |completion| match completion {
        Completion::Created(done) if *done == token => Some(Ok(())),
        Completion::CreateFailed(done, failure) if *done == token => Some(Err(failure.clone())),
        _ => None,
    })
}

fn destroy(backend: &mut dyn RuleBackend, token: Token) -> Result<(), Failure> {
    backend.destroy(token)?;
    wait(backend, |completion| match completion {
        Completion::Destroyed(done) if *done == token => Some(Ok(())),
        Completion::DestroyFailed(done, failure) if *done == token => Some(Err(failure.clone())),
        _ => None,
    })
}

fn wait(
    backend: &mut dyn RuleBackend,
    mut is_it: impl FnMut(&Completion) -> Option<Result<(), Failure>>,
) -> Result<(), Failure> {
    let until = Instant::now() + PATIENCE;
    let mut completed = Vec::new();
    loop {
        backend.push()?;
        backend.pull(&mut completed)?;
        if let Some(result) = completed.iter().find_map(&mut is_it) {
            return result;
        }
        completed.clear();
        if Instant::now() >= until {
            return Err(Failure::from_errno(libc::ETIMEDOUT, "no completion"));
        }
        std::thread::sleep(LOOK);
    }
}
