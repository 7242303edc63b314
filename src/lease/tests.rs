//! The contract of the lease, on the store of every host with compare-and-swap. `tests/models/lease.rs` checks every order of steps.

use loopless_host::store::{Quirks, Store as _};

use super::*;
use crate::clock::Tokio;
use crate::store::host::Host;

const LENGTH: Duration = Duration::from_secs(5);

/// Takes the lease, even if it is held. The first attempt may only create missing keys.
async fn taken(lease: &Lease<'_, Host, Tokio>) -> Holder {
    for _ in 0..2 {
        let look = lease.look().await.unwrap();
        if let Taken::Yes(holder) = lease.take(&look).await.unwrap() {
            return holder;
        }
    }
    panic!("nobody comes between");
}

#[test]
fn beats_are_what_they_were_sealed_as_also_after_late_ones() {
    for beats in [0, 1, 2, 1000, 1 << 40] {
        let open = Beats::Open(beats);
        assert_eq!(Beats::of(open.number()), Some(open));
        for sealed in [Beats::Lost(beats), Beats::Released(beats)] {
            for late in 0..64 {
                assert_eq!(Beats::of(sealed.number() + late), Some(sealed), "{late}");
            }
        }
    }
    assert_eq!(Beats::of(0), None);
    assert_eq!(Beats::of(-64), None);
}

#[tokio::test(start_paused = true)]
async fn a_first_beat_that_is_late_and_made_twice_is_none_where_the_term_was_deleted() {
    for (name, quirks) in Quirks::ALL {
        let host = Host::new(quirks);
        let clock = Tokio::default();
        let lease = Lease::new(&host, &clock, "a", LENGTH);
        // The first holder is delayed before its first beat. Another one takes over meanwhile, and deletes its keys.
        let mut late = taken(&lease).await;
        let key = format!("a/beats/{}", late.look.term);
        let mut other = taken(&lease).await;
        assert_eq!(host.store.get(&key).await, Ok(None), "{name}");

        host.store.count_twice();
        assert!(lease.beat(&mut late).await.is_err(), "{name}");
        assert_eq!(
            host.store.get(&key).await,
            Ok(None),
            "{name}: left no trace"
        );
        host.store.recover();
        assert_eq!(lease.beat(&mut other).await, Ok(()), "{name}");
        assert_eq!(lease.look().await.unwrap().beats(), 1, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_is_taken_for_dead_can_do_nothing_in_the_term_of_its_successor() {
    for (name, quirks) in Quirks::ALL {
        let host = Host::new(quirks);
        let clock = Tokio::default();
        let lease = Lease::new(&host, &clock, "a", LENGTH);
        let mut first = taken(&lease).await;
        assert_eq!(lease.beat(&mut first).await, Ok(()), "{name}");
        let mut second = taken(&lease).await;
        assert!(second.look().is_resumed(), "{name}");
        assert_eq!(lease.beat(&mut second).await, Ok(()), "{name}");

        let over = Err(Lost::taken_over());
        assert_eq!(lease.beat(&mut first).await, over, "{name}");
        assert_eq!(lease.release(&mut first).await, over, "{name}");
        let look = lease.look().await.unwrap();
        assert_eq!(lease.standing(&look), Standing::Held, "{name}");
        assert_eq!(
            (look.run(), look.beats()),
            (first.look().run(), 2),
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_has_moved_since_the_look_is_not_replaced() {
    for (name, quirks) in Quirks::ALL {
        let host = Host::new(quirks);
        let clock = Tokio::default();
        let lease = Lease::new(&host, &clock, "a", LENGTH);
        let mut holder = taken(&lease).await;
        let look = lease.look().await.unwrap();
        assert_eq!(lease.beat(&mut holder).await, Ok(()), "{name}");
        let late = lease.take(&look).await;
        assert!(matches!(late, Ok(Taken::No(_))), "{name}: {late:?}");
        assert_eq!(lease.finish(&look).await, Ok(false), "{name}");
        assert_eq!(lease.beat(&mut holder).await, Ok(()), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn leases_of_different_names_are_different() {
    let host = Host::new(Quirks::SpinSqlite);
    let clock = Tokio::default();
    let [a, b] = ["a", "b"].map(|name| Lease::new(&host, &clock, name, LENGTH));
    let mut holder = taken(&a).await;
    assert_eq!(a.beat(&mut holder).await, Ok(()));
    let look = b.look().await.unwrap();
    assert_eq!((b.standing(&look), look.beats()), (Standing::Free, 0));
}
