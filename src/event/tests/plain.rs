//! The contract without compare-and-swap.

use super::*;

#[tokio::test(start_paused = true)]
async fn without_compare_and_swap_each_change_has_a_tag_of_its_own() {
    let host = Host::new(Quirks::Exact);
    let events = host.plain_instance();
    let event = events.named(&e());
    let mut seen = Vec::new();
    for expected in 1..6 {
        let Changed::Yes(state) = event.change(expected % 2 == 1).await.unwrap() else {
            panic!("it was in the other state");
        };
        assert_eq!(state.generation.changes(), expected);
        assert_eq!(event.state().await, Ok(state));
        let value = host.store.get(KEY).await.unwrap().unwrap();
        assert_eq!(value, state.to_string().as_bytes());
        assert!(!seen.contains(&state.tag) && state.tag.is_some());
        seen.push(state.tag);
        assert_eq!(
            event.change(expected % 2 == 1).await,
            Ok(Changed::No(state))
        );
    }
    assert_eq!(host.store.count(Operation::Set), 5);
    assert_eq!(host.store.count(Operation::Swap), 0);
}

#[tokio::test(start_paused = true)]
async fn without_compare_and_swap_a_condition_is_refused_before_the_store_is_asked() {
    let host = Host::new(Quirks::Exact);
    let events = host.plain_instance();
    let refused = events.named(&e()).change_if(true, &|_| true).await;
    assert_eq!(refused, Err(Error::Unconditional));
    assert_eq!(host.store.count(Operation::Get), 0);
}

#[tokio::test(start_paused = true)]
async fn without_compare_and_swap_a_forgotten_event_leaves_nothing_and_ends_the_waits() {
    let host = Host::new(Quirks::Exact);
    let other = host.plain_instance();
    let event = other.named(&e());
    event.set().await.unwrap();
    let cleared = event.clear().await.unwrap();
    let events = host.plain_instance();
    let waiter =
        tokio::spawn(async move { events.named(&e()).wait(Duration::from_secs(60)).await });
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(event.forget().await, Ok(true));
    assert_eq!(event.forget().await, Ok(false));
    assert!(matches!(waiter.await.unwrap(), Ok(Waited::Forgotten(_))));
    assert_eq!(host.store.get(KEY).await, Ok(None));
    event.set().await.unwrap();
    let again = event.clear().await.unwrap();
    assert_eq!(again.generation, cleared.generation);
    assert!(!again.is_version_of(cleared));
}

#[tokio::test(start_paused = true)]
async fn without_compare_and_swap_a_wait_does_not_take_a_reading_of_before_for_a_change() {
    for seed in 0..300 {
        let host = Host::scheduled(Quirks::Exact, seed);
        let events = Arc::new(host.plain_instance());
        let looks = events.clone();
        let looking = tokio::spawn(async move {
            let event = looks.named(&e());
            for _ in 0..4 {
                // Reads that may take long.
                _ = tokio::join!(event.state(), event.state());
            }
        });
        let other = host.plain_instance();
        other.named(&e()).set().await.unwrap();
        other.named(&e()).clear().await.unwrap();
        let waited = events.named(&e()).wait(Duration::from_millis(60)).await;
        assert!(
            matches!(waited, Ok(Waited::TimedOut(_))),
            "seed {seed}: {waited:?}"
        );
        looking.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn without_compare_and_swap_no_wait_misses_a_pulse_among_writers_that_race() {
    for seed in 0..300 {
        let host = Host::scheduled(Quirks::Exact, seed);
        let one = host.plain_instance();
        one.named(&e()).set().await.unwrap();
        one.named(&e()).clear().await.unwrap();
        let events = host.plain_instance();
        let waiter =
            tokio::spawn(async move { events.named(&e()).wait(Duration::from_secs(9)).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut writers = tokio::task::JoinSet::new();
        for set in [true, false, false] {
            let events = host.plain_instance();
            writers.spawn(async move { events.named(&e()).change(set).await });
        }
        writers.join_all().await;
        let changed = one.named(&e()).set().await;
        assert!(changed.unwrap().is_set(), "seed {seed}");
        one.named(&e()).clear().await.unwrap();
        let waited = waiter.await.unwrap();
        assert!(
            matches!(waited, Ok(Waited::Set(_))),
            "seed {seed}: {waited:?}"
        );
    }
}
