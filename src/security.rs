//! What is defended, by what, and what is left to the platform. There is no code here.
//!
//! The component is meant for a public URL. `loopless-host` is meant for one's own machine and for tests; it withstands the
//! same clients, but has no TLS.
//!
//! # What there is to lose
//!
//! - *Integrity*: the state of each event, the service, and what else is in the store.
//! - *Confidentiality*: the tokens; with a `read_token`, also the names and the states of the events. Without one, these are
//!   public.
//! - *Availability*: of the component, and of the store that others may use too.
//!
//! # Who is trusted with what
//!
//! | who | is trusted with |
//! | --- | --- |
//! | the operator | everything: variables, tokens, the store. `operator_token` is for `/lifespan` alone |
//! | a writer: who has the `write_token`, or everyone if it is empty | changing every event and the service, and looking at them. Writers are not kept apart from each other |
//! | a reader: who has the `read_token`, or everyone if it is empty | looking |
//! | the host | everything. The component cannot defend itself against it |
//! | others who write into the store | nothing of the events. They can delete or overwrite them, and are not noticed if they write what the component could have written |
//!
//! # Who may attack, and what stops them
//!
//! **Anyone with a network connection.**
//!
//! | what they may try | what stops it | tested in |
//! | --- | --- | --- |
//! | to change, or to look, without a token | 401, before a handler or the store is asked. Tokens are compared in constant time: only their length shows. A variable that cannot be used lets nobody pass | `tests/promises/access.rs` |
//! | to guess a token | nothing but its length: no attempt is counted. 32 random bytes, as in README, are not guessed | |
//! | requests that make no sense | bounds on the path, the headers, the body (1 KiB), names (64 characters), times and list pages; 4xx with a problem document, and nothing is changed | `tests/fuzz.rs`, `tests/promises/errors.rs` |
//! | to make the component trap, which would end the other requests of its instance | no `unwrap` outside tests, and arbitrary requests that find no panic; no unsafe code in the workspace but what wit-bindgen generates | `tests/fuzz.rs` |
//! | waits and streams in great number | `instance_waits_max` an instance, then 429. The waits on an event share its reads (WASI 0.3), and each wait has an end. If the host tells, a client that hangs up ends its wait | `tests/promises/waits.rs`, `tests/harness/tests/host/front.rs` |
//! | names in great number, to fill the store | with a `write_token`, only writers can. There is no bound on events, other than the store's own | |
//! | `GET /healthz`, which needs no token | one read of the store a request, and an answer within 1.5 s (with WASI 0.3) | `tests/promises/store.rs` |
//! | slow, broken or flooding connections | the platform. On `loopless-host`: bounds on connections, heads, bodies, responses and requests under way | `tests/harness/tests/host/front.rs` |
//!
//! **A page of another site, in the browser of somebody who may write.**
//!
//! | what it may try | what stops it | tested in |
//! | --- | --- | --- |
//! | to send a form or a fetch that changes something | `Sec-Fetch-Site`, or else `Origin` against `Host`: 403. Nothing relies on cookies, so that a browser adds no rights of its own accord | `tests/promises/access.rs`, `tests/harness/tests/host/browser.rs` |
//! | to read a response | the browser, as CORS is on for `allowed_origins` alone | the same |
//! | to show the page in a frame and have it clicked | `frame-ancestors 'none'` | the same |
//! | to put a script into the page, by a name or a body | the page's templates escape what they show. Names are of a few characters. The Content-Security-Policy runs the component's own script and no other; `nosniff` | the same |
//! | to have its own name resolve to the machine of the victim (DNS rebinding) | a `write_token`, and a `read_token`: the page has neither. *Without tokens, nothing*: which names are its own, the component does not know | |
//!
//! An allowed origin may do what the application's own page may do. Its scripts are as trusted as this component's.
//!
//! **Who writes into the store.** A value that no build of the component writes is 500, and is left alone; a key that is not a name
//! is passed over. Tested in `tests/promises/errors.rs`. To make up events, it is enough to write into the store.
//!
//! **A store that misbehaves**, by a fault or because somebody makes it.
//!
//! | what it may do | what holds | tested in |
//! | --- | --- | --- |
//! | to fail | 503 with `Retry-After`. Waits and streams go on when it is back; the component loses no acknowledged change | `tests/promises/store.rs`, `tests/promises/waits.rs` |
//! | to hang | 503 after 1.5 s (see [`Bounded`](crate::store::Bounded)); a call that could not be given up is made only of a store that has just answered. With WASI 0.2 no call can be given up, and the host ends the request | `tests/promises/store.rs` |
//! | to be wiped, or to go back to an earlier state | the newest read is believed: see [`Exact`](crate::strategy::Exact), and, without compare-and-swap, [`Plain`](crate::strategy::Plain). The service's runner ends at its next beat (see [`service`](crate::service)) | `tests/promises/store.rs`, `tests/service.rs` |
//! | to apply an `increment` twice | no event is changed. The service loses a term and no tick | `tests/service.rs` |
//!
//! In `loopless-host simulate`, each of these is a weather, under which the promises that still hold are checked. `loopless-host
//! soak` kills hosts and lets the store fail under mixed traffic; it fails if an acknowledged change is lost, if anything is
//! left in use, or if full service does not come back.
//!
//! **A component on `loopless-host`** that is hostile, or has been taken over. Wasmtime keeps it from the host's memory, files,
//! network and environment variables: none of them is given to it. It has the whole store. What it prints is marked with
//! its name, and cannot control the operator's terminal. Its memory and its computing are bounded, and so are its lines and the
//! instances of it. Tested in `tests/harness/tests/host/guests.rs` and beside the code. On Spin and in the clouds, this is the
//! platform's.
//!
//! **Who supplies the code.** `Cargo.lock` pins every crate by its hash. cargo-deny, in CI, checks licences, sources, what the
//! component may depend on, and known vulnerabilities. The workspace denies unsafe code, except in bindings, which come from wit-bindgen. The component
//! imports no way out of its sandbox but the store: it can send no requests, so it cannot give anything away except in a
//! response. (With Redis, the host connects it to what `allowed_outbound_hosts` grants, and to nothing else.) `wit/world.wit` names each import with its reason, and a test compares it with what is built.
//!
//! # What is the platform's
//!
//! - *TLS*. A token is sent with each request. Over plain HTTP, whoever is on the way has it.
//! - *Clients in great number*. The component knows no addresses, and its limits are those of an instance. How many instances
//!   there are, and how often a client may ask, is for the host or for a proxy before it.
//! - *Secrets*. A host keeps the variables. They are declared as secrets, are in no response, and are printed nowhere by the
//!   component. A token is changed with its variable, and instances that run keep the old one until they end.
//! - *The store*: who may use it, encryption, backups. On Redis, give the application a user or a database of its own.
//! - *Tenants*. Applications are kept apart by the host. Within an application, there is one set of events for all writers.
//! - *Logs*. The component logs no requests. `loopless-host` logs the path of each, if asked to, and never its headers.
