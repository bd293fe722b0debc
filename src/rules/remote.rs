//! Rules from netra-control: what it has for this sidecar's namespace is written into a file, the
//! cache, and the sidecar runs by that file as by any other. So the control plane may go away at any
//! time: what it said last is obeyed for ever, also by a sidecar that starts meanwhile.

use super::{Named, Own, View};
use crate::{
    failure::Failure,
    http_client::{Client, Terms},
    reach::Reach,
    resolver::Names,
    url::Url,
};
use hyper::{
    Method, StatusCode,
    body::Bytes,
    header::{self, HeaderMap, HeaderValue},
};
use netra_rules::TEXT_BYTES_MAX;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::watch, time::sleep};
use tracing::{info, warn};

/// Where rules come from, by the settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remote {
    /// None where rules are files of one's own.
    pub(crate) url: Option<Url>,
    pub(crate) reach: Reach,
    /// Whose rules; empty is the namespace of the pod.
    pub(crate) namespace: String,
    pub(crate) token_file: String,
    pub(crate) cache: String,
}

/// How long an answer may wait for a change. An answer without one comes a little earlier.
const WAIT_SECONDS: u64 = 50;
const TERMS: Terms = Terms {
    is_http2: false,
    limit: Duration::from_secs(WAIT_SECONDS + 20),
    answer_bytes_max: TEXT_BYTES_MAX,
};
/// Between questions that failed, doubled up to the second.
const RETRY_FROM: Duration = Duration::from_secs(1);
const RETRY_TO: Duration = Duration::from_secs(30);
/// Where Kubernetes says in which namespace a pod is.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// A token, at most.
const TOKEN_BYTES_MAX: u64 = 16 << 10;

impl Remote {
    /// What is asked, again and again.
    fn question(&self) -> Option<Url> {
        let own = || fs::read_to_string(NAMESPACE_FILE).ok().map(|text| text.trim().to_owned());
        let namespace = match self.namespace.as_str() {
            "" => own().unwrap_or_else(|| "default".to_owned()),
            said => said.to_owned(),
        };
        let pod = nix::unistd::gethostname().unwrap_or_default();
        let url = self.url.clone()?.with_path("/v1/rules");
        let url =
            url.with_query("namespace", &namespace).with_query("wait", &WAIT_SECONDS.to_string());
        Some(url.with_query("pod", &pod.to_string_lossy()))
    }

    /// The headers of a question: the token as it is now, what is there already, and what is wrong
    /// with it.
    fn headers(&self, tag: &str, view: &watch::Receiver<View>) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        let value =
            |text: &str| HeaderValue::from_str(text).map_err(|why| Failure::from(why.to_string()));
        if !self.token_file.is_empty() {
            let token = token(Path::new(&self.token_file))
                .map_err(|why| Failure::from(format!("{}: {why}", self.token_file)))?;
            let mut bearer = value(&format!("Bearer {token}"))?;
            bearer.set_sensitive(true);
            headers.insert(header::AUTHORIZATION, bearer);
        }
        if !tag.is_empty() {
            headers.insert(header::IF_NONE_MATCH, value(tag)?);
        }
        if let Some(error) = view.borrow().errors.first() {
            let plain: String =
                error.chars().filter(|c| (' '..='~').contains(c)).take(200).collect();
            headers.insert("netra-trouble", value(&plain)?);
        }
        Ok(headers)
    }
}

fn token(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(
        &mut io::Read::take(fs::File::open(file)?, TOKEN_BYTES_MAX),
        &mut text,
    )?;
    Ok(text.trim().to_owned())
}

/// Asks for as long as the runtime lives, and writes what is new into the cache.
pub(crate) async fn follow(remote: Remote, own: Own, names: Names, view: watch::Receiver<View>) {
    let Some(url) = remote.question() else { return };
    let heard = view.borrow().heard.clone();
    let client = match Client::new(&names, url.clone(), &remote.reach, TERMS) {
        Ok(client) => client,
        Err(error) => return warn!(from = %url, error = %error, "no rules can be asked for"),
    };
    // The tag of what was cached by an earlier process is not known: it is asked for again.
    let (mut tag, mut is_failing, mut pause) = (String::new(), false, RETRY_FROM);
    loop {
        match ask(&client, (&remote, &own), &tag, &view).await {
            Ok(answer) => {
                if let Some(heard) = &heard {
                    heard.hear();
                }
                if std::mem::take(&mut is_failing) {
                    info!(from = %url, "netra-control answers again");
                }
                pause = RETRY_FROM;
                if let Some(new) = answer {
                    info!(from = %url, tag = new, "rules have come from netra-control");
                    tag = new;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    warn!(from = %url, error = %error, "no rules from netra-control: those before stay in force");
                }
                sleep(pause + jitter(pause)).await;
                pause = (pause * 2).min(RETRY_TO);
            }
        }
    }
}

/// One question; None says that nothing has changed.
async fn ask(
    client: &Client,
    (remote, own): (&Remote, &Own),
    tag: &str,
    view: &watch::Receiver<View>,
) -> Result<Option<String>, Failure> {
    let headers = remote.headers(tag, view)?;
    let answer = client.send(Method::GET, &headers, Bytes::new()).await?;
    match answer.status() {
        StatusCode::NOT_MODIFIED => Ok(None),
        StatusCode::OK => {
            let new = answer.headers().get(header::ETAG).and_then(|it| it.to_str().ok());
            let new = new.ok_or("an answer without a tag")?.to_owned();
            let cache = PathBuf::from(&remote.cache);
            let is_good = super::read(&cache, own, Named::default(), 1, true).is_ok();
            put(&cache, answer.body(), is_good)
                .map_err(|why| Failure::from(format!("{}: {why}", cache.display())))?;
            Ok(Some(new))
        }
        status => {
            let said =
                String::from_utf8_lossy(answer.body()).trim().chars().take(100).collect::<String>();
            Err(format!("it answered {status}: {said}").into())
        }
    }
}

/// Where the last good answer is, when what came behind it is not.
pub(super) fn good_of(cache: &Path) -> PathBuf {
    beside(cache, ".good")
}

fn beside(cache: &Path, end: &str) -> PathBuf {
    let mut name = cache.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Whole or not at all: whoever starts meanwhile finds what was before, or what is new. What was good
/// stays beside: the new may be bad, as of a netra-control that is newer than this netra.
fn put(cache: &Path, bytes: &[u8], was_good: bool) -> io::Result<()> {
    let beside = beside(cache, ".new");
    fs::write(&beside, bytes)?;
    if was_good {
        let good = good_of(cache);
        let _ = fs::remove_file(&good);
        // Without it there is only nothing to go back to.
        let _ = fs::hard_link(cache, good);
    }
    fs::rename(&beside, cache)
}

/// Up to as much again, so that a fleet does not come back at once.
fn jitter(most: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    most * (now.subsec_nanos() % 1000) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_the_namespace_and_the_pod() {
        let remote = Remote {
            url: Url::parse("http://c:14960"),
            namespace: "shop".to_owned(),
            ..Remote::default()
        };
        let asked = remote.question().unwrap().to_string();
        assert!(
            asked.starts_with("http://c:14960/v1/rules?namespace=shop&wait=50&pod="),
            "{asked}"
        );
        assert!(Remote::default().question().is_none());
    }

    #[test]
    fn the_cache_is_whole_or_as_it_was() {
        let cache = std::env::temp_dir().join(format!("netra-cache-{}", std::process::id()));
        put(&cache, b"one", false).unwrap();
        assert!(!good_of(&cache).exists());
        put(&cache, b"two", true).unwrap();
        assert_eq!(fs::read(&cache).unwrap(), b"two");
        assert_eq!(fs::read(good_of(&cache)).unwrap(), b"one");
        put(&cache, b"three", false).unwrap();
        assert_eq!(fs::read(good_of(&cache)).unwrap(), b"one");
        fs::remove_file(good_of(&cache)).unwrap();
        fs::remove_file(&cache).unwrap();
        assert!(put(&cache.join("nowhere"), b"", false).is_err());
    }
}
