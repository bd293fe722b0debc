use super::*;
use crate::{endpoint::Sender, token::Token};
use netra_perf::{Key, Stage};
use serde_json::Value;
use std::future::Future;

fn admin(tell: mpsc::Sender<Event>) -> Admin {
    let recorders: Vec<Arc<Recorder>> = (0..2).map(|_| Arc::default()).collect();
    recorders[0].bump(Key::request(0, 0, 2));
    recorders[1].add(Key::bytes(1, 1), 42);
    recorders[1].record_ns(Stage::OverheadInbound, 5_000);
    Admin {
        rules: tokio::sync::watch::channel(crate::rules::View::default()).1,
        config: Config { service_name: "shop".into(), ..Config::default() },
        settings: Vec::new(),
        decided: Vec::new(),
        driver: "epoll",
        started: SystemTime::now(),
        recorders,
        tell,
        is_profiling: Arc::default(),
        looking: Mutex::default(),
    }
}

fn ask(method: Method, target: &str) -> Ask {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ask {
        method,
        path: path.into(),
        query: query.into(),
        accept: None,
        from: Sender { is_direct: true, is_order: true, ..Sender::default() },
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
    assert!(told.try_recv().is_err());
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
        (Method::POST, "/drain", 403),
        (Method::POST, "/log-level?level=debug", 403),
        (Method::GET, "/connections?by=colour", 400),
        (Method::GET, "/connections?top=0", 400),
        (Method::GET, "/clusters", 200),
        (Method::GET, "/clusters?top=1001", 400),
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

fn from(sender: Sender, method: Method, target: &str) -> Ask {
    Ask { from: sender, ..ask(method, target) }
}

/// What a browser makes of a page of another host, by whatever name it got here.
#[test]
fn pages_of_others_see_nothing_and_order_nothing() {
    let (tell, mut told) = mpsc::channel(4);
    let mut admin = admin(tell);
    admin.config.admin.may_order = true;
    let direct = Sender { is_direct: true, is_order: true, ..Sender::default() };
    let foreign = Sender { is_foreign: true, ..direct.clone() };
    let rebound = Sender { is_direct: false, ..direct.clone() };
    let simple = Sender { is_order: false, ..direct.clone() };
    for (sender, method, target, status) in [
        (&foreign, Method::POST, "/drain", 403),
        (&rebound, Method::POST, "/drain", 421),
        (&simple, Method::POST, "/drain", 403),
        (&simple, Method::POST, "/log-level?level=debug", 403),
        (&foreign, Method::GET, "/config", 403),
        (&rebound, Method::GET, "/config", 421),
        (&rebound, Method::GET, "/nothing", 421),
        (&rebound, Method::POST, "/debug/pprof/symbol", 421),
        (&foreign, Method::GET, "/debug/pprof/profile?seconds=300", 403),
        (&simple, Method::GET, "/config", 200),
    ] {
        let answer = wait(admin.answer(from(sender.clone(), method, target)));
        assert_eq!(answer.status.as_u16(), status, "{target} {sender:?}");
    }
    assert!(told.try_recv().is_err());
    let answer = wait(admin.answer(from(direct, Method::POST, "/drain")));
    assert_eq!(answer.status.as_u16(), 200);
    assert!(matches!(told.try_recv(), Ok(Event::Asked(Request::Drain))));
}

/// Each way of being allowed, and what it does not allow.
#[test]
fn orders_need_a_switch_a_token_or_the_socket() {
    const TOKEN: &str = "0123456789abcdef";
    let direct = Sender { is_direct: true, is_order: true, ..Sender::default() };
    let bearer = |token: &str| Sender { token: Some(token.into()), ..direct.clone() };
    let owner = Sender { is_direct: true, is_owner: true, ..Sender::default() };
    let (good, bad) = (bearer(TOKEN), bearer("0123456789abcdeF"));
    let (off, on) = (false, true);
    // NETRA_ADMIN_ORDERS, NETRA_ADMIN_QUIT, whether there is a token; who; to drain and to quit.
    for (may_order, may_quit, has_token, sender, drain, quit) in [
        (off, off, off, &direct, 403, 403),
        (off, off, off, &good, 403, 403),
        (on, off, off, &direct, 200, 403),
        (off, on, off, &direct, 403, 200),
        (off, on, on, &direct, 401, 401),
        (on, on, on, &direct, 401, 401),
        (on, on, on, &bad, 401, 401),
        (off, off, on, &good, 200, 403),
        (off, on, on, &good, 200, 200),
        (off, off, off, &owner, 200, 403),
        (off, on, on, &owner, 200, 200),
    ] {
        let (tell, mut told) = mpsc::channel(4);
        let mut admin = admin(tell);
        let settings = &mut admin.config.admin;
        (settings.may_order, settings.may_quit) = (may_order, may_quit);
        settings.token = has_token.then(|| Token::of(TOKEN)).flatten();
        for (path, status) in [("/drain", drain), ("/quitquitquit", quit)] {
            let answer = wait(admin.answer(from(sender.clone(), Method::POST, path)));
            let case = format!("{path} {may_order} {may_quit} {has_token} {sender:?}");
            assert_eq!(answer.status.as_u16(), status, "{case}");
            assert_eq!(told.try_recv().is_ok(), status == 200, "{case}");
            assert_eq!(answer.headers.iter().any(|it| it.0 == "www-authenticate"), status == 401);
        }
        let level = from(sender.clone(), Method::POST, "/log-level?level=info");
        assert_eq!(wait(admin.answer(level)).status.as_u16(), drain);
    }
}

/// What takes long or much is made once at a time, and the next one is told so.
#[test]
fn costly_pages_are_made_one_at_a_time() {
    let (tell, mut told) = mpsc::channel(64);
    let admin = Arc::new(admin(tell));
    wait(async {
        let admin = &admin;
        let first = admin.answer(ask(Method::GET, "/debug/pprof/trace?seconds=1"));
        let rest = async {
            // Once the first one has begun.
            assert!(told.recv().await.is_some());
            for page in ["trace?seconds=1", "profile?seconds=1", "folded", "flamegraph", "heap"] {
                let target = format!("/debug/pprof/{page}");
                let answer = admin.answer(ask(Method::GET, &target)).await;
                assert_eq!(
                    answer.status.as_u16(),
                    if page == "heap" { 200 } else { 503 },
                    "{page}"
                );
            }
            let symbol = admin.answer(ask(Method::POST, "/debug/pprof/symbol")).await;
            assert_eq!(symbol.status.as_u16(), 503);
        };
        let (first, ()) = tokio::join!(first, rest);
        assert_eq!(first.status.as_u16(), 200);
        let again = admin.answer(ask(Method::GET, "/debug/pprof/trace?seconds=1")).await;
        assert_eq!(again.status.as_u16(), 200);
    });
}

/// Those who ask together are served one after the other, each by one walk through the shards.
#[test]
fn shards_are_asked_for_connections_by_one_at_a_time() {
    let (tell, mut told) = mpsc::channel(64);
    let admin = Arc::new(admin(tell));
    wait(async {
        let ask = || {
            let admin = Arc::clone(&admin);
            tokio::spawn(async move { admin.answer(ask(Method::GET, "/connections")).await })
        };
        let asking = [ask(), ask(), ask()];
        for n in 0..6 {
            let Some(Event::Asked(Request::Connections { shard, viewer, .. })) = told.recv().await
            else {
                panic!("shards are asked")
            };
            assert_eq!(shard, n % 2, "in order");
            tokio::task::yield_now().await;
            assert!(told.try_recv().is_err(), "one at a time");
            viewer.connections(shard, Vec::new(), None);
        }
        for answer in asking {
            assert_eq!(answer.await.unwrap().status.as_u16(), 200);
        }
    });
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
