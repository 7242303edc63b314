//! The page in a real browser: headless Chromium, driven over WebDriver.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::conformance::{Server, whole};
use crate::shared::programs::program;
use crate::support::Host;

/// Starts ChromeDriver on a port that it chooses, and returns its URL too.
async fn driver(program: PathBuf) -> (Child, String) {
    // If another one starts at the same time and chooses the same port, it ends.
    for _ in 0..5 {
        let mut driver = Command::new(&program)
            .arg("--port=0")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some((_, port)) = line.rsplit_once("on port ") {
                let port = port.trim_end_matches('.');
                if port.parse::<u16>().is_ok_and(|port| port != 0) {
                    return (driver, format!("http://127.0.0.1:{port}"));
                }
            }
        }
    }
    panic!("ChromeDriver did not say on which port it listens");
}

/// The label of the page's only button.
pub async fn button(client: &Client) -> String {
    let buttons = client.find_all(Locator::Css("button")).await.unwrap();
    assert_eq!(buttons.len(), 1);
    buttons[0].text().await.unwrap()
}

/// Whether an element matches this selector.
async fn has(client: &Client, css: &str) -> bool {
    let found = client.find_all(Locator::Css(css)).await.unwrap();
    !found.is_empty()
}

/// Waits until the page has an element that matches, and returns it.
pub async fn shows(client: &Client, xpath: &str) -> Element {
    let wait = client.wait().at_most(Duration::from_secs(20));
    let shown = wait.for_element(Locator::XPath(xpath)).await;
    shown.unwrap_or_else(|error| panic!("there is no {xpath}: {error}"))
}

/// Waits until the button has this label. The page learns the effect of a click from its stream.
pub async fn button_says(client: &Client, text: &str) {
    shows(client, &format!("//button[normalize-space()='{text}']")).await;
}

/// Clicks the element that matches this selector.
pub async fn press(client: &Client, css: &str) {
    let element = client.find(Locator::Css(css)).await.unwrap();
    element.click().await.unwrap();
}

/// A browser with a directory of its own. Both are removed when this is dropped, also if the test panics.
pub struct Browser {
    pub client: Client,
    /// Killed when this is dropped.
    _driver: Child,
    pub directory: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        let capabilities = self.client.capabilities();
        let id = capabilities.and_then(|of| of.get("goog:processID")?.as_i64());
        if let Some(id) = id.and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
            _ = kill_process(id, Signal::KILL);
        }
        // The other processes of the browser end a moment later, and write files until then.
        for _ in 0..50 {
            if std::fs::remove_dir_all(self.directory.path()).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Browser {
    /// Starts a browser with these arguments and preferences. `None` if there is none.
    pub async fn start(arguments: &[&str], preferences: Value) -> Option<Self> {
        let chromium = program(&["chromium", "chromium-browser", "google-chrome"]);
        let (Some(chromium), Some(chromedriver)) = (chromium, program(&["chromedriver"])) else {
            return None;
        };
        let (driver, url) = driver(chromedriver).await;
        let directory = tempfile::tempdir().unwrap();
        let profile = directory.path().join("profile");
        let profile = format!("--user-data-dir={}", profile.display());
        let all = [
            "--headless=new",
            // The browser then ends with its driver, also if this process is killed.
            "--remote-debugging-pipe",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            &profile,
        ];
        let arguments = [&all, arguments].concat();
        let options = json!({
            "goog:chromeOptions": {
                "binary": chromium,
                "args": arguments,
                "prefs": preferences,
            },
        });
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(options.as_object().unwrap().clone())
            .connect(&url)
            .await
            .unwrap();
        Some(Self {
            client,
            _driver: driver,
            directory,
        })
    }

    /// Starts a host with these arguments, and opens its page.
    pub async fn show(&self, arguments: &[&str]) -> Host {
        let host = Host::start(self.directory.path(), arguments).await;
        self.client.goto(&host.url).await.unwrap();
        host
    }
}

/// A browser, and a host with these arguments whose page it shows. `None` if there is no browser.
pub async fn open(arguments: &[&str]) -> Option<(Browser, Host)> {
    let browser = Browser::start(&[], json!({})).await?;
    let host = browser.show(arguments).await;
    Some((browser, host))
}

#[tokio::test]
async fn clicking_set_offers_clear_and_clicking_clear_offers_set() {
    let Some((browser, host)) = open(&[]).await else {
        return;
    };
    let client = &browser.client;
    assert_eq!(button(client).await, "Set");
    press(client, "button").await;
    button_says(client, "Clear").await;
    let state = client.find(Locator::Css("strong")).await.unwrap();
    assert_eq!(state.text().await.unwrap(), "set");

    // The server's state has changed, and not only the page.
    let (_, page) = host.get("/").await;
    assert!(page.contains(">Clear<"), "{page}");
    client.refresh().await.unwrap();
    assert_eq!(button(client).await, "Clear");

    press(client, "button").await;
    button_says(client, "Set").await;
    let (_, page) = host.get("/").await;
    assert!(page.contains(">Set<"), "{page}");

    // The page of a named event changes that event.
    let door = format!("{}/events/door", host.url);
    client.goto(&door).await.unwrap();
    assert_eq!(button(client).await, "Set");
    press(client, "button").await;
    button_says(client, "Clear").await;
    let (_, shown) = host.get("/events/door").await;
    assert!(shown.contains("\"set\":true"), "{shown}");
    let (_, page) = host.get("/").await;
    assert!(page.contains(">Set<"), "{page}");
}

/// Waits until the element with this id has a text, and returns the text that the browser shows.
async fn says(client: &Client, id: &str) -> String {
    let element = format!("//*[@id='{id}'][normalize-space()]");
    shows(client, &element).await.text().await.unwrap()
}

#[tokio::test]
async fn a_page_asks_for_the_token_that_it_needs_and_keeps_it_for_its_tab() {
    let (write, read) = ("write_token=w1ite", "read_token=re4d");
    let arguments = ["--store", "memory", "--variable", write, "--variable", read];
    let Some((browser, host)) = open(&arguments).await else {
        return;
    };
    let client = &browser.client;
    let unlock = async |token: &str| {
        let field = client.find(Locator::Id("token")).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(token).await.unwrap();
        press(client, "#unlock [type=submit]").await;
    };

    // Without the read token, the page has only the form for it.
    assert!(!has(client, "button").await);
    unlock("wrong").await;
    assert!(says(client, "problem").await.contains("not the token"));
    unlock("re4d").await;
    button_says(client, "Set").await;

    // The read token allows no change: the page asks for the write token, and then makes the change.
    press(client, "button").await;
    shows(client, "//form[@id='unlock'][not(@hidden)]").await;
    unlock("w1ite").await;
    button_says(client, "Clear").await;

    // The tab keeps the token after a reload. Another tab does not have it.
    client.refresh().await.unwrap();
    button_says(client, "Clear").await;
    press(client, "button").await;
    button_says(client, "Set").await;
    let tab = client.new_window(true).await.unwrap();
    client.switch_to_window(tab.handle).await.unwrap();
    client.goto(&host.url).await.unwrap();
    assert!(!has(client, "button").await);
}

#[tokio::test]
async fn a_page_of_another_site_can_neither_change_an_event_nor_frame_the_page() {
    let Some((browser, host)) = open(&["--store", "memory"]).await else {
        return;
    };
    let client = &browser.client;
    // Another host name, and so another site, whose page has no policy that forbids it to call this one.
    let url = host.url.replace("127.0.0.1", "localhost");
    let evil = format!(
        "<iframe src='{url}/'></iframe><form method=post enctype=text/plain action='{url}/change_event'>\
         <input type=hidden name=state value=True><input type=submit></form>"
    );
    let page = move |_| std::future::ready(whole(200, "text/html", &evil));
    let other = Server::start(page).await;
    client.goto(&other.url).await.unwrap();
    // The frame stays empty.
    client.enter_frame(0).await.unwrap();
    assert!(!has(client, "button").await);
    client.enter_parent_frame().await.unwrap();
    let fetches = "const done = arguments[1], url = arguments[0];
        Promise.allSettled([
          fetch(url + '/change_event', { method: 'POST', body: 'True', mode: 'no-cors' }),
          fetch(url + '/change_event', { method: 'POST', body: 'True' }),
          fetch(url + '/events/event', { method: 'PUT', body: '{\"set\": true}' }),
          fetch(url + '/events/event'),
        ]).then(all => done(all.map(one => one.status)))";
    let done = client
        .execute_async(fetches, vec![url.as_str().into()])
        .await
        .unwrap();
    // The first request is sent, but its response is opaque to the page.
    let expected = json!(["fulfilled", "rejected", "rejected", "rejected"]);
    assert_eq!(done, expected);
    press(client, "input[type=submit]").await;
    client
        .wait()
        .at_most(Duration::from_secs(20))
        .for_url(&format!("{url}/change_event").parse().unwrap())
        .await
        .unwrap();
    let shown = client.source().await.unwrap();
    assert!(shown.contains("\"status\":403"), "{shown}");
    let (_, event) = host.get("/events/event").await;
    assert!(event.contains("\"generation\":0"), "{event}");
}

#[tokio::test]
async fn no_input_runs_as_a_script_in_a_browser() {
    let Some((browser, host)) = open(&["--store", "memory"]).await else {
        return;
    };
    let client = &browser.client;
    let attacks = [
        "%3Cscript%3Edocument.title='pwned'%3C/script%3E",
        "%22%3E%3Cimg%20src=x%20onerror=document.title='pwned'%3E",
        "'-alert(1)-'",
        "%3Csvg%20onload=document.title='pwned'%3E",
        "javascript:document.title='pwned'",
    ];
    for attack in attacks {
        for path in [
            format!("/events/{attack}"),
            format!("/{attack}"),
            format!("/events/door?{attack}={attack}"),
            format!("/events?after={attack}"),
            format!("/events?limit={attack}"),
            format!("/events/door/wait?timeout={attack}"),
        ] {
            client.goto(&format!("{}{path}", host.url)).await.unwrap();
            let source = client.source().await.unwrap();
            assert!(source.contains("\"status\":4"), "{path}: {source}");
            let kind = client.execute("return document.contentType", vec![]).await;
            assert_eq!(kind.unwrap(), "application/problem+json", "{path}");
            let title = client.title().await.unwrap();
            assert!(!title.contains("pwned"), "{path}");
        }
        // The page shows the detail of a problem as text.
        client.goto(&host.url).await.unwrap();
        let ask = "ask('/events?' + arguments[0])";
        client.execute(ask, vec![attack.into()]).await.unwrap();
        says(client, "problem").await;
        assert!(!has(client, "img, svg").await);
        let problem = "document.getElementById('problem').innerHTML = arguments[0]";
        let hostile = "<img src=x onerror=\"document.title='pwned'\">";
        client.execute(problem, vec![hostile.into()]).await.unwrap();
        // Even if the page had such a bug, its policy allows no event handler in an attribute, and no inline script.
        let inline = "const script = document.createElement('script');
            script.textContent = \"document.title = 'pwned'\"; document.body.append(script);
            return document.title";
        let title = client.execute(inline, vec![]).await.unwrap();
        assert!(!title.as_str().unwrap().contains("pwned"));
    }
}

/// Presses a button of the gotcha's page, and returns the verdict and the rows of the table.
async fn story(client: &Client, button: &str) -> (String, Vec<String>) {
    press(client, button).await;
    let verdict = says(client, "verdict").await;
    let mut rows = Vec::new();
    for row in client.find_all(Locator::Css("tbody tr")).await.unwrap() {
        rows.push(row.text().await.unwrap());
    }
    (verdict, rows)
}

#[tokio::test]
async fn the_page_of_the_gotcha_shows_how_an_event_is_lost_and_how_the_instance_traps() {
    let Some((browser, host)) = open(&["--store", "memory", "--gotcha"]).await else {
        return;
    };
    let client = &browser.client;
    client.goto(&format!("{}/gotcha", host.url)).await.unwrap();

    let (verdict, rows) = story(client, "#lose").await;
    assert!(verdict.contains("200, and is lost"), "{verdict} {rows:?}");
    let expected = ["POST clear 200", "POST set 200", "GET event 200"];
    let begins = |(row, expected): (&String, &&str)| row.starts_with(*expected);
    assert!(rows.iter().zip(&expected).all(begins), "{rows:?}");

    let (verdict, rows) = story(client, "#trap").await;
    assert!(verdict.contains("woke a future"), "{verdict} {rows:?}");
    let expected = [
        "POST clear 200",
        "GET bystander 500",
        "GET wait 500",
        "POST set 500",
        "GET event 200",
    ];
    assert_eq!(rows.len(), expected.len(), "{rows:?}");
    assert!(rows.iter().zip(&expected).all(begins), "{rows:?}");

    // The link leads to the event that works.
    press(client, "a[href='../']").await;
    button_says(client, "Set").await;
}
