//! The pages of the examples in a real browser: the chat with two windows and one line client, the robot, the logs,
//! and the monitor.
//!
//! It needs Debian's packages `chromium` and `chromium-driver`. Where they are missing it is skipped, loudly, unless
//! `MEEPO_TEST_BROWSER=1` demands it.

use std::time::{SystemTime, UNIX_EPOCH};

use fantoccini::Locator;
use meepo_tests::browser::Driver;
use meepo_tests::{Line, Node, processes};
use nix::sys::signal::Signal;
use serde_json::json;

/// The conversation that is shown, and all of them.
const LOG: &str = ".log:not([hidden])";
const ALL_LOGS: &str = ".log";

const NASTY: &str = "<img src=x onerror=\"document.title='owned'\">";

#[tokio::test]
async fn two_windows_and_a_line_client_are_in_one_conversation() {
    let Some(driver) = Driver::start().await else { return };
    let mut node = Node::build("chat").start().await;
    let page = format!("http://{}/", node.host().ws());
    let (ada, bob) = (driver.open(&page).await, driver.open(&page).await);
    let mut tel = Line::connect(node.host().line()).await;
    tel.until("You are guest-").await;

    // Names, also one that looks like HTML, and one that is taken.
    ada.come_in("Ada").await;
    bob.enter("#entry-name", "ada").await;
    bob.sees("#entry-error", "taken").await;
    bob.come_in("<b>Bob</b>").await;
    tel.send("/name Tel").await;
    tel.until("You are Tel in lobby").await;
    for window in [&ada, &bob] {
        window.sees("#people", "Tel").await;
        window.sees(LOG, "is now Tel").await;
    }
    ada.sees("#people", "<b>Bob</b>").await;
    ada.sees(LOG, "<b>Bob</b> joined").await;
    bob.sees("#people", "Ada").await;

    // A message to the room, with HTML that stays text.
    ada.say(NASTY).await;
    bob.sees(LOG, NASTY).await;
    tel.until(&format!("Ada: {NASTY}")).await;
    tel.send("good morning").await;
    ada.sees(LOG, "good morning").await;
    bob.sees(LOG, "good morning").await;
    for window in [&ada, &bob] {
        let tags = window
            .client()
            .find_all(Locator::Css(".log img, .log b, #people b"))
            .await;
        assert!(
            tags.expect("a look at the page").is_empty(),
            "HTML has become part of the page"
        );
        assert!(!window.client().title().await.expect("a title").contains("owned"));
    }

    // Private messages reach one person.
    ada.choose("#people", "<b>Bob</b>").await;
    ada.say("only for Bob").await;
    ada.sees(LOG, "only for Bob").await;
    bob.sees("#people .badge", "1").await;
    bob.choose("#people", "Ada").await;
    bob.sees(LOG, "only for Bob").await;
    tel.send("/to Ada only for Ada").await;
    ada.sees(ALL_LOGS, "only for Ada").await;
    ada.choose("#rooms", "lobby").await;
    ada.say("for all").await;
    loop {
        let line = tel.text().await;
        assert!(!line.contains("only for Bob"));
        if line.contains("for all") {
            break;
        }
    }
    bob.sees(ALL_LOGS, "for all").await;
    assert!(!bob.text(ALL_LOGS).await.contains("only for Ada"));
    bob.choose("#rooms", "lobby").await;

    // Another name.
    bob.find("#me").await.click().await.expect("the button is there");
    bob.enter("#rename-name", "TEL").await;
    bob.sees("#rename-error", "taken").await;
    bob.enter("#rename-name", "Robert").await;
    bob.sees("#me-name", "Robert").await;
    ada.sees("#people", "Robert").await;
    ada.no_longer_sees("#people", "<b>Bob</b>").await;
    tel.until("<b>Bob</b> is now Robert").await;

    // A new room: what is said there stays there.
    ada.enter("#room-name", "Games").await;
    ada.sees("#title", "games").await;
    bob.sees("#rooms", "games").await;
    bob.sees(LOG, "Ada went to games").await;
    tel.send("/join games").await;
    tel.until("You are Tel in games").await;
    ada.sees(LOG, "Tel joined").await;
    ada.say("who plays?").await;
    tel.until("Ada: who plays?").await;
    tel.send("/rooms").await;
    tel.until("games (2), lobby (1)").await;
    bob.say("quiet here").await;
    bob.sees(LOG, "quiet here").await;
    assert!(!bob.text(ALL_LOGS).await.contains("who plays?"));
    assert!(!ada.text(ALL_LOGS).await.contains("quiet here"));

    // Somebody leaves.
    drop(tel);
    ada.sees(LOG, "Tel left").await;
    bob.no_longer_sees("#people", "Tel").await;
    // He has written to Ada, so she still has the conversation.
    ada.sees("#people .away", "Tel").await;

    // The gateways die and are replaced: the windows come back, each with its name, in its room.
    for pid in node.pids("gateway").await {
        processes::signal(pid, Signal::SIGKILL);
    }
    for window in [&ada, &bob] {
        window.no_longer_sees("#state", "Connected").await;
    }
    for (window, name, title) in [(&ada, "Ada", "games"), (&bob, "Robert", "lobby")] {
        window.sees("#state", "Connected").await;
        window.sees("#me-name", name).await;
        window.sees("#title", title).await;
    }
    ada.sees("#people", "Robert").await;
    bob.choose("#rooms", "games").await;
    ada.sees(LOG, "Robert joined").await;
    bob.sees("#title", "games").await;
    bob.say("here I am").await;
    ada.sees(LOG, "here I am").await;

    // A reload of the page goes on where it was.
    ada.client().refresh().await.expect("the page is served");
    ada.sees("#me-name", "Ada").await;
    ada.sees("#title", "games").await;
    bob.say("welcome back").await;
    ada.sees(LOG, "welcome back").await;

    for window in [ada, bob] {
        window.close().await;
    }
    node.stop().await;
}

#[tokio::test]
async fn a_robot_answers_in_its_page() {
    let Some(driver) = Driver::start().await else { return };
    let mut node = Node::build("chat_robot").start().await;
    let ada = driver.open(&format!("http://{}/", node.host().ws())).await;
    ada.sees("#state", "Connected").await;
    ada.sees("#log .robot", "I am a robot").await;
    ada.say("I am tired of my work").await;
    ada.sees("#log .you", "I am tired of my work").await;
    ada.sees("#log .robot", "Since when are you tired of your work?").await;
    ada.say(NASTY).await;
    ada.sees("#log .you", NASTY).await;
    let tags = ada.client().find_all(Locator::Css("#log img")).await;
    assert!(
        tags.expect("a look at the page").is_empty(),
        "HTML has become part of the page"
    );

    // The gateways die and are replaced: the window comes back.
    ada.watch("#state").await;
    for pid in node.pids("gateway").await {
        processes::signal(pid, Signal::SIGKILL);
    }
    ada.has_seen("Connection lost").await;
    ada.sees("#state", "Connected").await;
    ada.say("because it rains").await;
    ada.sees("#log .robot", "Is that the only reason?").await;
    ada.close().await;
    node.stop().await;
}

#[tokio::test]
async fn log_lines_show_up_in_their_page() {
    let Some(driver) = Driver::start().await else { return };
    let mut node = Node::build("logs").start().await;
    let page = driver.open(&format!("http://{}/", node.host().ws())).await;
    page.sees("#state", "filter: *").await;
    let mut agent = Line::connect(node.host().line()).await;
    agent.until("* Send a text").await;
    let lines = |lines: &[&str]| {
        format!(
            "/lines {}",
            json!({"machine": "web-1", "file": "/a.log", "lines": lines})
        )
    };
    agent.send(&lines(&["fine", NASTY])).await;
    page.sees("#log li", "web-1 /a.log fine").await;
    page.sees("#log li", NASTY).await;
    let tags = page.client().find_all(Locator::Css("#log img")).await;
    assert!(
        tags.expect("a look at the page").is_empty(),
        "HTML has become part of the page"
    );

    page.enter("#filter", "error").await;
    page.sees("#state", "filter: error").await;
    page.no_longer_sees("#log", "fine").await;
    agent.send(&lines(&["fine", "an error"])).await;
    page.sees("#log li", "an error").await;
    assert!(!page.text("#log").await.contains("fine"));

    // The gateways die and are replaced: the window comes back, with its filter.
    page.watch("#state").await;
    for pid in node.pids("gateway").await {
        processes::signal(pid, Signal::SIGKILL);
    }
    page.has_seen("Connection lost").await;
    page.sees("#state", "filter: error").await;
    page.close().await;
    node.stop().await;
}

#[tokio::test]
async fn hosts_stand_side_by_side_in_their_page() {
    let Some(driver) = Driver::start().await else { return };
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let database = folder.path().join("db").display().to_string();
    let mut node = Node::build("monitor").env("MONITOR_DATABASE", &database).start().await;
    let url = format!("http://{}/", node.host().ws());
    let page = driver.open(&url).await;
    page.sees("#state", "Connected").await;
    page.sees("#empty", "No host has sent anything yet").await;

    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    let sample = json!([since.as_millis() as u64, 12.5, 3u64 << 30, 8u64 << 30]);
    let mut agents = Vec::new();
    for host in ["web-1", "<b>web-2</b>"] {
        let mut agent = Line::connect(node.host().line()).await;
        agent
            .send(&format!("/samples {}", json!({"host": host, "samples": [sample]})))
            .await;
        assert_eq!(agent.text().await, "ok");
        page.sees(".host .name", host).await;
        agents.push(agent);
    }
    page.sees("[data-host=web-1] .cpu .value", "12.5 %").await;
    page.sees("[data-host=web-1] .memory .value", "3.0 of 8.0 GiB").await;
    let tags = page.client().find_all(Locator::Css(".host b")).await;
    assert!(
        tags.expect("a look at the page").is_empty(),
        "HTML has become part of the page"
    );
    drop(agents.remove(0));
    page.sees("[data-host=web-1] .word", "silent").await;

    // One that comes later sees what was.
    let other = driver.open(&url).await;
    other.sees("[data-host=web-1] .cpu .value", "12.5 %").await;
    // Some of the chart is drawn.
    let drawn = "const canvas = document.querySelector('[data-host=web-1] .cpu canvas');
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return pixels.some(part => part > 0);";
    let drawn = other.client().execute(drawn, vec![]).await;
    assert_eq!(drawn.expect("a script runs"), json!(true));

    // The gateways die and are replaced: the page comes back.
    page.watch("#state").await;
    for pid in node.pids("gateway").await {
        processes::signal(pid, Signal::SIGKILL);
    }
    page.has_seen("Connection lost").await;
    page.sees("#state", "Connected").await;
    for window in [page, other] {
        window.close().await;
    }
    node.stop().await;
}
