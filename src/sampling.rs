//! The remote sampler: asks a sampling manager what to sample, every minute, and tells the shards
//! when the answer is another one.
//!
//! The protocol is Jaeger's: `GET URL?service=NAME`, and of what comes back the first of
//! `operationSampling`, `probabilisticSampling` and `rateLimitingSampling` counts. `strategyType` is
//! left alone: agents have sent it as a number and as two different words.

use crate::http_client::{Client, Failure, Url};
use hyper::{Method, body::Bytes, header::HeaderMap};
use netra_codecs::trace::{Operations, SampleRule, SamplerPlan};
use serde_json::Value;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::time::sleep;
use tracing::{info, warn};

/// Where to ask, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    /// With the name of the service.
    pub(crate) url: Url,
    pub(crate) refresh: Duration,
    pub(crate) operations_max: usize,
    pub(crate) parent_based: bool,
}

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks for as long as the runtime lives. The first time is at once: the Go client waits for one
/// interval, and samples by its initial share meanwhile.
pub(crate) async fn follow<F: Future<Output = ()>>(
    remote: Remote,
    mut tell: impl FnMut(Arc<SamplerPlan>) -> F,
) {
    let client = Client::new(remote.url.clone(), TIMEOUT);
    let mut known: Option<SampleRule> = None;
    let mut is_failing = false;
    loop {
        match ask(&client, remote.operations_max).await {
            Ok(rule) => {
                if std::mem::take(&mut is_failing) {
                    info!(from = %remote.url, "the sampling manager answers again");
                }
                if known.as_ref() != Some(&rule) {
                    info!(from = %remote.url, rule = in_words(&rule), "sampling");
                    let plan = SamplerPlan {
                        rule: rule.clone(),
                        parent_based: remote.parent_based,
                        is_remote: true,
                    };
                    tell(Arc::new(plan)).await;
                    known = Some(rule);
                }
            }
            Err(error) if !is_failing => {
                is_failing = true;
                warn!(from = %remote.url, error = %error, "no sampling strategy; as before");
            }
            Err(_) => {}
        }
        sleep(remote.refresh).await;
    }
}

async fn ask(client: &Client, operations_max: usize) -> Result<SampleRule, Failure> {
    let answer = client.send(Method::GET, &HeaderMap::new(), Bytes::new()).await?;
    if !answer.status().is_success() {
        return Err(format!("it answered {}", answer.status()).into());
    }
    rule(answer.body(), operations_max).ok_or_else(|| "it answered no strategy".into())
}

/// Reads an answer.
fn rule(body: &[u8], operations_max: usize) -> Option<SampleRule> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let object = |name: &str| answer.get(name).filter(|value| value.is_object());
    if let Some(operations) = object("operationSampling") {
        return per_operation(operations, operations_max).map(SampleRule::PerOperation);
    }
    if let Some(by_share) = object("probabilisticSampling") {
        return share(by_share).map(SampleRule::Probabilistic);
    }
    let rate = object("rateLimitingSampling")?.get("maxTracesPerSecond")?.as_f64()?;
    (rate >= 0.0).then_some(SampleRule::RateLimiting(rate))
}

/// Numbers that are zero may be left out: that is how protobuf writes JSON.
fn number(object: &Value, name: &str) -> Option<f64> {
    object.get(name).map_or(Some(0.0), Value::as_f64)
}

fn share(by_share: &Value) -> Option<f64> {
    number(by_share, "samplingRate").filter(|share| (0.0..=1.0).contains(share))
}

fn per_operation(object: &Value, operations_max: usize) -> Option<Operations> {
    let default_share = number(object, "defaultSamplingProbability")?;
    let least_per_second = number(object, "defaultLowerBoundTracesPerSecond")?;
    let is_good = (0.0..=1.0).contains(&default_share) && least_per_second >= 0.0;
    let named = object.get("perOperationStrategies").and_then(Value::as_array);
    let mut shares = Vec::new();
    for strategy in named.into_iter().flatten() {
        let name = strategy.get("operation")?.as_str()?;
        shares.push((name.as_bytes().into(), share(strategy.get("probabilisticSampling")?)?));
    }
    // Looked up by name; of two with one name the first counts.
    shares.sort_by(|(one, _): &(Box<[u8]>, f64), (other, _)| one.cmp(other));
    shares.dedup_by(|(later, _), (first, _)| later == first);
    is_good.then_some(Operations { default_share, least_per_second, shares, operations_max })
}

fn in_words(rule: &SampleRule) -> String {
    match rule {
        SampleRule::Const(all) => format!("const {all}"),
        SampleRule::Probabilistic(share) => format!("probabilistic {share}"),
        SampleRule::RateLimiting(rate) => format!("ratelimiting {rate}"),
        SampleRule::PerOperation(operations) => format!(
            "{} operations, others {}, at least {} a second",
            operations.shares.len(),
            operations.default_share,
            operations.least_per_second
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };
    use tokio::{sync::mpsc, time::timeout};

    /// A sampling manager that gives these answers in turn and closes each time.
    fn manager(answers: &'static [&'static str]) -> (Url, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/sampling", listener.local_addr().unwrap());
        let asked = thread::spawn(move || {
            let answer = |body: &&str| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 1024];
                let read = stream.read(&mut head).unwrap();
                let status = if body.is_empty() { "503 No" } else { "200 OK" };
                let len = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}"
                )
                .unwrap();
                String::from_utf8_lossy(&head[..read]).lines().next().unwrap().to_owned()
            };
            answers.iter().map(answer).collect()
        });
        (Url::parse(&url).unwrap().with_query("service", "my shop"), asked)
    }

    #[test]
    fn the_first_answer_comes_at_once_and_only_what_changes_is_told() {
        const HALF: &str = r#"{"probabilisticSampling":{"samplingRate":0.5}}"#;
        const RATE: &str = r#"{"rateLimitingSampling":{"maxTracesPerSecond":2}}"#;
        let (url, asked) = manager(&[HALF, HALF, "", "{}", RATE]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let refresh = Duration::from_millis(5);
            let remote = Remote { url, refresh, operations_max: 10, parent_based: true };
            let (tell, mut told) = mpsc::channel(8);
            let task = tokio::spawn(follow(remote, move |plan| {
                let tell = tell.clone();
                async move { tell.send(plan).await.unwrap() }
            }));
            for rule in [SampleRule::Probabilistic(0.5), SampleRule::RateLimiting(2.0)] {
                let plan = timeout(Duration::from_secs(10), told.recv()).await.unwrap().unwrap();
                let expected = SamplerPlan { rule, parent_based: true, is_remote: true };
                assert_eq!(*plan, expected);
            }
            task.abort();
        });
        for line in asked.join().unwrap() {
            assert_eq!(line, "GET /sampling?service=my%20shop HTTP/1.1");
        }
    }

    #[test]
    fn answers() {
        use SampleRule::{Probabilistic, RateLimiting};
        let named = |shares: &[(&str, f64)]| {
            let shares = shares.iter().map(|(name, share)| (name.as_bytes().into(), *share));
            Some(SampleRule::PerOperation(Operations {
                default_share: 0.1,
                least_per_second: 0.01,
                shares: shares.collect(),
                operations_max: 7,
            }))
        };
        let by_share = r#""probabilisticSampling":{"samplingRate":0.5}"#;
        let operations = r#""operationSampling":{"defaultSamplingProbability":0.1,
            "defaultLowerBoundTracesPerSecond":0.01"#;
        let strategy = |name: &str, share: &str| {
            format!(r#"{{"operation":"{name}","probabilisticSampling":{{{share}}}}}"#)
        };
        let (b, a) = (strategy("/b", r#""samplingRate":1"#), strategy("/a", ""));
        let cases: Vec<(String, Option<SampleRule>)> = vec![
            (format!(r#"{{"strategyType":"PROBABILISTIC",{by_share}}}"#), Some(Probabilistic(0.5))),
            (format!(r#"{{"strategyType":0,{by_share}}}"#), Some(Probabilistic(0.5))),
            (r#"{"probabilisticSampling":{}}"#.into(), Some(Probabilistic(0.0))),
            (
                r#"{"rateLimitingSampling":{"maxTracesPerSecond":42}}"#.into(),
                Some(RateLimiting(42.0)),
            ),
            (format!(r#"{{{by_share},{operations}}}}}"#), named(&[])),
            (format!(r#"{{{by_share},"operationSampling":null}}"#), Some(Probabilistic(0.5))),
            (
                format!(r#"{{{operations},"perOperationStrategies":[{b},{a},{b}]}}}}"#),
                named(&[("/a", 0.0), ("/b", 1.0)]),
            ),
            (r#"{"probabilisticSampling":{"samplingRate":1.5}}"#.into(), None),
            (r#"{"rateLimitingSampling":{"maxTracesPerSecond":-1}}"#.into(), None),
            (r#"{"operationSampling":{"perOperationStrategies":[{}]}}"#.into(), None),
            ("{}".into(), None),
            ("no service given".into(), None),
        ];
        for (body, expected) in cases {
            assert_eq!(rule(body.as_bytes(), 7), expected, "{body}");
        }
    }
}
