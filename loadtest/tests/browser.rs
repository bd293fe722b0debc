//! The page as a browser shows it: headless Chromium says what is in it, whether anything went
//! wrong, and draws it. `NETRA_TEST_SCREENSHOT=file.png` keeps the picture.

mod support;

use std::path::Path;
use std::process::Command;

use support::{Dir, Upstream, run};

/// Runs Chromium on a page; what it printed, and what it complained about. Without the program the
/// test is skipped, unless `NETRA_REQUIRE_NETNS=1` says that nothing may be.
fn browse(dir: &Dir, page: &str, words: &[&str]) -> Option<(String, String)> {
    let is_there = ["/usr/bin/chromium", "/usr/bin/chromium-browser"];
    let Some(program) = is_there.into_iter().find(|path| Path::new(path).is_file()) else {
        let is_required = std::env::var("NETRA_REQUIRE_NETNS").is_ok_and(|value| value == "1");
        assert!(!is_required, "NETRA_REQUIRE_NETNS=1, and chromium is not installed");
        eprintln!("skipped: no chromium");
        return None;
    };
    let profile = format!("--user-data-dir={}", dir.file("profile"));
    let output = Command::new(program)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .args(["--disable-dev-shm-usage", "--enable-logging=stderr", &profile])
        .args(["--window-size=1280,1500"])
        .args(words)
        .arg(format!("file://{page}"))
        .output()
        .expect("chromium starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", text(&output.stderr));
    Some((text(&output.stdout), text(&output.stderr)))
}

/// The size of a PNG, from its header.
fn size(png: &[u8]) -> (u32, u32) {
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"), "a PNG");
    let at = |from: usize| u32::from_be_bytes(png[from..from + 4].try_into().expect("four bytes"));
    (at(16), at(20))
}

#[test]
fn the_page_of_a_run_is_shown_without_complaints() {
    let upstream = Upstream::start("--think 0.002");
    let dir = Dir::new("browser");
    let html = dir.file("run.html");
    let words = "--connections 8 --rate 200 --seconds 3 --warm-up 0.2";
    let ended = run(&format!("http {} {words} --html {html}", upstream.http));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let Some((dom, complaints)) = browse(&dir, &html, &["--dump-dom"]) else { return };
    for text in [
        format!("<h1>http against {}</h1>", upstream.http),
        "<span>p99.9</span>".to_owned(),
        "<h2>Latency by percentile</h2>".to_owned(),
        "<td>generator lateness</td>".to_owned(),
        "<p>Generator: ".to_owned(),
    ] {
        assert!(dom.contains(&text), "{text} in {dom}");
    }
    assert_eq!(
        dom.matches("<polyline").count(),
        6,
        "two curves of percentiles, three of time, a rate"
    );
    assert!(!complaints.contains("CONSOLE"), "{complaints}");
    // A complaint would be seen.
    let faulty = dir.write("faulty.html", "<!doctype html><script>nothing()</script>");
    let seen = browse(&dir, &faulty, &["--dump-dom"]);
    assert!(seen.is_some_and(|(_, complaints)| complaints.contains("CONSOLE")));

    let (shot, blank) = (dir.file("run.png"), dir.file("blank.png"));
    browse(&dir, &html, &[&format!("--screenshot={shot}")]);
    let empty = dir.write("empty.html", "<!doctype html><title>empty</title>");
    browse(&dir, &empty, &[&format!("--screenshot={blank}")]);
    let [shot, blank] = [shot, blank].map(|path| std::fs::read(path).expect("a screenshot"));
    assert_eq!(size(&shot), (1280, 1500));
    // A page of one colour is packed into next to nothing; text and curves are not.
    assert!(shot.len() > 5 * blank.len(), "{} and {} bytes", shot.len(), blank.len());
    if let Some(path) = std::env::var_os("NETRA_TEST_SCREENSHOT") {
        std::fs::write(path, shot).expect("a file");
    }
}
