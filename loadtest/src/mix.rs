//! Several loads at once, as real traffic is, from a TOML file.

use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::pacer::Arrival;
use crate::plan::{LoadPlan, Pace, Payload, RequestSpec, Target};
use crate::protocol::Protocol;
use crate::report::{RunReport, table, write_json};
use crate::run;

/// The file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mix {
    #[serde(default = "ten")]
    seconds: f64,
    #[serde(default = "one")]
    warm_up_seconds: f64,
    #[serde(rename = "part")]
    parts: Vec<Part>,
}

/// One load of the mix.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    name: String,
    scenario: Scenario,
    target: String,
    rate: Option<f64>,
    #[serde(default)]
    poisson: bool,
    #[serde(default = "sixteen")]
    connections: usize,
    #[serde(default)]
    cpus: Vec<usize>,
    /// Bytes of an HTTP request body, or of a message.
    #[serde(default)]
    size: usize,
    #[serde(default)]
    headers: Vec<String>,
    method: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Scenario {
    Http,
    Churn,
    Tcp,
    Redis,
    Dubbo,
    Thrift,
}

fn ten() -> f64 {
    10.0
}

fn one() -> f64 {
    1.0
}

fn sixteen() -> usize {
    16
}

/// Runs all parts at once, a thread each, and reports them one by one.
pub(crate) fn run(file: &Path, json: Option<&Path>) -> Result<()> {
    let text = std::fs::read_to_string(file)
        .map_err(|cause| Error::usage(format!("{}: {cause}", file.display())))?;
    let plans = parse(&text)
        .map_err(|cause| Error::new(cause.kind(), format!("{}: {cause}", file.display())))?;
    let results: Vec<Result<RunReport>> = thread::scope(|scope| {
        let threads: Vec<_> =
            plans.iter().map(|plan| scope.spawn(|| run::execute(plan, false))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<RunReport>>| {
            thread.join().unwrap_or_else(|_| Err(Error::new(Kind::Unexpected, "a part panicked")))
        };
        threads.into_iter().map(join).collect()
    });
    let reports = results.into_iter().collect::<Result<Vec<_>>>()?;
    for report in &reports {
        crate::say::result(format_args!("{}", table::run(report)));
    }
    if let Some(path) = json {
        write_json(path, &reports)?;
    }
    reports.iter().find_map(RunReport::fault).map_or(Ok(()), Err)
}

fn parse(text: &str) -> Result<Vec<LoadPlan>> {
    // The message of the parser shows the line and what is allowed there.
    let mix: Mix = toml::from_str(text).map_err(|cause| Error::usage(cause.to_string()))?;
    if mix.parts.is_empty() || mix.parts.len() > 64 {
        return Err(Error::usage("a mix has 1 to 64 parts"));
    }
    let named = |part: &Part| {
        part.plan(&mix)
            .map_err(|cause| Error::new(cause.kind(), format!("part `{}`: {cause}", part.name)))
    };
    mix.parts.iter().map(named).collect()
}

impl Part {
    fn plan(&self, mix: &Mix) -> Result<LoadPlan> {
        let target = Target::parse(&self.target)?;
        let payload = match self.scenario {
            Scenario::Tcp => Payload::echo(self.size.max(1)),
            Scenario::Redis => Payload::of(Protocol::Redis),
            Scenario::Dubbo => Payload::of(Protocol::Dubbo),
            Scenario::Thrift => Payload::of(Protocol::Thrift),
            Scenario::Http | Scenario::Churn => RequestSpec {
                method: self.method.clone(),
                path: target.path.clone(),
                host: target.host.clone(),
                headers: self.headers.clone(),
                body_size: self.size,
                is_chunked: false,
                is_close: self.scenario == Scenario::Churn,
            }
            .encode()?,
        };
        let arrival = if self.poisson { Arrival::Poisson } else { Arrival::Constant };
        let duration = |value: f64| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| Error::usage(format!("{value} is not a number of seconds")))
        };
        let plan = LoadPlan {
            scenario: self.name.clone(),
            target: target.addr,
            payload,
            pace: self.rate.map_or(Pace::Closed, |rate| Pace::Open { rate, arrival }),
            connections: self.connections,
            is_fresh: self.scenario == Scenario::Churn,
            duration: duration(mix.seconds)?,
            warm_up: duration(mix.warm_up_seconds)?,
            timeout: Duration::from_secs(10),
            threads: 1,
            cpus: self.cpus.clone(),
            is_busy: false,
            seed: 1,
        };
        plan.check()?;
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
seconds = 2.5

[[part]]
name = \"api\"
scenario = \"http\"
target = \"127.0.0.1:8080\"
rate = 500
poisson = true

[[part]]
name = \"chat\"
scenario = \"tcp\"
target = \"127.0.0.1:9000\"
size = 10
";

    #[test]
    fn a_mix_becomes_plans() {
        let plans = parse(GOOD).expect("a good file");
        assert_eq!(plans.len(), 2);
        assert_eq!(plans[0].pace, Pace::Open { rate: 500.0, arrival: Arrival::Poisson });
        assert_eq!(plans[1].payload, Payload::echo(10));
        assert!(plans.iter().all(|plan| plan.duration == Duration::from_millis(2500)));
    }

    #[test]
    fn errors_name_the_line_and_what_is_wrong() {
        for (from, to, parts) in [
            ("poisson = true", "poison = true", ["line 8", "unknown field `poison`"]),
            ("\"tcp\"", "\"udp\"", ["line 12", "unknown variant `udp`"]),
            ("rate = 500", "rate = \"500\"", ["line 7", "invalid type"]),
            ("rate = 500", "rate = -1", ["part `api`", "rate"]),
            ("size = 10", "size = ", ["line 14", "expected"]),
        ] {
            let cause = parse(&GOOD.replace(from, to)).expect_err(to);
            assert_eq!(cause.kind(), Kind::Usage);
            let message = cause.to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{to}: {message}");
        }
    }
}
