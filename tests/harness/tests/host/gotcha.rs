//! `loopless-host --gotcha`: an event in a `static` beside the real one.

use crate::support::Host;
use crate::support::connection::{Connection, parts};

#[tokio::test]
async fn the_gotcha_fails_its_own_requests_and_no_others() {
    let mut host = Host::in_memory(&["--gotcha"]).await;
    let gotcha = host.prints("gotcha").await;
    let url = format!("{}/gotcha/", host.url);
    assert!(gotcha.ends_with(&url), "{gotcha}");
    let (status, page) = host.get("/gotcha/").await;
    assert_eq!(status, 200);
    assert!(page.contains("<h1>The gotcha</h1>"), "{page}");

    let mut stream = Connection::gets(&host, "/events/door/stream").await;
    stream.sees("\"generation\":0").await;

    // A set that comes at the moment when the wait falls asleep goes to another instance. Then the test tries again.
    let mut trapped = false;
    for _ in 0..5 {
        let waiting = Connection::gets(&host, "/gotcha/wait").await;
        host.prints("] GET /wait").await;
        let (set, answer) = host.send("POST", "/gotcha/set", "").await;
        let waited = waiting.end().await;
        let (waited, _, _) = parts(&waited);
        if set == 500 {
            assert_eq!(waited, 500);
            assert!(answer.contains("The host's log says how."), "{answer}");
            trapped = true;
            break;
        }
        assert_eq!((set, waited), (200, 408), "{answer}");
        host.send("POST", "/gotcha/clear", "").await;
    }
    assert!(trapped, "five sets in a row went to other instances");

    let (status, after) = host.get("/gotcha/event").await;
    assert_eq!(status, 200);
    assert!(after.contains("\"set\":false"), "a new instance: {after}");

    // A stream of the real event that began before goes on.
    host.set("door", true).await;
    stream.sees("\"generation\":1").await;

    let log = host.stop().await;
    let trap = "Cannot support cross-component-model-task wakeup";
    assert!(log.contains(trap), "{log}");
}

#[tokio::test]
async fn without_the_option_there_is_no_gotcha() {
    let host = Host::in_memory(&[]).await;
    assert_eq!(host.get("/gotcha/").await.0, 404);
    let log = host.stop().await;
    assert!(!log.contains("Building"), "{log}");
}
