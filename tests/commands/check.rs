//! What each program may be told: whether commands, flags, variables, targets and files are there.

use super::text::{Simple, root};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Ours, which say themselves what they take.
const OURS: &[&str] = &["netra", "netra-init", "netra-loadtest", "netra-control", "netra-orders"];
/// Of others, with the words that may follow; nothing said: any.
const OTHERS: &[(&str, &[&str])] = &[
    ("kubectl", &["apply", "debug", "exec", "port-forward"]),
    ("systemctl", &["enable", "stop"]),
    ("apt", &["install"]),
    ("go", &["tool"]),
    ("curl", &[]),
    ("sed", &[]),
    ("export", &[]),
    ("editor", &[]),
];
/// Options of `docker run` that have a value.
const DOCKER_VALUES: &[&str] = &[
    "--name",
    "--network",
    "-p",
    "--restart",
    "--cap-drop",
    "--cap-add",
    "--stop-timeout",
    "-e",
    "--security-opt",
    "--user",
];
const DOCKER_SWITCHES: &[&str] = &["-d", "--rm", "--read-only"];

pub(crate) struct Checker {
    /// Variables that our programs read.
    settings: BTreeSet<String>,
    makefile: String,
    /// What reads other variables: scripts, compose file, tests.
    scripts: String,
    helps: RefCell<BTreeMap<Vec<String>, String>>,
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The program that was built beside the one under test.
pub(crate) fn program(name: &str) -> PathBuf {
    // A netra with one protocol more.
    let name = if name == "netra-orders" { "netra" } else { name };
    let path = Path::new(env!("CARGO_BIN_EXE_netra")).with_file_name(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace first", path.display());
    path
}

/// Last part of a path: `target/release/netra` is netra.
pub(crate) fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap()
}

/// Whether a span of a sentence begins as a command would.
pub(crate) fn is_program(word: &str) -> bool {
    let is_ours = OURS.contains(&base(word)) && !word.starts_with("docker/");
    is_ours
        || OTHERS.iter().any(|(name, _)| *name == word)
        || ["make", "docker", "docker-compose", "cargo", "helm", "docker/images.sh"].contains(&word)
}

impl Checker {
    pub(crate) fn new() -> Self {
        let settings = ["docs/SETTINGS.md", "docs/SETTINGS-INIT.md", "docs/SETTINGS-COLLECT.md"];
        let settings = settings.map(read).concat();
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let names = settings.split(|c| !is_word(c)).filter(|name| name.contains('_'));
        let scripts = ["docker/images.sh", "docker/compose.yaml", "hosts/release.sh"];
        let tests = ["tests/README.md", "tests/support/netra.rs", "tests/support/matrix.rs"];
        Self {
            settings: names.map(str::to_owned).collect(),
            makefile: read("Makefile"),
            scripts: [scripts.map(read), tests.map(read)].concat().concat(),
            helps: RefCell::default(),
        }
    }

    /// What is wrong with a command.
    pub(crate) fn check(&self, simple: &Simple) -> Result<(), String> {
        for word in &simple.words {
            files(word)?;
        }
        let Some(first) = simple.words.first() else {
            return self.variables(&simple.variables, true);
        };
        // netra-loadtest reads what the tests do.
        let is_ours = OURS.contains(&base(first)) && base(first) != "netra-loadtest";
        self.variables(&simple.variables, is_ours)?;
        let rest = &simple.words[1..];
        match base(first) {
            "make" => self.make(rest),
            "docker" => self.docker(rest),
            "docker-compose" => self.compose(rest),
            "cargo" => cargo(rest),
            "images.sh" => images(rest),
            "export" => {
                let pairs = rest.iter().filter_map(|word| word.split_once('='));
                self.variables(&pairs.map(|(n, v)| (n.into(), v.into())).collect::<Vec<_>>(), true)
            }
            "systemctl" => {
                others("systemctl", rest)?;
                let unit = rest.iter().rfind(|word| !word.starts_with('-')).unwrap();
                exists(&format!("hosts/{unit}.service"))
            }
            "editor" => {
                let file = rest[0].trim_start_matches('/');
                let is_packaged =
                    read("Cargo.toml").contains(&format!("\"{}", file.rsplit_once('/').unwrap().0));
                is_packaged.then_some(()).ok_or_else(|| format!("the package has no {file}"))
            }
            "kubectl" => {
                others("kubectl", rest)?;
                self.inner(rest.iter().position(|word| word == "--").map(|at| &rest[at + 1..]))
            }
            name if OURS.contains(&name) => self.own(name, rest),
            name => others(name, rest),
        }
    }

    /// A program that another one starts.
    fn inner(&self, words: Option<&[String]>) -> Result<(), String> {
        let Some((first, rest)) = words.and_then(|words| words.split_first()) else {
            return Ok(());
        };
        if OURS.contains(&base(first)) { self.own(base(first), rest) } else { Ok(()) }
    }

    fn variables(&self, pairs: &[(String, String)], are_ours: bool) -> Result<(), String> {
        for (name, _) in pairs.iter().filter(|(name, _)| name != "PATH") {
            let is_known = self.settings.contains(name)
                || !are_ours && (self.makefile.contains(name) || self.scripts.contains(name));
            if !is_known {
                return Err(format!("nothing reads {name}"));
            }
        }
        Ok(())
    }

    fn help(&self, path: &[String]) -> String {
        let known = self.helps.borrow().get(path).cloned();
        known.unwrap_or_else(|| {
            let mut command = Command::new(program(&path[0]));
            let output = command.args(&path[1..]).arg("--help").env_clear().output().unwrap();
            assert!(output.status.success(), "{path:?} --help");
            let help = String::from_utf8(output.stdout).unwrap();
            self.helps.borrow_mut().insert(path.to_vec(), help.clone());
            help
        })
    }

    /// Its commands are those of its help, and so are the flags.
    fn own(&self, name: &str, words: &[String]) -> Result<(), String> {
        let mut path = vec![name.to_owned()];
        let mut rest = words;
        let mut help = self.help(&path);
        while let Some((first, others)) = rest.split_first() {
            let commands = commands(&help);
            if first.starts_with('-') || commands.is_empty() {
                break;
            }
            if !commands.contains(first) {
                return Err(format!("{} has no command {first}", path.join(" ")));
            }
            rest = others;
            if help.contains("[COMMAND]\n") {
                break;
            }
            path.push(first.clone());
            help = self.help(&path);
        }
        let is_flag = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let flags: BTreeSet<&str> =
            help.split(|c| !is_flag(c)).filter(|w| w.starts_with('-')).collect();
        // What an option of another program's is, `--init-arg=--mode=none`, is in its value.
        let given = rest.iter().map(|word| word.trim_start_matches('[').trim_end_matches(']'));
        for word in given.filter(|word| word.len() > 1 && word.starts_with('-')) {
            let flag = word.split('=').next().unwrap();
            if !flags.contains(flag) {
                return Err(format!("{} has no {flag}", path.join(" ")));
            }
        }
        let set = rest.windows(2).filter(|pair| pair[0] == "--env").map(|pair| &pair[1]);
        let set = set.filter_map(|pair| pair.split_once('='));
        self.variables(&set.map(|(n, v)| (n.into(), v.into())).collect::<Vec<_>>(), true)
    }

    fn make(&self, words: &[String]) -> Result<(), String> {
        for word in words {
            let is_there = match word.split_once('=') {
                Some((name, _)) => {
                    ["$(", "${", "or $(", "^"]
                        .iter()
                        .any(|begin| self.makefile.contains(&format!("{begin}{name}")))
                        || self.makefile.contains(&format!("\n{name} ?="))
                }
                None => self.makefile.contains(&format!("\n{word}:")),
            };
            if !is_there {
                return Err(format!("the Makefile has no {word}"));
            }
        }
        Ok(())
    }

    fn docker(&self, words: &[String]) -> Result<(), String> {
        let (first, mut rest) = words.split_first().ok_or("docker does nothing alone")?;
        match first.as_str() {
            "stop" => return Ok(()),
            "exec" => return self.inner(Some(&rest[1..])),
            "run" => {}
            other => return Err(format!("docker {other} is not known here")),
        }
        while let Some((option, others)) = rest.split_first().filter(|(w, _)| w.starts_with('-')) {
            rest = others;
            if DOCKER_SWITCHES.contains(&option.as_str()) {
                continue;
            }
            let name = option.split('=').next().unwrap();
            if !DOCKER_VALUES.contains(&name) {
                return Err(format!("docker run {option} is not known here"));
            }
            let value = match option.split_once('=') {
                Some((_, value)) => value,
                None => {
                    let (value, others) = rest.split_first().ok_or("no value")?;
                    rest = others;
                    value
                }
            };
            files(value.trim_start_matches("seccomp="))?;
            if let Some((name, value)) = value.split_once('=').filter(|_| option == "-e") {
                self.variables(&[(name.into(), value.into())], true)?;
            }
        }
        let (image, rest) = rest.split_first().ok_or("docker run has no image")?;
        let name = image.split(':').next().unwrap();
        if name.starts_with("example/") {
            return Ok(());
        }
        exists(&format!("docker/{name}.Dockerfile"))?;
        self.own(name.trim_end_matches("-iptables"), rest)
    }

    fn compose(&self, words: &[String]) -> Result<(), String> {
        let mut compose = read("docker/compose.yaml");
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "-f" => {
                    let file = words.next().ok_or("no file")?;
                    exists(file)?;
                    compose = read(file);
                }
                "--profile" => {
                    let name = words.next().ok_or("no profile")?;
                    let is_there = compose.contains(&format!("profiles: [{name}]"));
                    is_there.then_some(()).ok_or_else(|| format!("no profile {name}"))?;
                }
                "up" | "down" | "-d" | "--force-recreate" => {}
                "run" | "exec" | "stop" => {
                    let service = words.find(|word| !word.starts_with('-')).ok_or("no service")?;
                    let is_there = compose.contains(&format!("\n  {service}:"));
                    is_there.then_some(()).ok_or_else(|| format!("no service {service}"))?;
                    let rest = words.cloned().collect::<Vec<_>>();
                    return match word.as_str() {
                        "run" => self.own("netra", &rest),
                        _ => self.inner(Some(&rest)),
                    };
                }
                other => return Err(format!("docker-compose {other} is not known here")),
            }
        }
        Ok(())
    }
}

/// The commands that a help lists: by name, or as values of a word (netra-init, whose flags are all in one help).
fn commands(help: &str) -> BTreeSet<String> {
    let below = |title: &str| help.split_once(title).map_or("", |(_, below)| below).lines();
    let listed = below("Commands:\n").take_while(|line| !line.trim().is_empty());
    // What stands further in goes on with a line above.
    let listed = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = listed.filter_map(|line| line.split_whitespace().next());
    let values = below("[COMMAND]\n").skip_while(|line| !line.contains("Possible values"));
    let values = values.skip(1).map_while(|line| line.trim().strip_prefix("- "));
    names.chain(values.filter_map(|line| line.split(':').next())).map(str::to_owned).collect()
}

fn others(name: &str, words: &[String]) -> Result<(), String> {
    let (_, allowed) = OTHERS
        .iter()
        .find(|(other, _)| *other == name)
        .ok_or_else(|| format!("{name} is no program that these tests know"))?;
    match words.first() {
        Some(word) if !allowed.is_empty() && !allowed.contains(&word.as_str()) => {
            Err(format!("{name} {word} is not known here"))
        }
        _ => Ok(()),
    }
}

fn images(names: &[String]) -> Result<(), String> {
    names.iter().try_for_each(|name| exists(&format!("docker/{name}.Dockerfile")))
}

fn cargo(words: &[String]) -> Result<(), String> {
    let crates =
        ["", "shards", "rules", "codecs", "perf", "init", "loadtest", "collect", "control"];
    for pair in words.windows(2) {
        match pair[0].as_str() {
            "-p" => {
                let name = format!("name = \"{}\"", pair[1]);
                let is_there = crates.iter().any(|folder| {
                    read(Path::new(folder).join("Cargo.toml").to_str().unwrap()).contains(&name)
                });
                is_there.then_some(()).ok_or_else(|| format!("no package {}", pair[1]))?;
            }
            "--test" => {
                let is_there = crates.iter().any(|folder| {
                    root().join(folder).join("tests").join(format!("{}.rs", pair[1])).exists()
                });
                is_there.then_some(()).ok_or_else(|| format!("no test {}", pair[1]))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A word that begins with one of our folders is a file that is here.
fn files(word: &str) -> Result<(), String> {
    let folders =
        ["docker", "docs", "hosts", "loadtest", "examples", "tests", "src", "shards", "codecs"];
    let word = word.rsplit('=').next().unwrap();
    match word.split_once('/') {
        Some((folder, _)) if folders.contains(&folder) => exists(word),
        _ => Ok(()),
    }
}

fn exists(path: &str) -> Result<(), String> {
    let is_there = root().join(path).exists();
    is_there.then_some(()).ok_or_else(|| format!("there is no {path}"))
}

#[test]
fn what_is_not_there_is_found_out() {
    let checker = Checker::new();
    let check = |line: &str| super::text::split(line).iter().try_for_each(|it| checker.check(it));
    for (line, why) in [
        ("netra ruels check DIR", "netra has no command ruels"),
        ("netra rules chek DIR", "netra rules has no command chek"),
        ("netra --service-name a --http-prots 80", "netra has no --http-prots"),
        ("NETRA_HTTP_PROTS=80 netra --service-name a", "nothing reads NETRA_HTTP_PROTS"),
        ("netra inject --env NETRA_PROT=1 -f a", "nothing reads NETRA_PROT"),
        ("sudo netra-init aply", "netra-init has no command aply"),
        ("netra-loadtest http --rat 5", "netra-loadtest http has no --rat"),
        ("make nothing", "the Makefile has no nothing"),
        ("make sim SEDE=7", "the Makefile has no SEDE=7"),
        ("docker/images.sh netra-none", "there is no docker/netra-none.Dockerfile"),
        ("docker run --rm netra:1 --no-such", "netra has no --no-such"),
        ("docker run -e NETRA_PROT=1 netra:1", "nothing reads NETRA_PROT"),
        ("docker exec shop-netra /netra tap", "netra has no command tap"),
        ("docker-compose -f docker/none.yaml up", "there is no docker/none.yaml"),
        ("docker-compose run --rm nobody", "no service nobody"),
        ("kubectl exec a -c netra -- /netra tap", "netra has no command tap"),
        ("kubectl destroy", "kubectl destroy is not known here"),
        ("cargo test -p nobody", "no package nobody"),
        ("cargo nextest run --test none", "no test none"),
        ("netra codec check examples/none.yaml", "there is no examples/none.yaml"),
        ("systemctl stop none", "there is no hosts/none.service"),
        ("frobnicate", "frobnicate is no program that these tests know"),
    ] {
        assert_eq!(check(line), Err(why.to_owned()), "{line}");
    }
    assert_eq!(check("NETRA_HTTP_PORTS=80 netra --service-name a --io epoll"), Ok(()));
}
