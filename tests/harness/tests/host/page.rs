//! The live page: what it shows, and when.

use fantoccini::{Client, Locator};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::browser::{Browser, button, button_says, open, press, shows};
use crate::shared::programs::installed;
use crate::support::{Host, command, component, free_address, project};

/// Waits until the text of the element with this id contains `text`.
async fn reads(client: &Client, id: &str, text: &str) {
    let element = format!("//*[@id='{id}'][contains(normalize-space(), '{text}')]");
    shows(client, &element).await;
}

/// The generation and the state of each change on the page, the newest one first.
async fn changes(client: &Client) -> Vec<String> {
    let read =
        "return [...document.querySelectorAll('#changes li')].map(item => item.firstChild.data)";
    let changes = client.execute(read, vec![]).await.unwrap();
    serde_json::from_value(changes).unwrap()
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
async fn two_pages_show_every_change_of_each_other_and_of_other_clients() {
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
    // Both changes of a pulse are shown, however short it was.
    host.set("event", true).await;
    host.set("event", false).await;
    reads(client, "generation", "4").await;
    assert_eq!(
        changes(client).await,
        ["4 clear", "3 set", "2 clear", "1 set", "0 clear"]
    );
    let title = client.title().await.unwrap();
    assert!(title.starts_with("event is clear"), "{title}");
}

#[tokio::test]
async fn a_lost_connection_is_shown_and_so_are_the_missed_changes_when_it_is_back() {
    let Some(browser) = Browser::start(&[], json!({})).await else {
        return;
    };
    let client = &browser.client;
    let (address, component) = (free_address().await, component());
    let component = component.to_str().unwrap();
    let arguments = ["--listen", &address, "--component", component];
    let arguments = [&arguments, &["--store", "sqlite:store.db"][..]].concat();
    let host = Host::wait_for(command(browser.directory.path(), &arguments)).await;
    client.goto(&host.url).await.unwrap();
    reads(client, "link", "live").await;
    reads(client, "changes", "0 clear").await;

    host.signal(Signal::KILL);
    host.ended().await;
    reads(client, "link", "connection lost").await;
    press(client, "button").await;
    reads(client, "problem", "did not answer").await;
    // The page shows the last state that it knows.
    assert_eq!(button(client).await, "Set");

    let host = Host::wait_for(command(browser.directory.path(), &arguments)).await;
    for is_set in [true, false, true] {
        host.set("event", is_set).await;
    }
    reads(client, "link", "live").await;
    button_says(client, "Clear").await;
    assert_eq!(
        changes(client).await,
        ["3 set", "2 clear", "1 set", "0 clear"]
    );
}

#[tokio::test]
async fn the_page_waits_opens_and_creates_events_and_runs_the_service() {
    let Some((browser, host)) = open(&["--store", "memory"]).await else {
        return;
    };
    let client = &browser.client;
    host.set("door", false).await;
    host.set("gate", true).await;
    client.goto(&host.url).await.unwrap();
    reads(client, "list", "gate set").await;

    let name = client.find(Locator::Id("name")).await.unwrap();
    name.send_keys("no name").await.unwrap();
    press(client, "#open [type=submit]").await;
    let url = client.current_url().await.unwrap();
    assert_eq!(url.path(), "/", "an invalid name");
    name.clear().await.unwrap();
    name.send_keys("new").await.unwrap();
    press(client, "#open [type=submit]").await;
    shows(client, "//h1[.='new']").await;

    press(client, "#wait").await;
    reads(client, "waited", "waiting for").await;
    host.set("new", true).await;
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
async fn the_page_of_a_build_without_the_service_has_everything_but_its_panel() {
    let Some(browser) = Browser::start(&[], json!({})).await else {
        return;
    };
    let client = &browser.client;
    let directory = browser.directory.path();
    let host = Host::of_build(directory, "fermyon-cloud", &["--store", "memory"]).await;
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
    let host = Host::in_memory(&[]).await;
    // To another machine over plain HTTP, a browser sends Origin, but no Sec-Fetch-Site.
    let elsewhere = host.url.replace("127.0.0.1", "loopless.test");
    for url in [&host.url, &elsewhere] {
        for path in ["/", "/events/door"] {
            client.goto(&format!("{url}{path}")).await.unwrap();
            for then in ["Clear", "Set"] {
                press(client, "button").await;
                button_says(client, then).await;
                assert_eq!(client.current_url().await.unwrap().path(), path);
            }
            // What needs a script is not shown.
            let sections = client.find_all(Locator::Css("section")).await.unwrap();
            for section in sections {
                assert!(!section.is_displayed().await.unwrap());
            }
        }
    }
    let (_, event) = host.get("/events/event").await;
    assert!(event.contains("\"generation\":4"), "{event}");
}

/// The script of axe-core, which CI installs. Without it, a test is skipped.
fn axe() -> Option<String> {
    let axe = project().join("target/axe/node_modules/axe-core/axe.min.js");
    let axe = installed(&[axe], "npm install --prefix target/axe axe-core")?;
    Some(std::fs::read_to_string(axe).unwrap())
}

/// The violations that axe-core finds on the page, with their rules.
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
async fn axe_core_finds_no_violation_of_accessibility() {
    let Some(axe) = axe() else { return };
    for name in ["light", "dark"] {
        // During a transition, an element has too little contrast.
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

/// Makes the page show everything that it can.
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
        let host = Host::in_memory(&[]).await;
        host.set("door", true).await;
        host.set("gate", false).await;
        client.set_window_size(640, 1100).await.unwrap();
        client.goto(&host.url).await.unwrap();
        for then in ["Clear", "Set", "Clear", "Set"] {
            press(client, "button").await;
            button_says(client, then).await;
        }
        populate(client).await;
        let picture = client.screenshot().await.unwrap();
        let file = project().join(format!(".github/page-{name}.png"));
        std::fs::write(file, picture).unwrap();
    }
}
