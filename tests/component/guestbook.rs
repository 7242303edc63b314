//! The harness runs any component: here a guestbook, which uses no events.

/// The first example of the harness's documentation.
#[path = "../guestbook/signing.rs"]
mod signing;

use std::path::Path;
use std::time::Duration;

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use loopless_host::console::{Line, Output};
use loopless_host::simulation::{Database, Faults, Settings, Simulation};
use loopless_host::store::{Memory, Observed, Operation, Sqlite, Store};
use loopless_host::{Builder, Harness, Reuse, Routes, component};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::support::{problem, text};

fn guestbook() -> Builder {
    Harness::builder().package("tests/guestbook")
}

#[tokio::test(start_paused = true)]
async fn a_variable_that_is_not_set_has_its_default() {
    let host = guestbook().start().await.unwrap();
    assert_eq!(text(&host.get("/").await), "Hello\n");
}

#[tokio::test(start_paused = true)]
async fn a_built_component_needs_no_package() {
    let path = component::build("tests/guestbook".as_ref()).unwrap();
    let host = Harness::builder().component(path).start().await.unwrap();
    assert_eq!(host.get("/").await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_keeps_its_values() {
    let store = Observed::new(Memory::default());
    let host = guestbook().store(store.clone()).start().await.unwrap();
    host.post("/ada", "First.").await;
    store.fail("the disk is on fire");
    for response in [host.get("/").await, host.post("/ada", "Second.").await] {
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    let complaints = host.printed(Output::Stderr);
    assert_eq!(complaints.len(), 2);
    for complaint in complaints {
        assert!(complaint.contains("the disk is on fire"), "{complaint}");
    }
    store.recover();
    assert_eq!(text(&host.get("/").await), "Hello\nada: First.\n");
}

#[tokio::test(start_paused = true)]
async fn one_operation_may_fail_while_the_others_do_not() {
    let store = Observed::new(Memory::default());
    let host = guestbook().store(store.clone()).start().await.unwrap();
    store.fail_at(Operation::Set, "read only");
    let signed = host.post("/ada", "First.").await;
    assert_eq!(signed.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(store.count(Operation::Set), 2, "the guest retries once");
    assert_eq!(host.get("/").await.status(), StatusCode::OK);
    store.recover();
    let signed = host.post("/ada", "First.").await;
    assert_eq!(signed.status(), StatusCode::CREATED);
    assert_eq!(store.count(Operation::Set), 3);
}

#[tokio::test(start_paused = true)]
async fn the_next_operations_fail_as_often_as_the_test_says() {
    let store = Observed::new(Memory::default());
    let host = guestbook().store(store.clone()).start().await.unwrap();
    store.fail_next(3, Operation::Set, "busy");
    let first = host.post("/ada", "First.").await;
    assert_eq!(first.status(), StatusCode::SERVICE_UNAVAILABLE);
    let second = host.post("/ada", "Second.").await;
    assert_eq!(second.status(), StatusCode::CREATED);
    assert_eq!(store.count(Operation::Set), 4);
}

#[tokio::test(start_paused = true)]
async fn a_line_has_its_instance_and_its_output() {
    let host = guestbook().start().await.unwrap();
    host.post("/ada", "").await;
    let line = |output, text: &str| Line {
        instance: 1,
        output,
        text: text.into(),
    };
    let expected = [
        line(Output::Stdout, "request 1: POST /ada"),
        line(Output::Stderr, "ada wrote nothing"),
    ];
    assert_eq!(host.lines(), expected);
    assert_eq!(host.printed(Output::Stdout), ["request 1: POST /ada"]);
    assert_eq!(host.printed(Output::Stderr), ["ada wrote nothing"]);
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_reused_until_its_number_of_requests_or_its_idle_time_is_over() {
    let host = guestbook()
        .reuse(Reuse {
            requests: 2,
            idle: Duration::from_secs(60),
            ..Reuse::default()
        })
        .start()
        .await
        .unwrap();
    for pause in [0, 59, 0, 61, 0] {
        sleep(Duration::from_secs(pause)).await;
        host.get("/").await;
    }
    let lines = host.lines().into_iter();
    let served: Vec<_> = lines.map(|line| (line.instance, line.text)).collect();
    let expected = [(1, 1), (1, 2), (2, 1), (3, 1), (3, 2)];
    let expected = expected.map(|(instance, n)| (instance, format!("request {n}: GET /")));
    assert_eq!(served, expected);
    assert_eq!(host.instances(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_exceeds_the_request_timeout_is_504() {
    let store = Observed::new(Memory::default());
    store.fail_at(Operation::Set, "busy");
    let host = guestbook()
        .store(store)
        .reuse(Reuse {
            request_timeout: Some(Duration::from_millis(500)),
            ..Reuse::default()
        })
        .start()
        .await
        .unwrap();
    let started = Instant::now();
    let response = host.post("/ada", "First.").await;
    problem(&response, StatusCode::GATEWAY_TIMEOUT);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn killed_instances_fail_their_requests_and_no_others() {
    let store = Observed::new(Memory::default());
    let host = guestbook().store(store.clone()).start().await.unwrap();
    store.fail_next(1, Operation::Set, "busy");
    let signing = tokio::spawn({
        let host = host.clone();
        async move { host.post("/ada", "First.").await }
    });
    // The guest waits for a second before it retries.
    sleep(Duration::from_millis(500)).await;
    host.kill_instances();
    let killed = signing.await.unwrap();
    problem(&killed, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(
        host.printed(Output::Stderr),
        [""; 0],
        "a kill is not a failure"
    );
    let again = host.post("/ada", "Again.").await;
    assert_eq!(again.status(), StatusCode::CREATED);
    assert_eq!(host.instances(), 2);
}

#[test]
fn in_a_simulation_each_guest_who_was_thanked_is_in_the_book() {
    let component = component::build(Path::new("tests/guestbook")).unwrap();
    let simulation = Simulation::load(component).unwrap();
    let (mut thanked, mut lost) = (0, 0);
    for seed in 0..50 {
        let run = simulation.run(seed, async |world| {
            let faults = Faults {
                latency: Duration::from_millis(20),
                failing: 0.2,
                lost_answers: 0.2,
                deaths: 0.05,
                ..Faults::default()
            };
            let database = Database::new(&world, faults);
            let host = world.host("A", &database, Settings::default()).unwrap();
            let mut signed = Vec::new();
            for guest in ["ada", "grace", "edsger", "tony"] {
                let request = Request::post(format!("/{guest}")).body(guest).unwrap();
                signed.push((guest, host.send(guest, request).await));
            }
            for (guest, exchange) in signed {
                match exchange.result {
                    Ok(response) if response.status() == StatusCode::CREATED => {
                        assert_eq!(database.value(guest), Some(guest.into()), "seed {seed}");
                        thanked += 1;
                    }
                    Ok(response) => assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE),
                    Err(_) => lost += 1,
                }
            }
        });
        run.unwrap();
    }
    println!("{thanked} were thanked, {lost} requests died");
    assert!(thanked > 0 && lost > 0);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_path_is_400_and_does_not_reach_the_component() {
    let host = guestbook().start().await.unwrap();
    for path in ["", "ada", "/a b", "http://"] {
        let detail = problem(&host.get(path).await, StatusCode::BAD_REQUEST);
        assert!(detail.contains(&format!("{path:?}")), "{detail}");
        problem(&host.post(path, "First.").await, StatusCode::BAD_REQUEST);
    }
    assert_eq!(host.instances(), 0);
}

#[tokio::test]
async fn a_host_serves_http_on_a_socket_and_keeps_its_store_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("book.db");
    let store = Sqlite::open(&path).unwrap();
    let host = guestbook().store(store).start().await.unwrap();
    let server = host.serve().await.unwrap();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let request = "POST /ada HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 6\r\n\r\nFirst.";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(answer.contains("Thank you, ada."), "{answer}");
    assert!(server.shut_down().await);

    let again = Sqlite::open(&path).unwrap();
    assert_eq!(again.get("ada").await, Ok(Some(b"First.".to_vec())));
}

#[tokio::test(start_paused = true)]
async fn a_mounted_host_sees_paths_without_the_prefix() {
    let hosts = [
        guestbook().start().await.unwrap(),
        guestbook().start().await.unwrap(),
        guestbook().start().await.unwrap(),
    ];
    let [root, book, old] = hosts.clone();
    let routes = Routes::from(root)
        .mount("/book", book)
        .mount("book/old/", old);
    for path in [
        "/",
        "/books/x",
        "/x/book/y",
        "/book/",
        "/book//x?a=b",
        "/book/old/x",
    ] {
        let request = Request::get(path).body(Full::<bytes::Bytes>::default());
        routes.handle(request.unwrap()).await;
    }
    let printed = hosts.each_ref().map(|host| {
        let lines = host.printed(Output::Stdout).into_iter();
        let paths = lines.map(|line| line.rsplit_once(' ').unwrap().1.to_owned());
        paths.collect::<Vec<_>>()
    });
    let [root, book, old] = printed;
    assert_eq!(root, ["/", "/books/x", "/x/book/y"]);
    assert_eq!(book, ["/", "//x"]);
    assert_eq!(old, ["/x"]);

    for (path, location) in [("/book", "/book/"), ("/book/old?a=b", "/book/old/?a=b")] {
        let request = Request::get(path).body(Full::<bytes::Bytes>::default());
        let response = routes.handle(request.unwrap()).await;
        assert_eq!(response.status(), StatusCode::PERMANENT_REDIRECT);
        assert_eq!(response.headers()[header::LOCATION], location);
        let body = response.into_body().collect().await.unwrap();
        assert!(body.to_bytes().is_empty());
    }
}
