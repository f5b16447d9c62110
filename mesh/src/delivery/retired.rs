//! Subscribers that are gone for good: they answered 410 to a sender that had asked for consent (CloudEvents Web Hooks, section 2.2).
//!
//! No request is sent any more, over restarts too, until the Trigger is changed; its events wait. A fact of the Broker's
//! journal, `g` and the Trigger's uid, holds a digest of the Trigger as it was.

use sha2::{Digest, Sha256};

use super::plan::{NotReady, Plan};
use super::store::append;
use crate::journal::{Journal, Refused};

/// The condition's reason.
const REASON: &str = "SubscriberGone";

pub(super) fn key(uid: &str) -> Vec<u8> {
    format!("g{uid}").into_bytes()
}

/// Notes, durably, that the subscriber of this plan is gone.
pub(super) async fn note(journal: &Journal, uid: &str, plan: &Plan) -> Result<(), Refused> {
    let (key, digest) = (key(uid), digest(plan));
    append(journal, |append| append.put(&key, &digest)).await.map(|_| ())
}

/// Why the Trigger does not run, if its subscriber is gone and it has not been changed since.
pub(super) fn why(journal: &Journal, uid: &str, plan: &Plan) -> Option<NotReady> {
    (journal.fact(&key(uid))? == digest(plan)).then(not_ready)
}

pub(super) fn not_ready() -> NotReady {
    let message = "the subscriber has answered 410, it is gone: nothing is sent to it until the Trigger is changed";
    NotReady { reason: REASON, message: message.to_owned(), waits_for_broker: false }
}

/// Tells plans apart. Another version of ours may write the same plan in other words: then the subscriber is asked once more.
fn digest(plan: &Plan) -> Vec<u8> {
    Sha256::digest(format!("{plan:?}")).to_vec()
}
