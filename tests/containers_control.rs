//! netra-control in a container: its image gives a sidecar its rules, and the canary of
//! `docker/compose-canary.yaml` goes the way that docs/CONTROL.md tells, command by command.
#![allow(clippy::disallowed_methods, reason = "tests may sleep")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::docker::{Network, Pod, Sidecar, docker, is_there, tag};
use support::world::checked;
use support::{PATIENCE, scrape, wait_until};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A folder that containers look into, whoever they run as; gone afterwards.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("netra-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let place = Self(path);
        place.folder("");
        place
    }

    fn folder(&self, name: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const TOKEN: &str = "token-of-this-test-0123";

/// What is asked of this path is refused.
fn refused(host: &str, path: &str) -> String {
    format!(
        "apiVersion: netra.io/v1alpha1\nkind: Router\nmetadata: {{name: shop, namespace: shop}}\n\
         spec:\n  hosts: [{host}]\n  protocol: http1\n  routes:\n  \
         - match: {{attributes: {{path: {{exact: {path}}}}}}}\n    \
           route: [{{destination: {{host: {host}}}}}]\n    fault: {{abort: {{httpStatus: 503}}}}\n  \
         - route: [{{destination: {{host: {host}}}}}]\n"
    )
}

#[test]
fn the_image_gives_a_sidecar_its_rules() {
    if !is_there() {
        return;
    }
    let place = Place::new("control-image");
    let network = Network::new("control");
    let shop = network.service("shop", &["shop"]);
    place.folder("rules");
    place.write("rules/shop.yaml", &refused(&shop, "/down"));
    place.write("tokens", &format!("shop {TOKEN}\n"));
    place.write("token", TOKEN);
    // No root, nothing to write to, no capability: as the chart runs it.
    let volume = format!("{}:/etc/netra-control:ro", place.path());
    let args = ["--directory=/etc/netra-control/rules", "--tokens=/etc/netra-control/tokens"];
    let (control, address) = network.control(&["--volume", &volume], &args);
    let at = std::net::SocketAddr::from((address, 14960));
    let ready = || matches!(scrape::get_from(at, "/ready"), Ok((200, _)));
    assert!(wait_until(PATIENCE, ready), "{}", docker(&["logs", &control]));
    let user = docker(&["inspect", "--format", "{{.Config.User}}", &control]);
    assert_eq!(user, "65534:65534");
    let (_, page) = scrape::get_from(at, "/").unwrap();
    assert!(page.contains("for a token of `*`"), "not for everybody on this network: {page}");

    let pod = Pod::new(&network, "pod");
    pod.init(&["apply"]);
    let (url, token) =
        (format!("NETRA_RULES_URL=http://{control}:14960"), format!("{}/token", place.path()));
    let token = format!("{token}:/run/secrets/rules:ro");
    let run = ["--volume", &token, "--env", &url, "--env", "NETRA_RULES_NAMESPACE=shop"];
    let file = ["--env", "NETRA_RULES_TOKEN_FILE=/run/secrets/rules"];
    let run = [&run[..], &file, &["--env", "NETRA_HTTP_PORTS=80"]].concat();
    pod.start_netra(Sidecar { run: &run, ..Sidecar::default() });
    let ask = |path: &str| {
        let said = pod.ask(&[&format!("{shop}{path}")]);
        said.split(": ").nth(1).unwrap_or(&said)[..3].to_owned()
    };
    assert!(wait_until(PATIENCE, || ask("/down") == "503"), "{}", pod.log());
    assert_eq!(ask("/up"), "200");
    let metrics = || scrape::get_from(at, "/metrics").unwrap().1;
    let counted = || metrics().contains("netra_control_sidecars{state=\"good\"} 1");
    assert!(wait_until(PATIENCE, counted), "{}", metrics());
    // A change comes to it, and control's end is none of its business.
    place.write("rules/shop.yaml", &refused(&shop, "/up"));
    assert!(wait_until(PATIENCE, || ask("/up") == "503"), "{}", pod.log());
    docker(&["stop", "--time", "20", &control]);
    assert_eq!(docker(&["inspect", "--format", "{{.State.ExitCode}}", &control]), "0");
    assert_eq!((ask("/up"), ask("/down")), ("503".to_owned(), "200".to_owned()));
}

/// The lines of docs/CONTROL.md about the canary, with names, ports and files of one's own.
struct Canary {
    name: String,
    place: Place,
    page: u16,
}

impl Canary {
    fn new() -> Self {
        let place = Place::new("canary");
        place.folder("rules");
        for file in ["rules/stock.yaml", "rules/split.yaml", "tokens", "token"] {
            let text = fs::read_to_string(Path::new(ROOT).join("docker/canary").join(file));
            place.write(file, &text.unwrap());
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let page = free.local_addr().unwrap().port();
        Self { name: format!("netra-canary-{}", std::process::id()), place, page }
    }

    fn command(&self, line: &str) -> Command {
        let file = "-f docker/compose-canary.yaml";
        let line = line
            .replace("make images && ", "")
            .replace(file, &format!("{file} --project-name {}", self.name))
            .replace("docker/canary/", &format!("{}/", self.place.path()))
            .replace("localhost:16686", &format!("localhost:{}", self.page));
        let mut command = Command::new("sh");
        command.args(["-c", &line]).current_dir(ROOT);
        command.env("NETRA_TAG", tag()).env("NETRA_CANARY", self.place.path());
        command.env("NETRA_PAGE_PORT", self.page.to_string());
        command
    }

    #[track_caller]
    fn run(&self, line: &str) -> String {
        checked(self.command(line).output().unwrap(), line)
    }

    /// Calls of the last seconds to each version, and whether all of all were good.
    fn seen(&self, map: &str) -> (u64, u64, bool) {
        let said = self.command(map).output().unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        let to = |version: &str| {
            let begin = format!("shop -> {version} http ");
            let words = said.lines().map(|it| it.split_whitespace().collect::<Vec<_>>().join(" "));
            let calls: Vec<u64> = words
                .filter_map(|it| it.strip_prefix(&begin)?.split(' ').next()?.parse().ok())
                .collect();
            calls.iter().sum()
        };
        let is_call = |line: &&str| line.contains(" -> ");
        let good = said.lines().filter(is_call).all(|line| line.contains(" 0.0%"));
        (to("stock-v1"), to("stock-v2"), good)
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let down = "docker-compose -f docker/compose-canary.yaml down --timeout 1";
        drop(self.command(down).output());
    }
}

#[test]
fn a_canary_goes_from_0_to_100_on_the_map() {
    if !is_there() {
        return;
    }
    let text = fs::read_to_string(Path::new(ROOT).join("docs/CONTROL.md")).unwrap();
    let part = text.split("\n## A canary").nth(1).expect("a part about the canary");
    let lines: Vec<&str> = part
        .lines()
        .skip_while(|it| !it.starts_with("    "))
        .map_while(|it| it.strip_prefix("    "))
        .collect();
    let [up, map, tenth, explain, half, all, stop, down] = lines[..] else {
        panic!("{lines:#?}");
    };
    let canary = Canary::new();
    canary.run(up);
    // The window of the map has to leave what was before behind it.
    let share = |wanted: std::ops::RangeInclusive<u64>| {
        let is_seen = wait_until(PATIENCE * 2, || {
            let (old, new, _) = canary.seen(map);
            old + new >= 50 && wanted.contains(&(100 * new / (old + new)))
        });
        let logs = "docker-compose -f docker/compose-canary.yaml logs --tail 20";
        assert!(is_seen, "{wanted:?}: {:?}\n{}", canary.seen(map), canary.run(logs));
    };
    share(0..=0);
    canary.run(tenth);
    share(8..=12);
    let said = canary.run(explain);
    assert!(said.contains("in   split.yaml "), "{said}");
    canary.run(half);
    share(46..=54);
    canary.run(all);
    share(100..=100);
    // Control's end changes nothing, and nothing of all this has failed.
    canary.run(stop);
    std::thread::sleep(std::time::Duration::from_secs(3));
    share(100..=100);
    assert!(canary.seen(map).2, "{}", canary.run(map));
    let logs = canary.run("docker-compose -f docker/compose-canary.yaml logs --no-color client");
    let answers: Vec<&str> =
        logs.lines().filter(|line| line.contains("GET http://front")).collect();
    assert!(answers.len() > 100 && answers.iter().all(|it| it.contains(": 200 ")), "{logs}");
    canary.run(down);
}
