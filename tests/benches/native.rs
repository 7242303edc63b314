//! `cargo bench`: the time of the event, of its store, and of the router, natively and without a host.
//!
//! `cargo bench -- --test` runs each benchmark once, and measures nothing.
#![cfg_attr(target_family = "wasm", no_main)]
#![cfg(not(target_family = "wasm"))]

use std::time::Duration;

use axum::body::Body;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use loopless::event::Name;
use loopless::routes::{self, App};
use loopless::store::{Atomics, Memory, Store};
use loopless_benches::{Host, Unset, events, now};

fn main() {
    divan::main();
}

/// Operations of the store.
mod store {
    use super::*;

    /// Replaces a value, as every change does.
    #[divan::bench]
    fn swap(bencher: Bencher) {
        let store = Memory::default();
        let states: [&[u8]; 2] = [b"10", b"11"];
        now(store.set("event/e", states[0])).unwrap();
        let mut count = 0;
        bencher.bench_local(|| {
            let (old, new) = (states[count % 2], states[(count + 1) % 2]);
            now(store.swap("event/e", old, new)).unwrap();
            count += 1;
        });
        let value = now(store.get("event/e")).unwrap();
        assert_eq!(value.as_deref(), Some(states[count % 2]));
    }
}

/// Operations of the event, on a store that answers at once.
mod event {
    use super::*;

    #[divan::bench]
    fn state(bencher: Bencher) {
        let events = events();
        let event = events.named(&Name::DEMO);
        now(event.set()).unwrap();
        bencher.bench_local(|| assert!(now(black_box(&event).state()).unwrap().is_set()));
    }

    /// A set and a clear, which are two items.
    #[divan::bench]
    fn set_and_clear(bencher: Bencher) {
        let events = events();
        let event = events.named(&Name::DEMO);
        bencher.counter(ItemsCount::new(2_u32)).bench_local(|| {
            assert!(now(event.set()).unwrap().is_set());
            assert!(!now(event.clear()).unwrap().is_set());
        });
    }

    #[divan::bench]
    fn wait_on_a_set_event(bencher: Bencher) {
        let events = events();
        let event = events.named(&Name::DEMO);
        now(event.set()).unwrap();
        bencher.bench_local(|| now(event.wait(black_box(Duration::from_secs(1)))).unwrap());
    }
}

/// Requests to the router, to the last byte of the response.
mod router {
    use super::*;

    fn bench(bencher: Bencher, requests: &[(Method, &str, &'static str)]) {
        let events = events();
        now(events.named(&Name::DEMO).set()).unwrap();
        let app: App<Host> = App::new(events, Unset);
        let router = routes::router(app.clone());
        let requests = requests.iter().cycle();
        let mut next = requests.map(|(method, path, body)| {
            let request = Request::builder().method(method).uri(*path);
            request.body(Body::from(*body)).unwrap()
        });
        bencher
            .with_inputs(|| next.next().unwrap())
            .bench_local_values(|request| {
                now(async {
                    let response = routes::answer(&app, &router, request).await;
                    assert_eq!(response.status(), StatusCode::OK);
                    response.into_body().collect().await.unwrap().to_bytes()
                })
            });
    }

    #[divan::bench]
    fn get_page(bencher: Bencher) {
        bench(bencher, &[(Method::GET, "/", "")]);
    }

    #[divan::bench]
    fn get_event(bencher: Bencher) {
        bench(bencher, &[(Method::GET, "/events/e", "")]);
    }

    #[divan::bench]
    fn put_event(bencher: Bencher) {
        let put = |body| (Method::PUT, "/events/e", body);
        bench(bencher, &[put("{\"set\": true}"), put("{\"set\": false}")]);
    }

    #[divan::bench]
    fn get_style(bencher: Bencher) {
        bench(bencher, &[(Method::GET, "/page.css", "")]);
    }
}
