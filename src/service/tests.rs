//! The promises of the service, on the store of every host with compare-and-swap.

mod world;

use loopless_host::store::{Quirks, Store as _};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use self::world::World;
use super::*;
use crate::store::host::Host;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(20);
const TERMS: &str = "service/terms";

#[tokio::test(start_paused = true)]
async fn it_starts_ticks_every_second_and_stops_without_waiting_for_the_next_tick() {
    for (name, quirks) in Quirks::ALL {
        let world = World::new(Host::new(quirks));
        let process = world.process();
        assert_eq!(process.status().await.state, State::Stopped);
        let running = process.start().await.unwrap();
        sleep(SECOND * 3 + SECOND / 2).await;
        let status = process.status().await;
        assert_eq!((status.state, status.ticks), (State::Running, 3), "{name}");
        let asked = Instant::now();
        let stopped = world.process().stop(LONG).await;
        assert!(matches!(stopped, Stopped::Yes(_)), "{name}: {stopped:?}");
        assert!(asked.elapsed() < SECOND / 2, "{:?}", asked.elapsed());
        running.await.unwrap();
        let mut expected = vec![STARTED];
        expected.extend([DID_SOMETHING; 3]);
        expected.push(STOPPED);
        assert_eq!(world.lines(), expected, "{name}");
        let status = process.status().await;
        assert_eq!((status.state, status.ticks), (State::Stopped, 3), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_starts_at_once_exactly_one_runs() {
    for (name, quirks) in Quirks::ALL {
        for seed in 0..30 {
            let world = World::new(Host::scheduled(quirks, seed));
            for round in 1..=3 {
                let mut starts = tokio::task::JoinSet::new();
                for _ in 0..5 {
                    let process = world.process();
                    starts.spawn(async move { process.start().await.is_some() });
                }
                let starts = starts.join_all().await;
                let winners = starts.iter().filter(|is_winner| **is_winner).count();
                assert_eq!(winners, 1, "{name}, seed {seed}");
                let stopped = world.process().stop(LONG).await;
                assert!(matches!(stopped, Stopped::Yes(_)));
                assert_eq!(world.count(STARTED), round);
                assert_eq!(world.count(STOPPED), round, "{name}, seed {seed}");
            }
        }
    }
}

/// Three processes tend the service. The first one starts it, and stalls at some step for longer than the lease. The date
/// of the second one is wrong. The third one takes over if it can.
async fn ticks_are_exact(quirks: Quirks, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let stall = Duration::from_millis(random.random_range(3_000..20_000));
    let skew = Duration::from_millis(random.random_range(0..10_000));
    let world = World::new(Host::scheduled(quirks, seed));
    let processes = [
        world.stalling(Some((seed, stall)), Duration::ZERO),
        world.stalling(Some((seed / 2, stall / 2)), skew),
        world.process(),
    ];
    let first = processes[0].clone();
    tokio::spawn(async move { first.start().await });
    let mut running = Vec::new();
    for half_second in 0..100 {
        if half_second == 60 {
            // In case the first one has not started it.
            running.extend(processes[2].start().await);
        }
        for process in &processes[1..] {
            if let Some(runner) = process.service().tend(process.say()).await.unwrap() {
                running.push(process.run(runner));
            }
        }
        sleep(SECOND / 2).await;
    }
    let stopped = processes[2].stop(LONG).await;
    let Stopped::Yes(status) = stopped else {
        panic!("seed {seed}: {stopped:?}");
    };
    // Long enough for every stalled process to continue, and to notice that its lease is lost.
    sleep(SECOND * 40).await;
    // The first one may lose the lease before it knows that it holds it.
    assert!(
        world.count(STARTED) <= 1,
        "seed {seed}: {:?}",
        world.lines()
    );
    assert_eq!(world.count(STOPPED), 1, "seed {seed}: {:?}", world.lines());
    let ticks = world.count(DID_SOMETHING);
    assert_eq!(status.ticks, ticks, "seed {seed}: {:?}", world.lines());
    assert!(ticks > 15, "seed {seed}: {ticks}");
    assert_eq!(processes[2].status().await.ticks, ticks, "seed {seed}");
}

#[tokio::test(start_paused = true)]
async fn every_tick_counts_once_whichever_runner_stalls_and_where() {
    for (_, quirks) in Quirks::ALL {
        for seed in 0..160 {
            ticks_are_exact(quirks, seed).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_died_is_noticed_when_its_lease_is_over_and_its_ticks_stay() {
    for (name, quirks) in Quirks::ALL {
        let world = World::new(Host::new(quirks));
        let running = world.process().start().await.unwrap();
        sleep(SECOND * 2 + SECOND / 2).await;
        running.abort();
        let other = world.process();
        sleep(SECOND * 4).await;
        assert_eq!(other.status().await.state, State::Running, "{name}");
        assert!(other.service().tend(other.say()).await.unwrap().is_none());
        sleep(SECOND).await;
        assert_eq!(other.status().await.state, State::Lost, "{name}");
        let runner = other.service().tend(other.say()).await.unwrap().unwrap();
        let running = other.run(runner);
        let status = other.status().await;
        assert_eq!((status.state, status.ticks), (State::Running, 2), "{name}");
        sleep(SECOND + SECOND / 2).await;
        assert_eq!(other.status().await.ticks, 3, "{name}");
        other.stop(LONG).await;
        running.await.unwrap();
        assert_eq!(world.count(STARTED), 1);
        assert_eq!(world.count("Service resumed"), 1);
        assert_eq!(world.count(STOPPED), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_died_after_it_was_asked_to_stop_is_not_replaced() {
    for is_stopping in [false, true] {
        let world = World::new(Host::new(Quirks::SpinRedis));
        let running = world.process().start().await.unwrap();
        sleep(SECOND).await;
        running.abort();
        let process = world.process();
        if is_stopping {
            let stopped = process.stop(LONG).await;
            assert!(matches!(stopped, Stopped::Yes(_)), "{stopped:?}");
        } else {
            let cancel = process.events.named(&Name::SERVICE_CANCEL);
            cancel.set().await.unwrap();
            sleep(SECOND * 6).await;
            assert_eq!(process.status().await.state, State::Lost);
            let tended = process.service().tend(process.say()).await;
            assert!(tended.unwrap().is_none());
        }
        assert_eq!(process.status().await.state, State::Stopped);
        assert_eq!(world.count(STOPPED), 1);
        let stopped = process.events.named(&Name::SERVICE_STOPPED);
        assert!(stopped.is_set().await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_is_late_does_not_clear_a_stop_that_is_meant_for_another() {
    for at in 0..40 {
        let world = World::new(Host::new(Quirks::SpinSqlite));
        // The cancellation event is still set.
        world.process().start().await.unwrap();
        world.process().stop(LONG).await;

        let late = world.stalling(Some((at, SECOND * 4)), Duration::ZERO);
        let starting = tokio::spawn(async move { late.start().await.is_some() });
        sleep(SECOND).await;
        world.process().start().await;
        sleep(SECOND).await;
        let stopper = world.process();
        let stopping = tokio::spawn(async move { stopper.stop(SECOND * 30).await });
        // If the late one is delayed right before its first beat, it may hold the lease, and the stop waits for it.
        let stopped = stopping.await.unwrap();
        assert!(matches!(stopped, Stopped::Yes(_)), "{at}: {stopped:?}");
        assert!(world.began.elapsed() < SECOND * 8, "{at}");
        starting.await.unwrap();
        let runs = world.count(STARTED);
        assert!((2..=3).contains(&runs), "{at}: {:?}", world.lines());
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_times_out_says_so_and_has_asked_all_the_same() {
    let world = World::new(Host::new(Quirks::Exact));
    let process = world.process();
    let running = process.start().await.unwrap();
    sleep(SECOND).await;
    running.abort();
    let stopped = process.stop(SECOND * 2).await;
    let Stopped::TimedOut(status) = stopped else {
        panic!("{stopped:?}");
    };
    assert_eq!(status.state, State::Stopping);
    let cancel = process.events.named(&Name::SERVICE_CANCEL);
    assert!(cancel.is_set().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_less_than_the_lease_costs_no_tick_twice() {
    for (name, quirks) in Quirks::ALL {
        let world = World::new(Host::new(quirks));
        let process = world.process();
        process.start().await.unwrap();
        sleep(SECOND * 2 + SECOND / 2).await;
        world.host.store.fail("down");
        sleep(SECOND * 4).await;
        assert_eq!(world.count(DID_SOMETHING), 2, "{name}: nothing unconfirmed");
        world.host.store.recover();
        sleep(SECOND * 3).await;
        let ticks = process.status().await.ticks;
        assert!(ticks >= 5, "{name}: {ticks}");
        assert_eq!(world.count(DID_SOMETHING), ticks, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_for_longer_than_the_lease_ends_the_runner() {
    let world = World::new(Host::new(Quirks::Exact));
    let process = world.process();
    let running = process.start().await.unwrap();
    sleep(SECOND * 2 + SECOND / 2).await;
    world.host.store.fail("down");
    let failed = Instant::now();
    running.await.unwrap();
    let lasted = failed.elapsed();
    assert!((SECOND * 4..SECOND * 6).contains(&lasted), "{lasted:?}");
    let lines = world.lines();
    let last = lines.last().unwrap();
    assert!(
        last.contains("lost its lease") && last.contains("down"),
        "{last}"
    );
    assert_eq!(world.count(DID_SOMETHING), 2);
}

#[tokio::test(start_paused = true)]
async fn a_beat_that_is_made_twice_costs_the_term_and_no_tick() {
    for (name, quirks) in Quirks::ALL {
        let world = World::new(Host::new(quirks));
        let running = world.process().start().await.unwrap();
        sleep(SECOND * 2 + SECOND / 2).await;
        world.host.store.count_twice();
        running.await.unwrap();
        world.host.store.recover();
        let other = world.process();
        let lost = other.status().await;
        assert_eq!((lost.state, lost.ticks), (State::Lost, 2), "{name}");
        // At once, although the lease has not expired.
        let runner = other.service().tend(other.say()).await.unwrap().unwrap();
        other.run(runner);
        sleep(SECOND * 2 + SECOND / 2).await;
        assert_eq!(other.status().await.ticks, 4, "{name}");
        assert_eq!(world.count(DID_SOMETHING), 4, "{name}: {:?}", world.lines());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_wiped_ends_the_runner_and_the_next_start_is_the_only_one() {
    let cases = Quirks::ALL.map(|(name, quirks)| [(name, quirks, true), (name, quirks, false)]);
    for (name, quirks, is_noticed) in cases.into_iter().flatten() {
        let world = World::new(Host::new(quirks));
        let running = world.process().start().await.unwrap();
        sleep(SECOND * 2 + SECOND / 2).await;
        world.host.store.wipe().await.unwrap();
        let process = world.process();
        assert_eq!(process.status().await.state, State::Stopped, "{name}");
        if is_noticed {
            sleep(SECOND).await;
            assert!(running.is_finished(), "{name}: {:?}", world.lines());
        }
        process.start().await.unwrap();
        sleep(SECOND * 2).await;
        assert!(running.is_finished(), "{name}: {:?}", world.lines());
        // Both runners may have had the same term, and have then both lost it.
        let tended = process.service().tend(process.say()).await.unwrap();
        assert!(!is_noticed || tended.is_none(), "{name}");
        tended.map(|runner| process.run(runner));
        sleep(SECOND * 2).await;
        let status = process.status().await;
        assert_eq!(status.state, State::Running, "{name}");
        let said = world.count(DID_SOMETHING);
        assert_eq!(status.ticks, said - 2, "{name}: {:?}", world.lines());
        process.stop(LONG).await;
        assert_eq!(process.status().await.state, State::Stopped, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_back_to_a_cancellation_stops_the_service() {
    let world = World::new(Host::new(Quirks::Exact));
    world.process().start().await.unwrap();
    world.process().stop(LONG).await;
    let key = "event/service.cancel";
    let cancelled = world.host.store.get(key).await.unwrap().unwrap();
    let running = world.process().start().await.unwrap();
    sleep(SECOND).await;
    world.host.store.set(key, &cancelled).await.unwrap();
    sleep(SECOND).await;
    assert!(running.is_finished(), "{:?}", world.lines());
    assert_eq!(world.count(STOPPED), 2);
}

#[tokio::test(start_paused = true)]
async fn a_bounded_number_of_keys_remains() {
    let world = World::new(Host::new(Quirks::SpinSqlite));
    for _ in 0..20 {
        let process = world.process();
        process.start().await.unwrap();
        process.stop(LONG).await;
    }
    let keys = world.host.store.keys().await.unwrap();
    // Terms, lease, one term's beats and record, two events.
    assert_eq!(keys.len(), 6, "{keys:?}");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_none_of_the_services_is_reported_and_left_alone() {
    for key in ["service/lease", TERMS] {
        for (_, quirks) in Quirks::ALL {
            let world = World::new(Host::new(quirks));
            world.host.store.set(key, b"12345678x").await.unwrap();
            let process = world.process();
            if key == TERMS && quirks == Quirks::SpinSqlite {
                world.host.store.set(key, b"12345x78").await.unwrap();
            }
            let error = process.service().start(process.say()).await;
            let expected = lease::Error::Foreign { key: key.into() };
            assert_eq!(error.unwrap_err(), expected.into());
            let left = world.host.store.get(key).await.unwrap().unwrap();
            assert!(left.starts_with(b"12345"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_follows_sees_every_run_also_one_that_ended_in_between() {
    let world = World::new(Host::new(Quirks::Exact));
    let process = world.process();
    let service = process.service();
    assert_eq!(service.progress(None).await.unwrap().run(), 0);
    process.start().await.unwrap();
    let first = service.progress(None).await.unwrap();
    sleep(SECOND * 2 + SECOND / 2).await;
    let later = service.progress(Some(&first)).await.unwrap();
    assert_eq!((later.run(), later.beats()), (first.run(), 2));
    process.stop(LONG).await;
    process.start().await.unwrap();
    let next = service.progress(Some(&later)).await.unwrap();
    assert!(next.run() > first.run() && !next.is_over());
    assert_eq!(next.previous(first.run()), Some(2));
    assert_eq!(next.previous(next.run()), None);
}
