//! The threat model: what is protected, against whom, and what is left to the platform.
//!
//! The component is meant for a public URL. `loopless-host` is meant for local use and tests. It withstands the same clients,
//! but has no TLS.
//!
//! # Assets
//!
//! - *Integrity*: the state of each event, the service, and all other data in the store.
//! - *Confidentiality*: the tokens, and with a `read_token` also the names and states of the events. If no `read_token` is set,
//!   these are public.
//! - *Availability*: the component, and the store, which others may use too.
//!
//! # Trust
//!
//! | who | is trusted with |
//! | --- | --- |
//! | the operator | everything: variables, tokens, the store. The `operator_token` is only for `/lifespan` |
//! | a writer: everyone with the `write_token`, or everyone if it is not set | changing and reading every event and the service. Writers are not isolated from each other |
//! | a reader: everyone with the `read_token`, or everyone if it is not set | reading |
//! | the host | everything. The component cannot protect itself against it |
//! | others who write to the store | the events. They can delete or overwrite them, which is only noticed if they write something that the component never writes |
//!
//! # Attacks and defences
//!
//! **Anyone with a network connection**
//!
//! | attack | defence | tested in |
//! | --- | --- | --- |
//! | changing or reading without a token | 401, before the handler or the store is used. Tokens are compared in constant time, so only their length can leak. If a variable for tokens or origins is not valid, all requests are rejected | `tests/component/promises/access.rs` |
//! | guessing a token | only the token's length: attempts are not counted. The 32 random bytes in README cannot be guessed | |
//! | invalid requests | limits on the path, the headers, the body (1 KiB), names (64 characters), times and list pages; 4xx with a problem document, and nothing is changed | `tests/component/fuzz.rs`, `tests/component/promises/errors.rs` |
//! | making the component trap, which would end the other requests of the instance | no `unwrap` outside tests; arbitrary requests find no panic; no unsafe code in the workspace except what wit-bindgen generates | `tests/component/fuzz.rs` |
//! | many waits and streams | an instance accepts at most `instance_waits_max`, and answers others with 429. The waits on an event share its reads (WASI 0.3), and each wait has a timeout. If the host reports that a client has disconnected, its wait ends | `tests/component/promises/waits.rs`, `tests/harness/tests/host/front.rs` |
//! | creating many events, to fill the store | with a `write_token`, only writers can. Only the store limits the number of events | |
//! | `GET /healthz`, which needs no token | one read of the store per request, and a response within 1.5 s (with WASI 0.3) | `tests/component/promises/store.rs` |
//! | slow, broken or flooding connections | the platform. `loopless-host` limits connections, heads, bodies, responses and concurrent requests | `tests/harness/tests/host/front.rs` |
//!
//! **A page of another site, in a writer's browser**
//!
//! | attack | defence | tested in |
//! | --- | --- | --- |
//! | sending a form or a fetch that changes something | 403, according to `Sec-Fetch-Site`, or else by comparing `Origin` and `Host`. Nothing relies on cookies, so a browser adds no credentials by itself | `tests/component/promises/access.rs`, `tests/harness/tests/host/browser.rs` |
//! | reading a response | the browser, because CORS is enabled only for `allowed_origins` | the same |
//! | clickjacking: showing the page in a frame | `frame-ancestors 'none'` | the same |
//! | injecting a script into the page, by a name or a body | the page's template escapes its values, and few characters are allowed in names. The Content-Security-Policy allows only the component's own script; `nosniff` | the same |
//! | DNS rebinding: resolving its own name to the victim's machine | a `write_token` and a `read_token`, which the page does not have. *Without tokens, there is no defence*, because the component does not know its own names | |
//!
//! An allowed origin may do everything that the application's own page may do, so its scripts are trusted as much.
//!
//! **Others who write to the store.** A value that no build of the component writes results in a 500, and is not changed. A key that
//! is not an event's name is skipped. (Tested in `tests/component/promises/errors.rs`.) Forged events cannot be detected.
//!
//! **A store that misbehaves**, by a fault or an attack
//!
//! | fault | result | tested in |
//! | --- | --- | --- |
//! | it fails | 503 with `Retry-After`. Waits and streams continue when it recovers. No acknowledged change is lost by the component | `tests/component/promises/store.rs`, `tests/component/promises/waits.rs` |
//! | it hangs | 503 after 1.5 s (see [`Bounded`](crate::store::Bounded)). A call that cannot time out is only made if the store has just answered. With WASI 0.2, no call can time out, and the host ends the request | `tests/component/promises/store.rs` |
//! | it is wiped, or goes back to an earlier state | the newest read is believed: see [`Exact`](crate::strategy::Exact) and, without compare-and-swap, [`Plain`](crate::strategy::Plain). The service's runner ends at its next beat (see [`service`](crate::service)) | `tests/component/promises/store.rs`, `tests/component/service.rs` |
//! | it applies an `increment` twice | no event changes. The service loses a term, but no tick | `tests/component/service.rs` |
//!
//! `loopless-host simulate` checks the promises under each of these faults. `loopless-host soak` kills hosts and makes the store
//! fail under mixed traffic. It reports a lost acknowledged change, leaked resources, and an incomplete recovery.
//!
//! **A hostile component on `loopless-host`.** Wasmtime gives a component no access to the host's memory, files, network and
//! environment variables. It has access to the whole store. Its output is marked with its name, and cannot control the operator's
//! terminal. Its memory, CPU time, output and number of instances are limited. (Tested in `tests/harness/tests/host/guests.rs` and
//! beside the code.) On Spin and the clouds, the platform has to do this.
//!
//! **Suppliers of code.** `Cargo.lock` pins every crate by its hash. cargo-deny, in CI, checks licences, sources, the component's
//! dependencies, and known vulnerabilities. The workspace denies unsafe code, except in wit-bindgen's bindings. The component imports
//! no interface to the outside except the store: it cannot send requests, so it can leak data only in a response. (With Redis, the
//! host lets it connect only to `allowed_outbound_hosts`.) `wit/world.wit` gives a reason for each import, and a test compares it
//! with the built component.
//!
//! # Left to the platform
//!
//! - *TLS*. A token is sent with each request. Over plain HTTP, everyone on the network path can read it.
//! - *Rate limits*. The component does not know addresses, and its limits are per instance. The host or a proxy has to limit the
//!   number of instances and the rate of each client.
//! - *Secrets*. The host keeps the variables. They are declared as secrets, and the component neither returns nor prints them. To
//!   change a token, change its variable. Running instances keep the old token until they end.
//! - *The store*: access, encryption and backups. On Redis, give the application a user or a database of its own.
//! - *Tenants*. The host isolates applications. All writers of an application share one set of events.
//! - *Logs*. The component does not log requests. `loopless-host` can log the path of each request, and never logs headers.
