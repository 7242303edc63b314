//! Arbitrary requests: no request makes the component fail, and a request that is rejected changes nothing.
//!
//! The router is tested natively, where a panic has a backtrace, and the component in the host, where a trap is a 500. By
//! default, these are a few thousand requests. `PROPTEST_CASES=5000 cargo test --test component fuzz` sends about 100,000 to each
//! build and each router, and `PROPTEST_RNG_SEED` generates others.

use std::cell::RefCell;
use std::collections::BTreeMap;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{Request, Response, StatusCode};
use loopless::clock::Tokio;
use loopless::event::Events;
use loopless::promises;
use loopless::routes::{self, App, Background};
use loopless::settings::Variables;
use loopless::store::{Memory, Store};
use loopless::strategy::{Exact, Plain, Strategy};
use loopless_host::store::{Observed, Store as _};
use proptest::test_runner::TestCaseError;
use tokio::runtime::Runtime;

use crate::support::Build;
use crate::support::arbitrary::{
    Arbitrary, Dump, ORIGIN, REQUESTS, TOKEN, check, is_of_events, requests, runner,
};

/// Makes waits and streams end after a second of virtual time.
const SHORT: [(&str, &str); 2] = [("wait_max_seconds", "1"), ("stream_max_seconds", "1")];

/// Everyone may read and change everything, or nobody may without a token.
const VARIABLES: [&[(&str, &str)]; 2] = [
    &[],
    &[
        ("write_token", TOKEN),
        ("read_token", "re4d"),
        ("allowed_origins", ORIGIN),
    ],
];

fn runtime() -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap()
}

/// The events in the store.
async fn dump(store: &Memory) -> Dump {
    let mut dump = Dump::new();
    for key in store.keys().await.unwrap() {
        if is_of_events(&key)
            && let Some(value) = store.get(&key).await.unwrap()
        {
            dump.insert(key, value);
        }
    }
    dump
}

struct Given(&'static [(&'static str, &'static str)]);

impl Variables for Given {
    async fn get(&self, name: &str) -> Result<Option<String>, String> {
        let mut all = self.0.iter().chain(&SHORT);
        Ok(all
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned()))
    }
}

/// A host with compare-and-swap, and with tasks.
struct WithAtomics;

impl routes::Host for WithAtomics {
    type Strategy = Exact<Memory>;
    type Clock = Tokio;
    type Variables = Given;

    const BUILD: promises::Build = promises::Build::SPIN;

    fn background() -> Router<App<Self>> {
        routes::background()
    }
}

impl Background for WithAtomics {
    type Store = Memory;

    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    fn print(_: &str) {}
}

/// A host without compare-and-swap.
struct WithRegisters;

impl routes::Host for WithRegisters {
    type Strategy = Plain<Memory, fn() -> u64>;
    type Clock = Tokio;
    type Variables = Given;

    const BUILD: promises::Build = promises::Build::FERMYON_CLOUD;

    fn background() -> Router<App<Self>> {
        routes::no_background()
    }
}

/// Sends arbitrary requests to the router of a host, and returns how often each status was the answer.
fn tries_the_router<H: routes::Host<Clock = Tokio, Variables = Given>>(
    strategy: impl Fn(Memory) -> H::Strategy,
) -> BTreeMap<u16, usize>
where
    H::Strategy: Strategy,
{
    let statuses = RefCell::new(BTreeMap::new());
    for variables in VARIABLES {
        let runtime = runtime();
        let _entered = runtime.enter();
        let store = Memory::default();
        let events = Events::new(strategy(store.clone()), Tokio::default());
        let app: App<H> = App::new(events, Given(variables));
        let router = routes::router(app.clone());
        withstands(500, |requests| {
            for arbitrary in requests {
                let Some(request) = arbitrary.request() else {
                    continue;
                };
                let before = runtime.block_on(dump(&store));
                let response = runtime.block_on(answer(&app, &router, request.map(Body::from)));
                let after = runtime.block_on(dump(&store));
                check(&arbitrary, &response, &before, &after)?;
                let status = response.status().as_u16();
                *statuses.borrow_mut().entry(status).or_default() += 1;
            }
            Ok(())
        });
    }
    statuses.into_inner()
}

async fn answer<H: routes::Host>(
    app: &App<H>,
    router: &Router,
    request: Request<Body>,
) -> Response<bytes::Bytes> {
    let (head, body) = routes::answer(app, router, request).await.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Response::from_parts(head, body)
}

/// Runs a test on as many cases, each of several requests.
fn withstands(cases: u32, test: impl Fn(Vec<Arbitrary>) -> Result<(), TestCaseError>) {
    if let Err(error) = runner(cases).run(&requests(), test) {
        panic!("{error}");
    }
}

#[test]
fn the_router_with_compare_and_swap_withstands_arbitrary_requests_and_gives_every_answer() {
    let statuses = tries_the_router::<WithAtomics>(|store| Exact::new(store, rand::random));
    for status in [
        200, 202, 204, 303, 304, 400, 401, 403, 404, 405, 408, 412, 413, 414, 431,
    ] {
        assert!(
            statuses.contains_key(&status),
            "{status} is not among {statuses:?}"
        );
    }
    let answers = statuses.values().sum::<usize>();
    assert!(answers > 800 * REQUESTS, "{statuses:?}");
}

#[test]
fn the_router_without_compare_and_swap_withstands_arbitrary_requests() {
    let statuses = tries_the_router::<WithRegisters>(|store| Plain::new(store, rand::random));
    assert!(statuses.contains_key(&501), "{statuses:?}");
}

/// Sends arbitrary requests to the component of a build.
fn tries_the_component(build: Build) {
    for variables in VARIABLES {
        let runtime = runtime();
        let all = variables.iter().chain(&SHORT);
        let (host, store) = runtime.block_on(async {
            let store = Observed::new(loopless_host::store::Memory::default());
            let builder = build.builder().store(store.clone());
            let builder = all.fold(builder, |builder, (name, value)| {
                builder.variable(*name, *value)
            });
            (builder.start().await.unwrap(), store)
        });
        let dump = async || {
            let mut dump = Dump::new();
            for key in store.keys().await.unwrap() {
                if is_of_events(&key) {
                    let value = store.get(&key).await.unwrap().unwrap();
                    dump.insert(key, value);
                }
            }
            dump
        };
        withstands(150, |requests| {
            runtime.block_on(async {
                for arbitrary in requests {
                    let Some(request) = arbitrary.request() else {
                        continue;
                    };
                    let before = dump().await;
                    let response = host.send(request).await;
                    check(&arbitrary, &response, &before, &dump().await)?;
                }
                Ok(())
            })
        });
        let health = runtime.block_on(host.get("/healthz"));
        assert_eq!(health.status(), StatusCode::OK);
    }
}

#[test]
fn the_build_for_spin_withstands_arbitrary_requests() {
    tries_the_component(Build::SPIN);
}

#[test]
fn the_build_for_akamai_functions_withstands_arbitrary_requests() {
    tries_the_component(Build::AKAMAI_FUNCTIONS);
}

#[test]
fn the_build_for_fermyon_cloud_withstands_arbitrary_requests() {
    tries_the_component(Build::FERMYON_CLOUD);
}
