//! `set`, `clear`, `change`, `forget` and `list`, with compare-and-swap.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use super::*;
use crate::store::Atomics;
use crate::strategy::ATTEMPTS;

#[tokio::test(start_paused = true)]
async fn an_event_that_nobody_has_set_is_clear() {
    let events = Host::new(Quirks::Exact).instance();
    assert_eq!(events.named(&e()).is_set().await, Ok(false));
    assert_eq!(events.named(&e()).state().await, Ok(state(0)));
}

#[tokio::test(start_paused = true)]
async fn set_sets_and_clear_clears_on_every_host() {
    for (name, quirks) in Quirks::ALL {
        let events = Host::new(quirks).instance();
        let event = events.named(&e());
        for expected in 1..20 {
            let is_set = expected % 2 == 1;
            let changed = if is_set {
                event.set().await
            } else {
                event.clear().await
            };
            assert_eq!(changed, Ok(state(expected)), "{name}");
            assert_eq!(event.is_set().await, Ok(is_set), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn setting_a_set_event_and_clearing_a_clear_one_write_nothing() {
    let host = Host::new(Quirks::Exact);
    let events = host.instance();
    let event = events.named(&e());
    assert_eq!(event.clear().await, Ok(state(0)));
    assert_eq!(host.store.get(KEY).await, Ok(None));
    assert_eq!(event.set().await, Ok(state(1)));
    assert_eq!(event.set().await, Ok(state(1)));
    assert_eq!(host.store.count(Operation::Swap), 1);
}

#[tokio::test(start_paused = true)]
async fn events_of_different_names_are_different() {
    let events = Host::new(Quirks::Exact).instance();
    events.named(&Name::new("a").unwrap()).set().await.unwrap();
    assert_eq!(
        events.named(&Name::new("b").unwrap()).is_set().await,
        Ok(false)
    );
}

#[tokio::test(start_paused = true)]
async fn a_hundred_sets_at_once_make_one_transition_also_as_the_very_first() {
    for (name, quirks) in Quirks::ALL {
        for seed in 0..20 {
            let host = Host::scheduled(quirks, seed);
            let mut sets = tokio::task::JoinSet::new();
            for _ in 0..100 {
                let events = host.instance();
                sets.spawn(async move { events.named(&e()).set().await });
            }
            for set in sets.join_all().await {
                assert_eq!(set, Ok(state(1)), "{name}, seed {seed}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_generation_never_goes_back_whatever_the_schedule() {
    for (name, quirks) in Quirks::ALL {
        for seed in 0..200 {
            let host = Host::scheduled(quirks, seed);
            let mut writers = tokio::task::JoinSet::new();
            for writer in 0..4 {
                let events = host.instance();
                writers.spawn(async move {
                    let event = events.named(&e());
                    for round in 0..3 {
                        if (writer + round) % 2 == 0 {
                            event.set().await.unwrap();
                        } else {
                            event.clear().await.unwrap();
                        }
                    }
                });
            }
            let mut newest = Generation::default();
            while !writers.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let value = host.store.get(KEY).await.unwrap();
                let now = Exact::<Host>::parse(value.as_deref()).unwrap().generation;
                assert!(now >= newest, "{name}, seed {seed}: {newest}, then {now}");
                newest = now;
                while let Some(done) = writers.try_join_next() {
                    done.unwrap();
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_birth_that_arrives_late_undoes_nothing() {
    for (_, quirks) in Quirks::ALL {
        let host = Host::new(quirks);
        let events = host.instance();
        let event = events.named(&e());
        // A writer has read no value, and is delayed until after these changes.
        event.set().await.unwrap();
        event.clear().await.unwrap();
        event.set().await.unwrap();
        host.increment(KEY, 0).await.unwrap();
        assert_eq!(event.state().await, Ok(state(3)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_says_whether_it_changed_anything() {
    let events = Host::new(Quirks::SpinRedis).instance();
    let event = events.named(&e());
    assert_eq!(event.change(false).await, Ok(Changed::No(state(0))));
    assert_eq!(event.change(true).await, Ok(Changed::Yes(state(1))));
    assert_eq!(event.change(true).await, Ok(Changed::No(state(1))));
    assert_eq!(event.change(false).await, Ok(Changed::Yes(state(2))));
}

#[tokio::test(start_paused = true)]
async fn a_change_from_one_generation_is_refused_in_another() {
    let events = Host::new(Quirks::SpinSqlite).instance();
    let event = events.named(&e());
    for (set, from, expected) in [
        (true, 2, Changed::Refused(state(0))),
        (true, 0, Changed::Yes(state(1))),
        (true, 0, Changed::Refused(state(1))),
        (true, 1, Changed::No(state(1))),
        (false, 1, Changed::Yes(state(2))),
    ] {
        let is_allowed = |state: State| state.generation.changes() == from;
        assert_eq!(event.change_if(set, &is_allowed).await, Ok(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_event_is_clear_and_its_generations_are_never_used_again() {
    for (name, quirks) in Quirks::ALL {
        let events = Host::new(quirks).instance();
        let event = events.named(&e());
        assert_eq!(event.forget().await, Ok(false), "{name}: there was none");
        event.set().await.unwrap();
        assert_eq!(event.forget().await, Ok(true), "{name}");
        assert_eq!(event.forget().await, Ok(false), "{name}");
        assert_eq!(event.state().await, Ok(state(-4)), "{name}");
        assert!(!event.state().await.unwrap().is_set());
        assert!(!event.state().await.unwrap().exists());
        assert_eq!(event.clear().await, Ok(state(-4)), "{name}");
        assert_eq!(event.set().await, Ok(state(5)), "{name}");
        assert_eq!(event.clear().await, Ok(state(6)), "{name}");
        assert_eq!(event.forget().await, Ok(true), "{name}");
        assert_eq!(event.state().await, Ok(state(-8)), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_that_races_with_a_forget_is_not_lost() {
    for (name, quirks) in Quirks::ALL {
        for seed in 0..200 {
            let host = Host::scheduled(quirks, seed);
            let (one, two) = (host.instance(), host.instance());
            one.named(&e()).set().await.unwrap();
            one.named(&e()).clear().await.unwrap();
            let forget = tokio::spawn(async move { two.named(&e()).forget().await });
            let set = one.named(&e()).set().await.unwrap();
            assert!(set.generation > state(2).generation, "{name}, seed {seed}");
            let was_set = set.is_set() || strategy::was_set(state(2), set);
            assert!(was_set, "{name}, seed {seed}: {set:?}");
            forget.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_list_has_the_events_that_exist_in_order_by_pages() {
    let host = Host::new(Quirks::SpinSqlite);
    let events = host.instance();
    for name in ["b", "a", "B", "~", "forgotten"] {
        events.named(&Name::new(name).unwrap()).set().await.unwrap();
    }
    events
        .named(&Name::new("a").unwrap())
        .clear()
        .await
        .unwrap();
    let forgotten = Name::new("forgotten").unwrap();
    events.named(&forgotten).forget().await.unwrap();
    host.store.set("event/x", b"no generation").await.unwrap();
    host.store.set("event/no name", b"1").await.unwrap();
    host.store.set("other", b"1").await.unwrap();

    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = events.list(after.as_ref(), 2).await.unwrap();
        assert!(page.events.len() <= 2);
        after = page.events.last().map(|(name, _)| name.clone());
        seen.extend(page.events);
        if !page.has_more {
            break;
        }
    }
    let seen: Vec<_> = seen
        .iter()
        .map(|(name, state)| (name.as_str(), state.generation.changes()))
        .collect();
    assert_eq!(seen, [("B", 1), ("a", 2), ("b", 1), ("~", 1)]);
}

#[tokio::test(start_paused = true)]
async fn after_a_wipe_no_state_is_one_of_before_and_a_wait_ends_with_the_next_set() {
    static RANDOM: AtomicU64 = AtomicU64::new(0);
    let random = || RANDOM.fetch_add(1, Ordering::Relaxed);
    let host = Host::new(Quirks::SpinSqlite);
    let strategy = Exact::new(host.clone(), random);
    let events = Arc::new(Events::new(strategy, Tokio::default()));
    let event = events.named(&e());
    let mut before = Vec::new();
    for set in [true, false, true, false] {
        event.change(set).await.unwrap();
        before.push(event.state().await.unwrap());
    }
    let same = events.clone();
    let waiter = tokio::spawn(async move { same.named(&e()).wait(Duration::from_secs(60)).await });
    tokio::time::sleep(Duration::from_secs(10)).await;

    host.store.delete(KEY).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!waiter.is_finished());
    for set in [true, false, true, false] {
        for state in &before {
            let is_same = |now: State| now.is_version_of(*state);
            let changed = event.change_if(set, &is_same).await;
            assert!(matches!(changed, Ok(Changed::Refused(_))), "{changed:?}");
        }
        event.change(set).await.unwrap();
    }
    assert!(matches!(waiter.await.unwrap(), Ok(Waited::Set(_))));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_leaves_the_event_as_it_was() {
    let host = Host::new(Quirks::Exact);
    let events = host.instance();
    let event = events.named(&e());
    event.set().await.unwrap();
    host.store.fail("down");
    assert_eq!(
        event.clear().await,
        Err(Error::Store(store::Error::new("down")))
    );
    host.store.recover();
    assert_eq!(event.state().await, Ok(state(1)));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_no_event_wrote_is_reported_and_left_alone() {
    let eight_negative = [0xff; 8];
    for foreign in [
        &b""[..],
        b"x",
        b"-1",
        b"+1",
        b" 1",
        b"99999999999999999999",
        &eight_negative,
    ] {
        let host = Host::new(Quirks::Exact);
        host.store.set(KEY, foreign).await.unwrap();
        let events = host.instance();
        let event = events.named(&e());
        let error = Error::Foreign {
            key: KEY.into(),
            writer: None,
        };
        assert_eq!(event.set().await, Err(error.clone()));
        assert_eq!(event.is_set().await, Err(error.clone()));
        assert_eq!(event.wait(Duration::from_secs(1)).await, Err(error));
        assert_eq!(host.store.get(KEY).await, Ok(Some(foreign.to_vec())));
    }
}

/// A store whose swaps are never applied.
#[derive(Debug, Default)]
struct Stuck(Mutex<u32>);

impl Store for Stuck {
    async fn get(&self, _: &str) -> Result<Option<Vec<u8>>, store::Error> {
        Ok(Some(b"0".to_vec()))
    }

    async fn set(&self, _: &str, _: &[u8]) -> Result<(), store::Error> {
        Ok(())
    }

    async fn delete(&self, _: &str) -> Result<(), store::Error> {
        Ok(())
    }

    async fn keys(&self) -> Result<Vec<String>, store::Error> {
        Ok(Vec::new())
    }
}

impl Atomics for Stuck {
    async fn increment(&self, _: &str, _: i64) -> Result<i64, store::Error> {
        Ok(0)
    }

    async fn swap(&self, _: &str, _: &[u8], _: &[u8]) -> Result<(), store::Error> {
        *self.0.lock().unwrap() += 1;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_never_comes_through_ends_after_a_bounded_number_of_attempts() {
    let events = Events::new(Exact::new(Stuck::default(), || 0), Tokio::default());
    let began = Instant::now();
    assert_eq!(events.named(&e()).set().await, Err(Error::Contended));
    assert_eq!(*events.store().0.lock().unwrap(), ATTEMPTS);
    assert!(began.elapsed() < Duration::from_secs(1));
}
