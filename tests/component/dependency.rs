//! Another component uses events through `loopless:event/events`, without HTTP. Spin composes a component with its
//! dependencies. Here, the tests do.

mod pair;

use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use http_body_util::Empty;
use loopless_host::Harness;
use loopless_host::console::Output;
use loopless_host::store::{self, Memory, Numbers, Observed, Operation, Quirks, Store};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::pair::{ALL, ASYNC};
use crate::support::{Build, json, request, send, set, text};

/// The longest poll interval, and how late timers are.
const READING: Duration = Duration::from_millis(110);

/// The interfaces that a dependency inherits in Spin with `key_value_stores`.
const STORES: [&str; 3] = [
    "fermyon:spin/key-value@2.0.0",
    "spin:key-value/key-value@3.0.0",
    "wasi:keyvalue/store@0.2.0-draft2",
];

/// Every call of the interface, as a request to the component.
const CALLS: [(&str, &str); 4] = [
    ("GET", "/door"),
    ("PUT", "/door"),
    ("DELETE", "/door"),
    ("GET", "/door/wait/50"),
];

/// The result of a call of the interface.
async fn ask(host: &Harness, method: &str, path: &str) -> String {
    let response = send(host, method, path, &[], "").await;
    assert_eq!(
        response.status(),
        StatusCode::OK,
        "{path}: {}",
        text(&response)
    );
    text(&response).to_owned()
}

/// Checks that the interface returns an error that contains all `parts`.
async fn fails(host: &Harness, (method, path): (&str, &str), parts: &[&str]) {
    let response = send(host, method, path, &[], "").await;
    let status = response.status();
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
    assert!(host.printed(Output::Stderr).is_empty(), "it trapped");
    let error = text(&response);
    assert!(
        parts.iter().all(|part| error.contains(part)),
        "{method} {path}: {error}"
    );
}

#[tokio::test(start_paused = true)]
async fn events_are_those_of_the_http_api() {
    for pair in ALL {
        let (doorbell, loopless, _) = pair.both().await;
        assert_eq!(ask(&doorbell, "GET", "/door").await, "false");
        assert_eq!(ask(&doorbell, "PUT", "/door").await, "done");
        assert_eq!(ask(&doorbell, "GET", "/door").await, "true");
        let seen = loopless.get("/events/door").await;
        assert_eq!(json(&seen)["set"], true);

        set(&loopless, "door", false).await;
        assert_eq!(ask(&doorbell, "GET", "/door").await, "false");
        set(&loopless, "door", true).await;
        assert_eq!(ask(&doorbell, "DELETE", "/door").await, "done");
        let seen = loopless.get("/events/door").await;
        assert_eq!(json(&seen)["set"], false);
        assert_eq!(ask(&doorbell, "GET", "/window").await, "false");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_a_set_on_another_host_even_if_a_clear_follows_at_once() {
    for pair in ALL {
        let (doorbell, loopless, _) = pair.both().await;
        let began = Instant::now();
        let (waited, ()) = tokio::join!(ask(&doorbell, "GET", "/door/wait/60000"), async {
            sleep(Duration::from_secs(3)).await;
            set(&loopless, "door", true).await;
            set(&loopless, "door", false).await;
        });
        assert_eq!(waited, "set");
        let took = began.elapsed();
        let least = Duration::from_secs(3);
        let is_in_time = (least..least + READING).contains(&took);
        assert!(is_in_time, "{}: {took:?}", pair.name);
        assert_eq!(ask(&doorbell, "GET", "/door").await, "false");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_on_a_set_event_returns_at_once_after_one_read() {
    for pair in ALL {
        let (doorbell, loopless, store) = pair.both().await;
        set(&loopless, "door", true).await;
        let (began, read) = (Instant::now(), store.count(Operation::Get));
        assert_eq!(ask(&doorbell, "GET", "/door/wait/60000").await, "set");
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(store.count(Operation::Get), read + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_a_set_times_out() {
    for pair in ALL {
        let (doorbell, _, _) = pair.both().await;
        for timeout in [0, 20, 5000] {
            let began = Instant::now();
            let waited = ask(&doorbell, "GET", &format!("/door/wait/{timeout}")).await;
            assert_eq!(waited, "timed-out");
            let took = began.elapsed();
            let timeout = Duration::from_millis(timeout);
            let is_in_time = (timeout..=timeout + READING).contains(&took);
            assert!(is_in_time, "{timeout:?}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_on_an_event_that_is_deleted_returns_forgotten() {
    for pair in ALL {
        let (doorbell, loopless, _) = pair.both().await;
        set(&loopless, "door", true).await;
        set(&loopless, "door", false).await;
        let (waited, ()) = tokio::join!(ask(&doorbell, "GET", "/door/wait/60000"), async {
            sleep(Duration::from_secs(1)).await;
            let deleted = send(&loopless, "DELETE", "/events/door", &[], "").await;
            assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
        });
        assert_eq!(waited, "forgotten");
    }
}

#[tokio::test(start_paused = true)]
async fn waits_of_many_requests_go_on_while_others_are_dropped() {
    for pair in ASYNC {
        let (doorbell, _, _) = pair.both().await;
        let mut waits = JoinSet::new();
        for _ in 0..8 {
            let doorbell = doorbell.clone();
            waits.spawn(async move { ask(&doorbell, "GET", "/door/wait/60000").await });
        }
        for ms in [1, 30, 700, 1500] {
            let left = ask(&doorbell, "GET", &format!("/door/leave/{ms}")).await;
            assert_eq!(left, "done");
        }
        // A client that hangs up cancels its request.
        let abandoned = request("GET", "/door/wait/60000", &[], "");
        let abandoned = doorbell.handle(abandoned.map(|_| Empty::<bytes::Bytes>::new()));
        assert!(timeout(Duration::from_secs(1), abandoned).await.is_err());

        assert_eq!(ask(&doorbell, "PUT", "/door").await, "done");
        for waited in waits.join_all().await {
            assert_eq!(waited, "set");
        }
        assert!(doorbell.printed(Output::Stderr).is_empty(), "it trapped");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_and_sets_at_the_same_time() {
    for pair in ASYNC {
        let quirks = pair.build.quirks().iter().map(|(_, quirks)| *quirks);
        for quirks in quirks.chain([Quirks::default()]) {
            let doorbell = pair.builder().quirks(quirks).start().await.unwrap();
            assert_eq!(ask(&doorbell, "POST", "/door/meet/5000").await, "set");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn waits_read_as_often_as_the_variables_say() {
    for pair in ALL {
        let store = Observed::new(Memory::default());
        let doorbell = pair.builder().store(store.clone());
        let doorbell = doorbell
            .variable("poll_first_ms", "2000")
            .variable("poll_last_ms", "2000");
        let doorbell = doorbell.start().await.unwrap();
        assert_eq!(ask(&doorbell, "GET", "/door/wait/20000").await, "timed-out");
        let reads = store.count(Operation::Get);
        assert!((9..=14).contains(&reads), "{}: {reads} reads", pair.name);
    }
}

#[tokio::test(start_paused = true)]
async fn errors_say_what_is_wrong_and_the_component_goes_on() {
    for pair in ALL {
        let (doorbell, _, store) = pair.both().await;
        for name in ["no%20spaces", "front@door", &"n".repeat(65)] {
            fails(&doorbell, ("GET", &format!("/{name}")), &["BadName", name]).await;
        }
        let reads = store.count(Operation::Get);
        assert_eq!(reads, 0, "no read for an invalid name");

        store.fail("the disk is on fire");
        for call in CALLS {
            fails(&doorbell, call, &["Store", "the disk is on fire"]).await;
        }
        store.recover();
        assert_eq!(ask(&doorbell, "PUT", "/door").await, "done");

        store.set("event/door", b"a doormat").await.unwrap();
        for call in [CALLS[0], CALLS[1], CALLS[3]] {
            fails(&doorbell, call, &["Foreign", "event/door"]).await;
        }
        let kept = store.get("event/door").await.unwrap();
        assert_eq!(kept.as_deref(), Some(&b"a doormat"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_variable_with_an_invalid_value_is_an_error_of_waits() {
    for pair in ALL {
        let doorbell = pair.builder().variable("poll_first_ms", "soon");
        let doorbell = doorbell.start().await.unwrap();
        let wait = ("GET", "/door/wait/50");
        fails(&doorbell, wait, &["BadSetting", "poll_first_ms"]).await;
        assert_eq!(ask(&doorbell, "PUT", "/door").await, "done");
    }
}

/// A store whose swaps never succeed.
#[derive(Debug)]
struct Stuck(Memory);

#[async_trait]
impl Store for Stuck {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, store::Error> {
        self.0.get(key).await
    }

    async fn set(&self, key: &str, value: &[u8]) -> Result<(), store::Error> {
        self.0.set(key, value).await
    }

    async fn delete(&self, key: &str) -> Result<(), store::Error> {
        self.0.delete(key).await
    }

    async fn keys(&self) -> Result<Vec<String>, store::Error> {
        self.0.keys().await
    }

    async fn swap(&self, _: &str, _: Option<&[u8]>, _: &[u8]) -> Result<bool, store::Error> {
        Ok(false)
    }

    async fn increment(
        &self,
        key: &str,
        delta: i64,
        numbers: Numbers,
    ) -> Result<i64, store::Error> {
        self.0.increment(key, delta, numbers).await
    }

    fn numbers(&self) -> Numbers {
        self.0.numbers()
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_swaps_never_succeed_is_contended() {
    let [exact, _] = ASYNC;
    let doorbell = exact.builder().store(Stuck(Memory::default()));
    let doorbell = doorbell.start().await.unwrap();
    fails(&doorbell, ("PUT", "/door"), &["Error::Contended"]).await;
    assert_eq!(ask(&doorbell, "GET", "/door").await, "false");
}

#[tokio::test(start_paused = true)]
async fn without_the_inherited_store_each_call_is_an_error_that_names_the_setting() {
    let [exact, without_atomics @ ..] = ALL;
    // The store would be the adapter's and the compare-and-swap the host's. Their types do not match, so Spin does not start.
    let mismatch = exact.compose_inheriting(&[]).unwrap_err();
    let mismatch = format!("{mismatch:?}");
    assert!(
        mismatch.contains("type mismatch for import `wasi:keyvalue/atomics@"),
        "{mismatch}"
    );

    for pair in without_atomics {
        let doorbell = pair.inheriting(&[]).await;
        for call in CALLS {
            fails(&doorbell, call, &["Store", "inherit_configuration"]).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_inherited_variables_waits_use_the_defaults() {
    for pair in ALL {
        let doorbell = pair.inheriting(&STORES).await;
        assert_eq!(ask(&doorbell, "GET", "/door/wait/50").await, "timed-out");
        assert_eq!(ask(&doorbell, "PUT", "/door").await, "done");
        assert_eq!(ask(&doorbell, "GET", "/door/wait/50").await, "set");
    }
}

#[tokio::test(start_paused = true)]
async fn python_uses_events_too() {
    let Some(python) = pair::in_python() else {
        return;
    };
    let store = Observed::new(Memory::default());
    let doorbell = Build::SPIN.builder().component(python);
    let doorbell = doorbell.store(store.clone()).start().await.unwrap();
    let loopless = Build::SPIN.builder().store(store).start().await.unwrap();

    assert_eq!(ask(&doorbell, "GET", "/door").await, "false");
    assert_eq!(ask(&doorbell, "GET", "/door/wait/20").await, "timed-out");
    let (waited, _) = tokio::join!(ask(&doorbell, "GET", "/door/wait/60000"), async {
        sleep(Duration::from_secs(3)).await;
        set(&loopless, "door", true).await
    });
    assert_eq!(waited, "set");
    assert_eq!(ask(&doorbell, "GET", "/door").await, "true");
    assert_eq!(ask(&doorbell, "DELETE", "/door").await, "done");
    assert_eq!(ask(&doorbell, "POST", "/door/meet/5000").await, "set");
    fails(
        &doorbell,
        ("GET", "/front@door"),
        &["BadName", "front@door"],
    )
    .await;
}
