//! The real netra-control with real sources: what sidecars get, when, and what happens when a source or
//! a document goes bad.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests may sleep and lock")]
#![allow(missing_docs, reason = "a test")]

mod support;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use support::{
    Place, Process, REST, ROOT_TOKEN, TOKEN, ask, control, directory, doctor, figure, obeyed,
    router, rules, sidecar, until,
};

#[test]
fn nobody_without_a_token_gets_rules_and_each_token_its_own() {
    let (_place, _control, at) = directory("tokens");
    assert_eq!(ask(at, "GET", "/v1/rules?namespace=shop", &[], "").status, 401);
    assert_eq!(rules(at, "shop", "wrong-token-0123456789", "", 0).status, 401);
    assert_eq!(rules(at, "pay", TOKEN, "", 0).status, 403);
    let own = rules(at, "shop", TOKEN, "", 0);
    assert_eq!(own.status, 200, "{own:?}");
    assert!(own.text().contains("\"weight\":20") && !own.text().contains("exportTo"));
    let elsewhere = rules(at, "pay", ROOT_TOKEN, "", 0).text();
    assert!(!elsewhere.contains("MetaRouter") && elsewhere.contains("ServiceEntry"), "{elsewhere}");
    let packed = ask(
        at,
        "GET",
        "/v1/rules?namespace=shop",
        &[("authorization", &format!("Bearer {TOKEN}")), ("accept-encoding", "gzip")],
        "",
    );
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_string(&mut text).unwrap();
    assert_eq!((text, packed.tag()), (own.text(), own.tag()));
}

#[test]
fn a_change_reaches_who_waits_and_a_bad_one_leaves_what_was() {
    let (place, control, at) = directory("changes");
    let first = rules(at, "shop", TOKEN, "", 0);
    let still = rules(at, "shop", TOKEN, &first.tag(), 1);
    assert_eq!((still.status, still.body.len()), (304, 0));
    let waiting = {
        let tag = first.tag();
        thread::spawn(move || (rules(at, "shop", TOKEN, &tag, 60), Instant::now()))
    };
    thread::sleep(Duration::from_millis(300));
    place.write("rules/router.yaml", &router("orders", 70));
    let changed = Instant::now();
    let (second, arrived) = waiting.join().unwrap();
    assert!(second.status == 200 && second.text().contains("\"weight\":70"), "{second:?}");
    assert!(arrived.duration_since(changed) < Duration::from_secs(5));
    // Weights that are no hundred: the version before stands, for whoever comes now, too.
    let bad = router("orders", 70).replace("weight: 30", "weight: 31");
    place.write("rules/router.yaml", &bad);
    let metric = |name: &str| {
        let text = ask(at, "GET", "/metrics", &[], "").text();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    until("the trouble is told", || metric("netra_control_troubles ") == 1);
    until("it is logged", || control.said().contains("router.yaml: "));
    assert_eq!(rules(at, "shop", TOKEN, &second.tag(), 0).status, 304);
    assert_eq!(metric("netra_control_sidecars{state=\"good\"}"), 1);
    // What people are told.
    let page = ask(at, "GET", "/", &[], "");
    assert!(page.status == 200 && page.text().contains("router.yaml"), "{page:?}");
    let explain = |pod: &str| {
        let mut explain = Command::new(env!("CARGO_BIN_EXE_netra-control"));
        explain.args(["explain", "--pod", pod, "--server", &at.to_string()]);
        String::from_utf8(explain.output().unwrap().stdout).unwrap()
    };
    let row = |said: &str, file: &str| {
        said.lines().find(|line| line.contains(file)).unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    let said = row(&explain("pay/web-1"), "router.yaml");
    assert!(said.starts_with("out") && said.ends_with("not exported to this namespace"), "{said}");
    // Whoever asks for a document's effect hears that it is not the one that is written there.
    let said = row(&explain("shop/web-1"), "router.yaml");
    assert!(said.starts_with("in "), "{said}");
    assert!(said.contains("AN EARLIER VERSION of it: what it says now is bad: "), "{said}");
    let never = router("stock", 70).replace("orders.demo", "stock.demo");
    place.write("rules/never.yaml", &never);
    until("another one is bad", || metric("netra_control_troubles ") == 2);
    let said = row(&explain("shop/web-1"), "never.yaml");
    assert!(said.starts_with("out") && said.contains("no version before it is known: "), "{said}");
}

#[test]
fn the_webhook_says_no_before_the_cluster_does() {
    let (_place, _control, at) = directory("webhook");
    let review = |weight: u32, namespace: &str| {
        let to = |subset: &str, weight: u32| serde_json::json!({"destination": {"host": "orders.demo", "subset": subset}, "weight": weight});
        let review = serde_json::json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "u-1", "operation": "UPDATE", "namespace": namespace, "object": {
                "apiVersion": "metaprotocol.aeraki.io/v1alpha1", "kind": "MetaRouter",
                "metadata": {"name": "orders", "namespace": namespace},
                "spec": {"hosts": ["orders.demo"], "routes": [
                    {"name": "r", "route": [to("v1", 50), to("v2", weight)]}]}}}});
        let answer = ask(at, "POST", "/validate", &[], &review.to_string());
        assert_eq!(answer.status, 200);
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(answer["response"]["uid"], "u-1");
        answer["response"].clone()
    };
    assert_eq!(review(50, "shop")["allowed"], true);
    let no = review(51, "shop");
    assert_eq!(no["allowed"], false);
    assert!(no["status"]["message"].as_str().unwrap().contains("weight"), "{no}");
    assert_eq!(ask(at, "POST", "/validate", &[], "{}").status, 400);
}

#[test]
fn bad_settings_stop_the_start_with_64() {
    let place = Place::new("settings");
    place.write("tokens", "shop short\n");
    let (folder, tokens) = (place.0.display().to_string(), place.0.join("tokens"));
    let tokens = tokens.display().to_string();
    for (args, word) in [
        (vec!["--directory", &folder], "--tokens"),
        (vec!["--without-tokens"], "--directory"),
        (vec![], "--directory"),
        (vec!["--directory", &folder, "--tokens", &tokens], "line 1"),
        (vec!["--directory", &folder, "--etcd=x:1", "--without-tokens"], "--etcd"),
    ] {
        let output = control(&args).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{args:?}: {said}");
        assert!(said.contains(word), "{args:?}: {said}");
    }
}

#[test]
fn the_certificate_may_change_and_a_bad_one_leaves_the_last() {
    let place = Place::new("tls");
    fs::create_dir(place.0.join("rules")).unwrap();
    let make = |name: &str| {
        let mut command = Command::new("openssl");
        command
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
            ])
            .args([
                "-days",
                "2",
                "-subj",
                &format!("/CN={name}"),
                "-addext",
                "subjectAltName=IP:127.0.0.1",
            ])
            .arg("-keyout")
            .arg(place.0.join("key.pem"))
            .arg("-out")
            .arg(place.0.join("cert.pem"));
        assert!(command.output().unwrap().status.success());
    };
    make("first");
    let path = |name: &str| place.0.join(name).display().to_string();
    let (folder, cert, key) = (path("rules"), path("cert.pem"), path("key.pem"));
    let args = ["--directory", &folder, "--without-tokens", "--certificate", &cert, "--key", &key];
    let control = Process::start(control(&args));
    let at = control.address();
    let subject = || {
        let shell = format!(
            "openssl s_client -connect {at} </dev/null 2>/dev/null | openssl x509 -noout -subject"
        );
        let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(subject().contains("first"), "{}", subject());
    place.write("cert.pem", "nothing\n");
    thread::sleep(Duration::from_secs(6));
    assert!(subject().contains("first"), "{}", subject());
    make("second");
    until("the second is shown", || subject().contains("second"));
    until("it is logged", || control.said().contains("the certificate before stands"));
    let url = format!("https://{at}/live");
    let curl = Command::new("curl").args(["-s", "--cacert", &cert, &url]).output().unwrap();
    assert_eq!(curl.stdout, b"live\n");
}

#[test]
fn a_sidecar_obeys_what_control_says_and_goes_on_without_it() {
    let (place, control, at) = directory("sidecar");

    let entry =
        REST.replace("{number: 8080, name: http, protocol: HTTP}", "{number: 8080, name: http}");
    place.write("rules/rest.yaml", &entry);
    let (first, admin, metrics) = sidecar(&place, at);
    let has = |admin: SocketAddr, text: &str| {
        obeyed(admin).is_some_and(|(rules, _)| rules.contains(text))
    };
    until("the rules have come", || has(admin, "20"));
    let metric = |text: &str| ask(at, "GET", "/metrics", &[], "").text().contains(text);
    until("the fleet knows it", || metric("netra_control_sidecars{state=\"good\"} 1"));
    place.write("rules/router.yaml", &router("orders", 70));
    until("a change has come", || has(admin, "70"));
    // Its death is no event: nothing changes, also for a sidecar that starts meanwhile.
    assert!(doctor(admin).contains("ok    netra-control          answered "), "{}", doctor(admin));
    drop(control);
    let stale = || figure(metrics, "netra_rules_stale_seconds");
    until("its silence is counted", || stale() >= 2.0);
    until("it is missed", || first.said().contains("those before stay in force"));
    assert!(has(admin, "70"), "{:?}", obeyed(admin));
    drop(first);
    let (second, admin, _) = sidecar(&place, at);
    until("the cache is obeyed", || has(admin, "70"));
    drop(second);
    // Without a cache it starts all the same, and says so.
    fs::remove_file(place.0.join("cache.yaml")).unwrap();
    let (third, admin, _) = sidecar(&place, at);
    until("it runs without rules", || obeyed(admin).is_some_and(|(rules, _)| rules == "[]"));
    until("it says so", || third.said().contains("no rules yet"));
    let said = doctor(admin);
    assert!(said.contains("warn  netra-control          has not answered yet"), "{said}");
}

/// A control plane that answers what it is told, one answer for each question.
fn liar(answers: Vec<Vec<u8>>) -> (SocketAddr, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(0));
    let count = asked.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|it| it > 2) {
                line.clear();
            }
            let mut count = count.lock().unwrap();
            // Behind the last it is silent, and the question waits.
            let Some(answer) = answers.get(*count) else {
                std::mem::forget(stream);
                continue;
            };
            let _ = (&stream).write_all(answer);
            *count += 1;
        }
    });
    (at, asked)
}

#[test]
fn garbage_from_a_control_plane_takes_no_rule_away() {
    let place = Place::new("garbage");
    let entry =
        REST.replace("{number: 8080, name: http, protocol: HTTP}", "{number: 8080, name: http}");
    let good = format!("{}---\n{entry}", router("orders", 20));
    let answer = |head: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes()
    };
    let mut cut = answer("200 OK\r\netag: \"2\"", &good);
    cut.truncate(cut.len() - 40);
    let (at, asked) = liar(vec![
        answer("200 OK\r\netag: \"1\"", &good),
        b"\x00\x01garbage\r\n\r\n".to_vec(),
        answer("200 OK", &good.replace("20", "99")),
        cut,
        // Documents that no netra can obey: what was before stands.
        answer("200 OK\r\netag: \"3\"", &good.replace("weight: 20", "weight: 21")),
    ]);
    let (first, admin, _) = sidecar(&place, at);
    let has = |admin: SocketAddr, text: &str, errors: usize| {
        obeyed(admin).is_some_and(|(rules, wrong)| rules.contains(text) && wrong >= errors)
    };
    until("the rules have come", || has(admin, "20", 0));
    until("all of it was answered", || *asked.lock().unwrap() == 5);
    until("the last is refused", || has(admin, "20", 1));
    assert!(first.said().contains("those before stay in force"), "{}", first.said());
    // One that starts now has the bad answer in its cache, and goes back to the good one.
    drop(first);
    let (second, admin, _) = sidecar(&place, at);
    until("what was good is in force", || has(admin, "20", 0));
    until("it says so", || second.said().contains("what came before it is in force"));
}

#[test]
fn answers_that_are_none_of_a_control_plane_take_no_rule_away() {
    let place = Place::new("strangers");
    let entry =
        REST.replace("{number: 8080, name: http, protocol: HTTP}", "{number: 8080, name: http}");
    let good = format!("{}---\n{entry}", router("orders", 20));
    let answer = |head: &str, length: usize, body: &[u8]| {
        let head =
            format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        [head.as_bytes(), body].concat()
    };
    let page = b"<html>Sign in to the network</html>";
    let packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03";
    let (at, asked) = liar(vec![
        answer("200 OK\r\netag: \"1\"", good.len(), good.as_bytes()),
        // More than a sidecar takes, of somebody else's server, and of one that packs unasked.
        answer("200 OK\r\netag: \"2\"", 1 << 40, &[b'#'; 64 << 10]),
        answer("302 Found\r\nlocation: http://127.0.0.1:9/", 0, b""),
        answer("200 OK\r\netag: \"login\"", page.len(), page),
        answer("200 OK\r\netag: \"3\"\r\ncontent-encoding: gzip", packed.len(), packed),
    ]);
    let (sidecar, admin, _) = sidecar(&place, at);
    let has = |errors: usize| {
        obeyed(admin).is_some_and(|(rules, wrong)| rules.contains("20") && wrong >= errors)
    };
    until("the rules have come", || has(0));
    until("all of it was answered", || *asked.lock().unwrap() == 5);
    until("the last is refused", || has(1));
    let said = sidecar.said();
    assert!(said.contains("those before stay in force"), "{said}");
}
