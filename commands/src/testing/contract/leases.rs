//! The contract of [`Leases`]. Terms and back-offs are none or an hour, so that no clock decides.

use std::time::Duration;

use futures::future::join_all;

use super::Stores;
use crate::ports::{Lease, Leases};

const NONE: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_hours(1);

async fn claim(leases: &dyn Leases, key: &str, owner: &str, term: Duration) -> Option<Lease> {
    leases.claim(key, owner, term).await.unwrap()
}

/// Not by its own holder either: it would work on it twice.
pub async fn a_held_key_cannot_be_claimed(stores: &impl Stores) {
    let leases = stores.leases().await;
    let leases = leases.as_ref();
    let lease = claim(leases, "a", "one", HOUR).await.unwrap();
    assert_eq!((lease.key.as_str(), lease.owner.as_str(), lease.failures), ("a", "one", 0));
    assert_eq!(claim(leases, "a", "two", HOUR).await, None);
    assert_eq!(claim(leases, "a", "one", HOUR).await, None);
    claim(leases, "b", "two", HOUR).await.unwrap();
    assert_eq!(leases.held().await.unwrap(), ["a", "b"]);
    assert!(leases.renew(&lease, HOUR).await.unwrap());
}

/// Its term is over, another took it: renewing, finishing and putting off do nothing.
pub async fn an_old_holder_can_do_nothing(stores: &impl Stores) {
    let leases = stores.leases().await;
    let leases = leases.as_ref();
    let old = claim(leases, "a", "one", NONE).await.unwrap();
    assert!(leases.held().await.unwrap().is_empty());
    let new = claim(leases, "a", "two", HOUR).await.unwrap();
    assert!(new.epoch > old.epoch);
    assert!(!leases.renew(&old, HOUR).await.unwrap());
    assert!(!leases.put_off(&old, true, HOUR).await.unwrap());
    assert!(!leases.finish(&old).await.unwrap());
    assert_eq!(leases.held().await.unwrap(), ["a"]);
    assert!(leases.finish(&new).await.unwrap());
    // Forgotten, and yet the old holder's epoch does not come again.
    let newest = claim(leases, "a", "one", HOUR).await.unwrap();
    assert!(newest.epoch > new.epoch);
    assert!(!leases.finish(&old).await.unwrap());
    assert!(!leases.finish(&new).await.unwrap());
}

/// Twenty claim at once.
pub async fn of_twenty_who_claim_one_gets_it(stores: &impl Stores) {
    let leases = stores.leases().await;
    let owners: Vec<_> = (0..20).map(|n| format!("owner{n}")).collect();
    let claims = owners.iter().map(|owner| claim(leases.as_ref(), "a", owner, HOUR));
    assert_eq!(join_all(claims).await.into_iter().flatten().count(), 1);
}

/// Its failures are forgotten.
pub async fn a_finished_key_starts_afresh(stores: &impl Stores) {
    let leases = stores.leases().await;
    let leases = leases.as_ref();
    let lease = claim(leases, "a", "one", HOUR).await.unwrap();
    assert!(leases.put_off(&lease, true, NONE).await.unwrap());
    let lease = claim(leases, "a", "one", HOUR).await.unwrap();
    assert_eq!(lease.failures, 1);
    assert!(leases.finish(&lease).await.unwrap());
    assert!(!leases.finish(&lease).await.unwrap());
    assert!(leases.held().await.unwrap().is_empty());
    assert_eq!(claim(leases, "a", "one", HOUR).await.unwrap().failures, 0);
}

/// Three failures and a throttled try between them.
pub async fn failures_count_unless_it_was_throttled(stores: &impl Stores) {
    let leases = stores.leases().await;
    let leases = leases.as_ref();
    for (counts, before) in [(true, 0), (true, 1), (false, 2), (true, 2), (true, 3)] {
        let lease = claim(leases, "a", "one", HOUR).await.unwrap();
        assert_eq!(lease.failures, before);
        assert!(leases.put_off(&lease, counts, NONE).await.unwrap());
        // It let go of the lease.
        assert!(!leases.renew(&lease, HOUR).await.unwrap());
        assert!(leases.held().await.unwrap().is_empty());
    }
}

/// `reset` is a person's retry.
pub async fn a_back_off_keeps_everybody_out_until_it_is_reset(stores: &impl Stores) {
    let leases = stores.leases().await;
    let leases = leases.as_ref();
    let lease = claim(leases, "a", "one", HOUR).await.unwrap();
    assert!(leases.put_off(&lease, true, HOUR).await.unwrap());
    assert_eq!(claim(leases, "a", "one", HOUR).await, None);
    assert_eq!(claim(leases, "a", "two", HOUR).await, None);
    leases.reset("a").await.unwrap();
    leases.reset("never-heard-of").await.unwrap();
    assert_eq!(claim(leases, "a", "two", HOUR).await.unwrap().failures, 0);
    // It takes nothing from whoever holds it.
    leases.reset("a").await.unwrap();
    assert_eq!(leases.held().await.unwrap(), ["a"]);
}
