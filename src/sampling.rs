//! The remote sampler: asks a sampling manager what to sample, every minute, and tells the shards
//! when the answer is another one.
//!
//! The protocol is Jaeger's: `GET URL?service=NAME`, and of what comes back the first of
//! `operationSampling`, `probabilisticSampling` and `rateLimitingSampling` counts. `strategyType` is
//! left alone: agents have sent it as a number and as two different words.

use crate::{
    failure::Failure,
    http_client::{Client, Terms},
    reach::Reach,
    resolver::Names,
    url::Url,
};
use hyper::{Method, body::Bytes, header::HeaderMap};
use netra_codecs::trace::{Operations, SampleRule, SamplerPlan};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt, future::Future, sync::Arc, time::Duration};
use tokio::time::sleep;
use tracing::{info, warn};

/// Where to ask, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    /// With the name of the service.
    pub(crate) url: Url,
    pub(crate) reach: Reach,
    pub(crate) refresh: Duration,
    pub(crate) operations_max: usize,
    pub(crate) parent_based: bool,
}

/// How long an answer may take, and what it may weigh: some thousand operations.
const TERMS: Terms =
    Terms { is_http2: false, limit: Duration::from_secs(5), answer_bytes_max: 1 << 20 };

/// Asks for as long as the runtime lives. The first time is at once: the Go client waits for one
/// interval, and samples by its initial share meanwhile.
pub(crate) async fn follow<F: Future<Output = ()>>(
    remote: Remote,
    names: Names,
    mut tell: impl FnMut(Arc<SamplerPlan>) -> F,
) {
    let client = match Client::new(&names, remote.url.clone(), &remote.reach, TERMS) {
        Ok(client) => client,
        Err(error) => {
            warn!(from = %remote.url, error = %error, "no sampling strategy can be asked for");
            return;
        }
    };
    let mut known: Option<SampleRule> = None;
    let mut is_failing = false;
    loop {
        match ask(&client, remote.operations_max).await {
            Ok(Read { rule, left_out }) => {
                if std::mem::take(&mut is_failing) {
                    info!(from = %remote.url, "the sampling manager answers again");
                }
                if known.as_ref() != Some(&rule) {
                    info!(from = %remote.url, rule = in_words(&rule), left_out, "sampling");
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

async fn ask(client: &Client, operations_max: usize) -> Result<Read, Failure> {
    let answer = client.send(Method::GET, &HeaderMap::new(), Bytes::new()).await?;
    if !answer.status().is_success() {
        return Err(format!("it answered {}", answer.status()).into());
    }
    read(answer.body(), operations_max).ok_or_else(|| "it answered no strategy".into())
}

/// What was read of an answer.
#[derive(Debug, PartialEq)]
struct Read {
    rule: SampleRule,
    /// Operations beyond those that may be told apart: they are sampled as all others.
    left_out: usize,
}

/// An answer, as far as it is of interest: what else it says is passed over, not kept.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    #[serde(borrow)]
    operation_sampling: Option<PerOperation<'a>>,
    probabilistic_sampling: Option<ByShare>,
    rate_limiting_sampling: Option<ByRate>,
}

/// Numbers that are zero may be left out: that is how protobuf writes JSON.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PerOperation<'a> {
    #[serde(default)]
    default_sampling_probability: f64,
    #[serde(default)]
    default_lower_bound_traces_per_second: f64,
    /// Read in a second step, because only so many are.
    #[serde(borrow)]
    per_operation_strategies: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Strategy<'a> {
    #[serde(borrow)]
    operation: Cow<'a, str>,
    probabilistic_sampling: ByShare,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ByShare {
    #[serde(default)]
    sampling_rate: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ByRate {
    max_traces_per_second: f64,
}

/// Reads an answer.
fn read(body: &[u8], operations_max: usize) -> Option<Read> {
    let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
    let whole = |rule| Read { rule, left_out: 0 };
    if let Some(operations) = answer.operation_sampling {
        return per_operation(&operations, operations_max);
    }
    if let Some(by_share) = answer.probabilistic_sampling {
        return by_share.share().map(SampleRule::Probabilistic).map(whole);
    }
    let rate = answer.rate_limiting_sampling?.max_traces_per_second;
    (rate >= 0.0).then_some(SampleRule::RateLimiting(rate)).map(whole)
}

impl ByShare {
    fn share(&self) -> Option<f64> {
        Some(self.sampling_rate).filter(|share| (0.0..=1.0).contains(share))
    }
}

fn per_operation(answer: &PerOperation<'_>, operations_max: usize) -> Option<Read> {
    let default_share = answer.default_sampling_probability;
    let least_per_second = answer.default_lower_bound_traces_per_second;
    let is_good = (0.0..=1.0).contains(&default_share) && least_per_second >= 0.0;
    let Shares { mut shares, left_out } = match answer.per_operation_strategies {
        Some(text) => {
            let mut text = serde_json::Deserializer::from_str(text.get());
            text.deserialize_any(AtMost(operations_max)).ok()?
        }
        None => Shares::default(),
    };
    // Looked up by name; of two with one name the first counts.
    shares.sort_by(|(one, _): &(Box<[u8]>, f64), (other, _)| one.cmp(other));
    shares.dedup_by(|(later, _), (first, _)| later == first);
    let rule = Operations { default_share, least_per_second, shares, operations_max };
    is_good.then_some(Read { rule: SampleRule::PerOperation(rule), left_out })
}

#[derive(Default)]
struct Shares {
    shares: Vec<(Box<[u8]>, f64)>,
    left_out: usize,
}

/// Reads so many strategies of a list, and passes over the rest.
struct AtMost(usize);

impl<'de> Visitor<'de> for AtMost {
    type Value = Shares;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strategies, or null")
    }

    fn visit_unit<E>(self) -> Result<Shares, E> {
        Ok(Shares::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shares, A::Error> {
        let mut read = Shares::default();
        while read.shares.len() < self.0 {
            let Some(strategy) = list.next_element::<Strategy<'de>>()? else { return Ok(read) };
            let share = strategy.probabilistic_sampling.share();
            let share = share.ok_or_else(|| serde::de::Error::custom("no share"))?;
            read.shares.push((strategy.operation.as_bytes().into(), share));
        }
        while list.next_element::<IgnoredAny>()?.is_some() {
            read.left_out += 1;
        }
        Ok(read)
    }
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
            let remote = Remote {
                url,
                reach: Reach::default(),
                refresh,
                operations_max: 10,
                parent_based: true,
            };
            let (tell, mut told) = mpsc::channel(8);
            let task = tokio::spawn(follow(remote, Names::start_own(), move |plan| {
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
            let found = read(body.as_bytes(), 7).map(|read| read.rule);
            assert_eq!(found, expected, "{body}");
        }
    }

    /// As many operations as a megabyte holds: so many are kept as may be told apart, and the rest
    /// is not even remembered while the answer is read.
    #[test]
    fn more_operations_than_may_be_told_apart_are_left_out() {
        let strategies: Vec<String> = (0..15_000)
            .map(|number| {
                let share = r#""probabilisticSampling":{"samplingRate":0.5}"#;
                format!(r#"{{"operation":"/{number:05}",{share}}}"#)
            })
            .collect();
        let body = format!(
            r#"{{"operationSampling":{{"perOperationStrategies":[{}]}}}}"#,
            strategies.join(",")
        );
        let read = read(body.as_bytes(), 2000).unwrap();
        assert_eq!(read.left_out, 13_000);
        let SampleRule::PerOperation(operations) = read.rule else { panic!("another rule") };
        assert_eq!(operations.shares.len(), 2000);
        assert_eq!(&*operations.shares[1999].0, b"/01999");
        assert!(operations.shares.capacity() <= 4096, "{}", operations.shares.capacity());
    }
}
