use super::*;
use crate::batch::Kind;
use crate::batch::tests::{batch, made};
use crate::keeper::Grant;
use http_body_util::BodyExt;

/// A site with a hundred traces of two services that just came.
async fn site() -> Site {
    let keeper = Keeper::start(Books::new(32 << 20), 32 << 20, Arc::default()).unwrap();
    for trace in 1..=100u128 {
        let mut spans = vec![
            made("front", Kind::Server, (trace, 1, 0)),
            made("front", Kind::Client, (trace, 2, 1)),
            made("shop", Kind::Server, (trace, 3, 2)),
        ];
        spans[0].name = format!("/cart/{trace}");
        spans[2].is_error = trace % 10 == 0;
        spans[2].tags = vec![("user", format!("u{trace}"))];
        let mut all = batch(&spans);
        for span in &mut all.spans {
            span.start_ns = crate::keeper::now_ns() - 1_000_000;
        }
        keeper.take(all, Grant::default(), 0).await.unwrap();
    }
    Site::new(keeper, true)
}

async fn get(site: &Site, target: &str) -> (StatusCode, Json) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let reply = site.answer(&Method::GET, path, query, &HeaderMap::new()).await;
    let status = reply.0.status();
    let body = reply.0.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Json::Null))
}

#[tokio::test]
async fn what_jaegers_query_service_answers() {
    let site = site().await;
    let (_, services) = get(&site, "/api/services").await;
    assert_eq!((&services["data"], &services["total"]), (&json!(["front", "shop"]), &json!(2)));
    let (_, names) = get(&site, "/api/services/front/operations").await;
    assert_eq!(names["data"], json!(["/cart/{id}", "work"]));
    let (_, kinds) = get(&site, "/api/operations?service=front&spanKind=server").await;
    assert_eq!(kinds["data"], json!([{"name": "/cart/{id}", "spanKind": "server"}]));
    let (_, found) = get(&site, "/api/traces?service=shop&limit=5").await;
    assert_eq!(found["data"].as_array().unwrap().len(), 5);
    assert_eq!(found["data"][0]["spans"].as_array().unwrap().len(), 3);
    let (_, found) =
        get(&site, "/api/traces?service=shop&limit=50&tags=%7B%22error%22%3A%22true%22%7D").await;
    assert_eq!(found["data"].as_array().unwrap().len(), 10);
    let (_, found) =
        get(&site, "/api/traces?service=front&operation=%2Fcart%2F%7Bid%7D&limit=1000").await;
    assert_eq!(found["data"].as_array().unwrap().len(), 100);
    let (_, one) = get(&site, "/api/traces/0000000000000007").await;
    assert_eq!(one["data"][0]["traceID"], "0000000000000007");
    let (_, links) = get(&site, "/api/dependencies?lookback=3600000").await;
    assert_eq!(links["data"], json!([{"parent": "front", "child": "shop", "callCount": 100}]));
    for (target, wanted) in [
        ("/api/traces/77777", 404),
        ("/api/traces/xyz", 400),
        ("/api/operations", 400),
        ("/api/traces?minDuration=x", 400),
        ("/api/nothing", 404),
    ] {
        let (status, body) = get(&site, target).await;
        assert_eq!(status, wanted, "{target}");
        assert_eq!(body["errors"][0]["code"], wanted, "{target}");
    }
}

#[tokio::test]
async fn what_the_page_asks_for() {
    let site = site().await;
    let (_, map) = get(&site, "/api/netra/map?last=60").await;
    assert_eq!(map["map"]["nodes"].as_array().unwrap().len(), 3);
    assert!(map["base"].is_null());
    let now = now_s();
    let target = format!("/api/netra/map?last=60&base_from={}&base_until={}", now - 120, now - 60);
    let (_, both) = get(&site, &target).await;
    assert_eq!(both["base"]["edges"].as_array().unwrap().len(), 0);
    let (_, found) = get(&site, "/api/netra/search?service=shop&tag=user:u42").await;
    assert_eq!(found["traces"].as_array().unwrap().len(), 1);
    assert_eq!(found["traces"][0]["operation"], "/cart/42");
    let (_, trace) = get(&site, "/api/netra/trace/2a").await;
    assert_eq!(trace["spans"][2]["depth"], 2);
    let (_, otlp) = get(&site, "/api/netra/trace/2a/otlp").await;
    assert_eq!(otlp["resourceSpans"].as_array().unwrap().len(), 3);
    let (_, operations) = get(&site, "/api/netra/operations?service=front").await;
    assert_eq!(operations["operations"].as_array().unwrap().len(), 2);
    let (_, sidecars) = get(&site, "/api/netra/sidecars").await;
    assert_eq!(sidecars["sidecars"].as_array().unwrap().len(), 2);
    let (_, state) = get(&site, "/api/netra/state").await;
    assert_eq!((&state["spans"], &state["here"]), (&json!(300), &json!(300)));
    let (_, course) = get(&site, "/api/netra/course?service=shop").await;
    assert_eq!(
        course["course"]
            .as_array()
            .unwrap()
            .iter()
            .map(|slot| slot[2].as_u64().unwrap())
            .sum::<u64>(),
        100
    );
    for path in ["/", "/page.js", "/page.css", "/metrics", "/api/netra/map.txt"] {
        assert_eq!(get(&site, path).await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn pages_of_other_hosts_are_not_answered() {
    let site = site().await;
    for (name, value, status) in [
        ("host", "127.0.0.1:16686", 200),
        ("host", "localhost", 200),
        ("host", "[::1]:16686", 200),
        ("host", "evil.example:16686", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-origin", 200),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        let reply = site.answer(&Method::GET, "/api/services", "", &headers).await;
        assert_eq!(reply.0.status(), status, "{name}: {value}");
        if status == 200 {
            assert!(
                reply.0.headers()["content-security-policy"].to_str().unwrap().contains("'none'")
            );
        }
    }
    let reply = site.answer(&Method::POST, "/api/services", "", &HeaderMap::new()).await;
    assert_eq!(reply.0.status(), 405);
}
