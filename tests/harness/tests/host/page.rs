//! The live page: what it shows, to whom, and for how long that is true.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::browser::{Browser, button, button_says, open, press, shows};
use crate::support::{Host, command, component, project};
use fantoccini::{Client, Locator};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Waits until the text of the element of this name has `text` in it.
async fn reads(client: &Client, id: &str, text: &str) {
    shows(
        client,
        &format!("//*[@id='{id}'][contains(normalize-space(), '{text}')]"),
    )
    .await;
}

/// The changes on the page, the newest one first: generation and state.
async fn changes(client: &Client) -> Vec<String> {
    let read =
        "return [...document.querySelectorAll('#changes li')].map(item => item.firstChild.data)";
    let changes = client.execute(read, vec![]).await.unwrap();
    serde_json::from_value(changes).unwrap()
}

async fn put(host: &Host, name: &str, is_set: bool) {
    let body = format!("{{\"set\": {is_set}}}");
    let (status, _) = host
        .send("PUT", &format!("/events/{name}"), &body, false)
        .await;
    assert_eq!(status, 200);
}

#[test]
fn the_page_with_its_style_and_its_script_is_smaller_than_20_kb() {
    let sizes = ["page.html", "page.css", "page.js"].map(|file| {
        let file = project().join("src").join(file);
        file.metadata().unwrap().len()
    });
    assert!(sizes.iter().sum::<u64>() < 20_000, "{sizes:?}");
}

#[tokio::test]
async fn two_pages_are_in_step_with_each_other_and_with_everyone_else() {
    let Some((browser, host)) = open(&["--store", "memory"]).await else {
        return;
    };
    let client = &browser.client;
    let one = client.window().await.unwrap();
    let two = client.new_window(false).await.unwrap().handle;
    client.switch_to_window(two.clone()).await.unwrap();
    client.goto(&host.url).await.unwrap();
    reads(client, "link", "live").await;

    for (window, other, then) in [(&one, &two, "Clear"), (&two, &one, "Set")] {
        client.switch_to_window(window.clone()).await.unwrap();
        press(client, "button").await;
        button_says(client, then).await;
        client.switch_to_window(other.clone()).await.unwrap();
        button_says(client, then).await;
    }
    // A pulse is over before anybody could look, and is told all the same.
    put(&host, "event", true).await;
    put(&host, "event", false).await;
    reads(client, "generation", "4").await;
    assert_eq!(
        changes(client).await,
        ["4 clear", "3 set", "2 clear", "1 set", "0 clear"]
    );
    let title = client.title().await.unwrap();
    assert!(title.starts_with("event is clear"), "{title}");
}

#[tokio::test]
async fn a_lost_connection_is_said_and_what_was_missed_is_told_when_it_is_back() {
    let Some(browser) = Browser::start(&[], json!({})).await else {
        return;
    };
    let client = &browser.client;
    // The port is free again when this is dropped, and is taken by the host.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let address = address.unwrap().to_string();
    let component = component();
    let arguments = [
        "--listen",
        &address,
        "--store",
        "sqlite:store.db",
        "--component",
    ];
    let arguments = [&arguments, &[component.to_str().unwrap()][..]].concat();
    let host = Host::wait_for(command(browser.directory.path(), &arguments)).await;
    client.goto(&host.url).await.unwrap();
    reads(client, "link", "live").await;
    reads(client, "changes", "0 clear").await;

    host.signal(Signal::KILL);
    host.ended().await;
    reads(client, "link", "connection lost").await;
    press(client, "button").await;
    reads(client, "problem", "did not answer").await;
    // It says nothing that it does not know.
    assert_eq!(button(client).await, "Set");

    let host = Host::wait_for(command(browser.directory.path(), &arguments)).await;
    for is_set in [true, false, true] {
        put(&host, "event", is_set).await;
    }
    reads(client, "link", "live").await;
    button_says(client, "Clear").await;
    assert_eq!(
        changes(client).await,
        ["3 set", "2 clear", "1 set", "0 clear"]
    );
}

#[tokio::test]
async fn it_shows_a_wait_opens_and_makes_events_and_runs_the_service() {
    let Some((browser, host)) = open(&["--store", "memory"]).await else {
        return;
    };
    let client = &browser.client;
    put(&host, "door", false).await;
    put(&host, "gate", true).await;
    client.goto(&host.url).await.unwrap();
    reads(client, "list", "gate set").await;

    let name = client.find(Locator::Id("name")).await.unwrap();
    name.send_keys("no name").await.unwrap();
    press(client, "#open [type=submit]").await;
    assert_eq!(
        client.current_url().await.unwrap().path(),
        "/",
        "it is no name"
    );
    name.clear().await.unwrap();
    name.send_keys("new").await.unwrap();
    press(client, "#open [type=submit]").await;
    shows(client, "//h1[.='new']").await;

    press(client, "#wait").await;
    reads(client, "waited", "waiting for").await;
    put(&host, "new", true).await;
    reads(client, "waited", "it was set, after").await;
    reads(client, "list", "new set").await;

    press(client, "summary").await;
    press(client, "#start").await;
    reads(client, "lines", "Service did something").await;
    reads(client, "doing", "running").await;
    press(client, "#stop").await;
    reads(client, "lines", "Service stopped").await;
    reads(client, "doing", "stopped").await;
}

#[tokio::test]
async fn a_build_without_the_service_has_no_panel_for_it_and_all_else() {
    let Some(browser) = Browser::start(&[], json!({})).await else {
        return;
    };
    let client = &browser.client;
    let host = Host::of_build(
        browser.directory.path(),
        "fermyon-cloud",
        &["--store", "memory"],
    )
    .await;
    client.goto(&host.url).await.unwrap();
    reads(client, "link", "live").await;
    press(client, "button").await;
    button_says(client, "Clear").await;
    assert!(client.find(Locator::Id("panel")).await.is_err());
}

#[tokio::test]
async fn without_javascript_the_button_is_a_form() {
    let preferences = json!({ "profile.managed_default_content_settings.javascript": 2 });
    let names = ["--host-resolver-rules=MAP loopless.test 127.0.0.1"];
    let Some(browser) = Browser::start(&names, preferences).await else {
        return;
    };
    let client = &browser.client;
    let host = Host::start(browser.directory.path(), &["--store", "memory"]).await;
    // To a server of another machine, over plain HTTP, a browser sends the origin and nothing else.
    let elsewhere = host.url.replace("127.0.0.1", "loopless.test");
    for url in [&host.url, &elsewhere] {
        for path in ["/", "/events/door"] {
            client.goto(&format!("{url}{path}")).await.unwrap();
            for then in ["Clear", "Set"] {
                press(client, "button").await;
                button_says(client, then).await;
                assert_eq!(client.current_url().await.unwrap().path(), path);
            }
            // What needs a script is not there.
            let sections = client.find_all(Locator::Css("section")).await.unwrap();
            for section in sections {
                assert!(!section.is_displayed().await.unwrap());
            }
        }
    }
    let (_, event) = host.send("GET", "/events/event", "", false).await;
    assert!(event.contains("\"generation\":4"), "{event}");
}

/// axe-core, if it is installed. A test that does not get it has nothing to do: that is said here, and in CI it is a
/// failure.
fn axe() -> Option<String> {
    let directory: PathBuf = project().join("target/axe/node_modules/axe-core/axe.min.js");
    let axe = std::fs::read_to_string(directory).ok();
    if axe.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI must have axe-core");
        eprintln!("SKIPPED: no axe-core; npm install --prefix target/axe axe-core");
    }
    axe
}

/// What axe-core finds wrong with the page, by the rules' names.
async fn violations(client: &Client, axe: &str) -> Vec<String> {
    client.execute(axe, vec![]).await.unwrap();
    let run = "const done = arguments[0];
        axe.run().then(found => done(found.violations.map(one => one.id + ': ' + one.nodes.map(node => node.html))))";
    let found = client.execute_async(run, vec![]).await.unwrap();
    serde_json::from_value(found).unwrap()
}

/// The argument for a browser that prefers this colour scheme.
fn scheme(name: &str) -> &'static str {
    match name {
        "dark" => "--blink-settings=preferredColorScheme=0",
        _ => "--blink-settings=preferredColorScheme=1",
    }
}

#[tokio::test]
async fn it_is_for_everybody_as_far_as_axe_core_can_tell() {
    let Some(axe) = axe() else { return };
    for name in ["light", "dark"] {
        // What is on its way into view has no contrast yet.
        let arguments = [scheme(name), "--force-prefers-reduced-motion"];
        let Some(browser) = Browser::start(&arguments, json!({})).await else {
            return;
        };
        let client = &browser.client;
        let _host = browser.show(&["--store", "memory"]).await;
        let matches = format!("return matchMedia('(prefers-color-scheme: {name})').matches");
        let matches = client.execute(&matches, vec![]).await.unwrap();
        assert_eq!(matches, Value::Bool(true), "{name}");
        for then in ["Clear", "Set"] {
            press(client, "button").await;
            button_says(client, then).await;
            assert_eq!(violations(client, &axe).await, [""; 0], "{name} {then}");
        }
        populate(client).await;
        assert_eq!(violations(client, &axe).await, [""; 0], "{name}");
        // A problem, and the form for the token.
        let problem =
            "say('Something is wrong.'); document.getElementById('unlock').hidden = false";
        client.execute(problem, vec![]).await.unwrap();
        assert_eq!(violations(client, &axe).await, [""; 0], "{name}");
    }
}

/// Makes the page show all that it can.
async fn populate(client: &Client) {
    press(client, "#wait").await;
    press(client, "summary").await;
    press(client, "#start").await;
    reads(client, "lines", "Service did something").await;
}

/// README's pictures: `cargo test -p loopless-host --test host -- --ignored screenshots`.
#[tokio::test]
#[ignore = "writes pictures into .github/"]
async fn screenshots() {
    for name in ["light", "dark"] {
        let browser = Browser::start(&[scheme(name)], json!({})).await.unwrap();
        let client = &browser.client;
        let host = Host::start(browser.directory.path(), &["--store", "memory"]).await;
        put(&host, "door", true).await;
        put(&host, "gate", false).await;
        client.set_window_size(640, 1100).await.unwrap();
        client.goto(&host.url).await.unwrap();
        for then in ["Clear", "Set", "Clear", "Set"] {
            press(client, "button").await;
            button_says(client, then).await;
        }
        populate(client).await;
        let picture = client.screenshot().await.unwrap();
        let file: &Path = &project().join(format!(".github/page-{name}.png"));
        std::fs::write(file, picture).unwrap();
    }
}
