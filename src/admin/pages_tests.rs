use super::*;
use netra_perf::{Key, Stage};
use serde_json::Value;
use std::future::Future;

fn admin(tell: mpsc::Sender<Event>) -> Admin {
    let recorders: Vec<Arc<Recorder>> = (0..2).map(|_| Arc::default()).collect();
    recorders[0].bump(Key::request(0, 0, 2));
    recorders[1].add(Key::bytes(1, 1), 42);
    recorders[1].record_ns(Stage::OverheadInbound, 5_000);
    Admin {
        config: Config { service_name: "shop".into(), ..Config::default() },
        settings: Vec::new(),
        decided: Vec::new(),
        driver: "epoll",
        started: SystemTime::now(),
        recorders,
        tell,
        is_profiling: Arc::default(),
    }
}

fn ask(method: Method, target: &str) -> Ask {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ask {
        method,
        path: path.into(),
        query: query.into(),
        accept: None,
        is_foreign: false,
        body: Vec::new(),
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

fn answer(method: Method, target: &str) -> Answer {
    let (tell, mut told) = mpsc::channel(4);
    let admin = admin(tell);
    let answer = wait(admin.answer(ask(method, target)));
    assert!(target == "/drain" || told.try_recv().is_err());
    answer
}

#[test]
fn methods_and_paths_are_checked_before_anything_happens() {
    for (method, target, status) in [
        (Method::GET, "/shards", 200),
        (Method::HEAD, "/", 200),
        (Method::POST, "/shards", 405),
        (Method::GET, "/nothing", 404),
        (Method::GET, "/drain", 405),
        (Method::PUT, "/drain", 405),
        (Method::GET, "/quitquitquit", 405),
        (Method::POST, "/quitquitquit", 403),
        (Method::GET, "/log-level", 200),
        (Method::DELETE, "/log-level", 405),
        (Method::POST, "/log-level?level=loud", 400),
        (Method::GET, "/connections?by=colour", 400),
        (Method::GET, "/connections?top=0", 400),
        (Method::GET, "/debug/pprof/profile?seconds=1000", 400),
        (Method::GET, "/debug/pprof/profile?hz=x", 400),
        (Method::GET, "/debug/pprof", 200),
        (Method::GET, "/debug/pprof/cmdline", 200),
        (Method::GET, "/debug/pprof/symbol", 200),
        (Method::GET, "/debug/pprof/heap", 200),
        (Method::GET, "/debug/pprof/goroutine", 404),
    ] {
        let got = answer(method.clone(), target);
        assert_eq!(got.status.as_u16(), status, "{method} {target}");
    }
}

#[test]
fn a_page_of_another_host_may_not_order_anything() {
    let (tell, mut told) = mpsc::channel(4);
    let admin = admin(tell);
    let foreign = Ask { is_foreign: true, ..ask(Method::POST, "/drain") };
    assert_eq!(wait(admin.answer(foreign)).status.as_u16(), 403);
    assert!(told.try_recv().is_err());
    assert_eq!(wait(admin.answer(ask(Method::POST, "/drain"))).status.as_u16(), 200);
    assert!(matches!(told.try_recv(), Ok(Event::Asked(Request::Drain))));
}

#[test]
fn quitting_needs_its_setting() {
    let (tell, mut told) = mpsc::channel(4);
    let mut admin = admin(tell);
    admin.config.admin.may_quit = true;
    assert_eq!(wait(admin.answer(ask(Method::POST, "/quitquitquit"))).status.as_u16(), 200);
    assert!(matches!(told.try_recv(), Ok(Event::Asked(Request::Quit))));
}

#[test]
fn views_show_what_was_recorded() {
    let body =
        |target| -> Value { serde_json::from_slice(&answer(Method::GET, target).body).unwrap() };
    let shards = body("/shards");
    assert_eq!(shards["service"], "shop");
    assert_eq!(shards["requests"]["inbound"]["2xx"], 1);
    assert_eq!(shards["bytes"]["outbound"]["response"], 42);
    assert_eq!(shards["durations"]["overhead_inbound"]["count"], 1);
    assert_eq!(shards["durations"]["overhead_inbound"]["cells"][0][1], 1);
    assert_eq!(shards["shards"].as_array().unwrap().len(), 2);
    assert_eq!(body("/contexts")["entries_by_shard"].as_array().unwrap().len(), 2);
}

#[test]
fn shards_that_do_not_answer_are_not_waited_for_for_ever() {
    let (tell, mut told) = mpsc::channel(4);
    let admin = admin(tell);
    let answer = wait(async {
        let asked = tokio::spawn(async move { told.recv().await });
        let answer = admin.answer(ask(Method::GET, "/connections")).await;
        assert!(matches!(
            asked.await,
            Ok(Some(Event::Asked(Request::Connections { shard: 0, from: 0, .. })))
        ));
        answer
    });
    assert_eq!(answer.status.as_u16(), 504);
}
