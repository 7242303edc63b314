//! `wait`, with compare-and-swap: what it sees, how long it takes, and how often it reads.

use tokio::time::Instant;

use super::*;

#[tokio::test(start_paused = true)]
async fn waiting_for_a_set_event_takes_one_read_and_no_time() {
    let host = Host::new(Quirks::Exact);
    host.instance().named(&e()).set().await.unwrap();
    let events = host.instance();
    let (reads, began) = (host.store.count(Operation::Get), Instant::now());
    let waited = events.named(&e()).wait(Duration::from_secs(9)).await;
    assert_eq!(waited, Ok(Waited::Set(state(1))));
    assert_eq!(host.store.count(Operation::Get) - reads, 1);
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_a_set_ends_at_its_timeout() {
    for timeout in [0, 1, 4, 100, 2500, 60_000] {
        let timeout = Duration::from_millis(timeout);
        let events = Host::new(Quirks::Exact).instance();
        let began = Instant::now();
        let waited = events.named(&e()).wait(timeout).await;
        assert_eq!(waited, Ok(Waited::TimedOut(state(0))));
        assert!(began.elapsed() >= timeout);
        assert!(began.elapsed() <= timeout + Polling::default().grace(timeout));
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_soon_after_a_set_in_another_instance() {
    for age in [1, 50, 700, 30_000] {
        let host = Host::new(Quirks::Exact);
        let events = host.instance();
        let waiter =
            tokio::spawn(async move { events.named(&e()).wait(Duration::from_secs(60)).await });
        tokio::time::sleep(Duration::from_millis(age)).await;
        let set_at = Instant::now();
        host.instance().named(&e()).set().await.unwrap();
        assert_eq!(waiter.await.unwrap(), Ok(Waited::Set(state(1))));
        let bound = Polling::default().interval(Duration::from_millis(age)) + SHORTEST_PAUSE * 2;
        assert!(set_at.elapsed() <= bound, "{:?}", set_at.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_sees_a_pulse() {
    let host = Host::new(Quirks::SpinRedis);
    let events = host.instance();
    let waiter =
        tokio::spawn(async move { events.named(&e()).wait(Duration::from_secs(60)).await });
    tokio::time::sleep(Duration::from_secs(10)).await;
    let other = host.instance();
    other.named(&e()).set().await.unwrap();
    other.named(&e()).clear().await.unwrap();
    assert_eq!(waiter.await.unwrap(), Ok(Waited::Set(state(2))));
}

#[tokio::test(start_paused = true)]
async fn a_set_just_before_the_deadline_is_seen() {
    for before in 1..100 {
        let host = Host::new(Quirks::Exact);
        let events = host.instance();
        let timeout = Duration::from_secs(3);
        let waiter = tokio::spawn(async move { events.named(&e()).wait(timeout).await });
        tokio::time::sleep(timeout - Duration::from_millis(before)).await;
        host.instance().named(&e()).set().await.unwrap();
        assert_eq!(waiter.await.unwrap(), Ok(Waited::Set(state(1))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_from_before_the_wait_that_was_cleared_does_not_end_it() {
    let host = Host::new(Quirks::Exact);
    let events = host.instance();
    events.named(&e()).set().await.unwrap();
    // The instance remembers "set"; another one clears.
    host.instance().named(&e()).clear().await.unwrap();
    let waited = events.named(&e()).wait(Duration::from_millis(50)).await;
    assert_eq!(waited, Ok(Waited::TimedOut(state(2))));
}

#[tokio::test(start_paused = true)]
async fn forgetting_ends_the_waits_but_a_set_before_it_is_not_lost() {
    for is_set_first in [false, true] {
        let host = Host::new(Quirks::Exact);
        let other = host.instance();
        other.named(&e()).set().await.unwrap();
        other.named(&e()).clear().await.unwrap();
        let events = host.instance();
        let waiter =
            tokio::spawn(async move { events.named(&e()).wait(Duration::from_secs(60)).await });
        tokio::time::sleep(Duration::from_secs(10)).await;
        if is_set_first {
            other.named(&e()).set().await.unwrap();
        }
        other.named(&e()).forget().await.unwrap();
        let expected = if is_set_first {
            Waited::Set(state(-6))
        } else {
            Waited::Forgotten(state(-4))
        };
        assert_eq!(waiter.await.unwrap(), Ok(expected));
    }
}

async fn reads_of(waiters: usize) -> u64 {
    let host = Host::new(Quirks::Exact);
    let events = Arc::new(host.instance());
    let mut waits = tokio::task::JoinSet::new();
    for _ in 0..waiters {
        let events = events.clone();
        waits.spawn(async move { events.named(&e()).wait(Duration::from_secs(10)).await });
    }
    waits.join_all().await;
    host.store.count(Operation::Get)
}

#[tokio::test(start_paused = true)]
async fn the_waits_of_an_instance_share_one_stream_of_reads() {
    let (one, sixteen) = (reads_of(1).await, reads_of(16).await);
    assert!(one < 380, "{one} reads in 10 s");
    assert!(
        sixteen * 10 <= one * 12,
        "{sixteen} reads for sixteen, {one} for one"
    );
}

#[tokio::test(start_paused = true)]
async fn an_old_wait_reads_at_most_twelve_times_a_second() {
    let host = Host::new(Quirks::Exact);
    let events = host.instance();
    let waiter =
        tokio::spawn(async move { events.named(&e()).wait(Duration::from_secs(60)).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = host.store.count(Operation::Get);
    tokio::time::sleep(Duration::from_secs(50)).await;
    let reads = host.store.count(Operation::Get) - before;
    assert!((1..=600).contains(&reads), "{reads} reads in 50 s");
    waiter.abort();
}

#[tokio::test(start_paused = true)]
async fn a_wait_outlasts_a_store_that_fails_for_a_while() {
    let host = Host::new(Quirks::Exact);
    let events = host.instance();
    let waiter =
        tokio::spawn(async move { events.named(&e()).wait(Duration::from_secs(60)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    host.store.fail("down");
    tokio::time::sleep(Duration::from_secs(20)).await;
    host.store.recover();
    host.instance().named(&e()).set().await.unwrap();
    assert_eq!(waiter.await.unwrap(), Ok(Waited::Set(state(1))));
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_one_good_read_reports_the_stores_error() {
    let host = Host::new(Quirks::Exact);
    host.store.fail("down");
    let events = host.instance();
    let began = Instant::now();
    let waited = events.named(&e()).wait(Duration::from_secs(5)).await;
    assert_eq!(waited, Err(Error::Store(store::Error::new("down"))));
    assert!(began.elapsed() <= Duration::from_secs(5));
}
