//! What is in a page, and what a headless browser makes of it, where there is one.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

/// The JSON in a page.
pub fn data(page: &str) -> Value {
    let start = page.find("id=\"data\">").unwrap() + "id=\"data\">".len();
    let end = start + page[start..].find("</script>").unwrap();
    serde_json::from_str(&page[start..end]).unwrap()
}

/// What `driver` has pushed to `seen` after it ran in the page. Fails on anything the page or the browser complains
/// about; nothing where there is no browser.
pub fn seen(page: &str, driver: &str) -> Option<Value> {
    let Some(browser) = browser() else {
        eprintln!("skipped: the page in a browser: no chromium");
        return None;
    };
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("page.html");
    fs::write(&path, page.replace("</body>", &format!("{BEFORE}{driver}{AFTER}"))).unwrap();
    let dom = rendered(browser, &path);
    let start = dom.find("data-seen=\"").expect("the page ran to its end") + "data-seen=\"".len();
    let seen = dom[start..]
        .split('"')
        .next()
        .unwrap()
        .replace("&quot;", "\"")
        .replace("&lt;", "<")
        .replace("&gt;", ">");
    Some(serde_json::from_str(&seen.replace("&amp;", "&")).unwrap())
}

const BEFORE: &str = r#"<script>
const seen = [];
const element = (id) => document.getElementById(id);
const look = (selector) => [...document.querySelectorAll(selector)].map((e) => e.textContent);
const key = (target, key) => target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
"#;

const AFTER: &str = r#"
if (element("errors").hidden) document.body.dataset.seen = JSON.stringify(seen);
else console.error(element("errors").textContent);
</script></body>"#;

fn browser() -> Option<&'static str> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|o| o.status.success()))
}

/// The page as a browser has it after its scripts ran.
fn rendered(browser: &str, path: &Path) -> String {
    let profile = TempDir::new().unwrap();
    let output = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"])
        .arg("--virtual-time-budget=5000")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", path.display()))
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let complaints: Vec<&str> =
        log.lines().filter(|l| l.contains("CONSOLE") || l.contains("Uncaught")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    String::from_utf8(output.stdout).unwrap()
}
