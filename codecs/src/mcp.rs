//! The Model Context Protocol in bodies of HTTP requests: which method of its JSON-RPC a client calls,
//! and which tool or prompt. Read out of the beginning of a body, wherever that ends, in one pass and
//! without a copy; what is not found there is not known.

/// How far a body is looked into.
pub const LOOK_BYTES: usize = 8 * 1024;
/// The longest name that is told.
const NAME_BYTES_MAX: usize = 128;
/// What may stand before the message: the first line of a chunk, and blanks.
const BEFORE_BYTES_MAX: usize = 32;

/// The methods that a client calls with POST (revisions from 2024-11-05 on), so that nothing a
/// peer makes up becomes the name of anything.
const METHODS: &[&str] = &[
    "completion/complete",
    "initialize",
    "logging/setLevel",
    "notifications/cancelled",
    "notifications/initialized",
    "notifications/progress",
    "notifications/roots/list_changed",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "server/discover",
    "subscriptions/listen",
    "tasks/cancel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tools/call",
    "tools/list",
];

/// A message of a client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'b> {
    /// One of the protocol's methods.
    pub method: &'static str,
    /// Of `tools/call` and `prompts/get`: which one.
    pub name: Option<&'b [u8]>,
}

/// Finds the method and the name in the beginning of a body. None where it is not a message of MCP's,
/// or where its method does not stand within [`LOOK_BYTES`].
pub fn call(body: &[u8]) -> Option<Call<'_>> {
    let body = &body[..body.len().min(LOOK_BYTES)];
    let before = &body[..body.len().min(BEFORE_BYTES_MAX)];
    let start = before.iter().position(|&byte| byte == b'{')?;
    // A list of messages is none of the protocol's any more.
    if before[..start].contains(&b'[') {
        return None;
    }
    let mut found = Found::default();
    let is_whole = found.look(Tokens(&body[start..]));
    let method = METHODS.iter().find(|known| known.as_bytes() == found.method.unwrap_or(b""))?;
    let is_json_rpc = match found.version {
        Some(version) => version == b"2.0",
        // It may stand behind what was looked at.
        None => !is_whole,
    };
    let has_name = matches!(*method, "tools/call" | "prompts/get");
    let is_good = |name: &&[u8]| {
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic)
    };
    let name = found.name.filter(|_| has_name).filter(is_good);
    is_json_rpc.then_some(Call { method, name })
}

/// What was found so far.
#[derive(Default)]
struct Found<'b> {
    version: Option<&'b [u8]>,
    method: Option<&'b [u8]>,
    name: Option<&'b [u8]>,
}

impl<'b> Found<'b> {
    /// Says whether the message ended within what there was to look at.
    fn look(&mut self, tokens: Tokens<'b>) -> bool {
        let (mut depth, mut in_params, mut key) = (0_usize, false, None::<&[u8]>);
        let mut tokens = tokens;
        while let Some(token) = tokens.next() {
            match token {
                Token::Text(text) if tokens.takes_colon() => {
                    key = Some(text);
                    continue;
                }
                Token::Text(text) => match (depth, key) {
                    (1, Some(b"jsonrpc")) => self.version = Some(text),
                    (1, Some(b"method")) => self.method = Some(text),
                    (2, Some(b"name")) if in_params => self.name = Some(text),
                    _ => {}
                },
                Token::Open(byte) => {
                    depth += 1;
                    in_params |= depth == 2 && byte == b'{' && key == Some(b"params");
                }
                Token::Close => {
                    depth = depth.saturating_sub(1);
                    in_params &= depth > 1;
                    if depth == 0 {
                        return true;
                    }
                }
                Token::Other => {}
            }
            key = None;
        }
        false
    }
}

/// A piece of JSON, as far as it is told apart here.
enum Token<'b> {
    /// A string as it stands, its escapes left as they are.
    Text(&'b [u8]),
    Open(u8),
    Close,
    /// A number, a word, a comma.
    Other,
}

/// The pieces of a text, up to where it is cut.
struct Tokens<'b>(&'b [u8]);

impl<'b> Iterator for Tokens<'b> {
    type Item = Token<'b>;

    fn next(&mut self) -> Option<Token<'b>> {
        self.skip_blanks();
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(match first {
            b'"' => Token::Text(self.text()?),
            b'{' | b'[' => Token::Open(*first),
            b'}' | b']' => Token::Close,
            _ => Token::Other,
        })
    }
}

impl<'b> Tokens<'b> {
    fn skip_blanks(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    /// The rest of a string; None where its end is not there.
    fn text(&mut self) -> Option<&'b [u8]> {
        let mut at = 0;
        loop {
            let step = self.0[at..].iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
            at += step;
            if self.0[at] == b'"' {
                let text = &self.0[..at];
                self.0 = &self.0[at + 1..];
                return Some(text);
            }
            at = (at + 2).min(self.0.len());
        }
    }

    fn takes_colon(&mut self) -> bool {
        self.skip_blanks();
        match self.0.split_first() {
            Some((b':', rest)) => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = r#"{"method":"tools/call","params":{"name":"add","arguments":{"name":"x",
        "a":[1,{"name":"y"}]},"_meta":null},"jsonrpc":"2.0","id":1}"#;

    fn told(body: &str) -> Option<String> {
        call(body.as_bytes()).map(|Call { method, name }| {
            let name = name.map(|name| String::from_utf8_lossy(name).into_owned());
            format!("{method} {}", name.unwrap_or_default()).trim_end().to_owned()
        })
    }

    #[test]
    fn messages() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        let longer = "x".repeat(LOOK_BYTES);
        for (body, expected) in [
            (CALL, Some("tools/call add")),
            (r#" {"jsonrpc" : "2.0", "id": 1, "method" : "initialize"}"#, Some("initialize")),
            ("7a;x=y\r\n{\"jsonrpc\":\"2.0\",\"method\":\"ping\"}\r\n", Some("ping")),
            (
                r#"{"jsonrpc":"2.0","method":"tools/list","params":{"name":"no"}}"#,
                Some("tools/list"),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"prompts/get","params":{"name":"a b"}}"#,
                Some("prompts/get"),
            ),
            (
                &format!(
                    r#"{{"jsonrpc":"2.0","method":"tools/call","params":{{"name":"{long}"}}}}"#
                ),
                Some("tools/call"),
            ),
            // A name that stands elsewhere is another one.
            (
                r#"{"jsonrpc":"2.0","method":"tools/call","name":"x","params":{"a":{"name":"y"}}}"#,
                Some("tools/call"),
            ),
            (
                r#"{"jsonrpc":"2.0","method":"tools/call","params":[{"name":"y"}]}"#,
                Some("tools/call"),
            ),
            (
                r#"{"jsonrpc":"2.0","params":{"method":"ping"},"method":"tools/list"}"#,
                Some("tools/list"),
            ),
            (r#"{"a\"b\\":"}{","jsonrpc":"2.0","method":"ping"}"#, Some("ping")),
            // What comes too late is not known; what is cut behind the method is.
            (
                &format!(r#"{{"method":"tools/call","params":{{"x":"{longer}","name":"add"}}}}"#),
                Some("tools/call"),
            ),
            (&format!(r#"{{"params":{{"x":"{longer}"}},"method":"ping"}}"#), None),
            // Not MCP, or not JSON.
            (r#"{"jsonrpc":"2.0","method":"eth_call"}"#, None),
            (r#"{"jsonrpc":"1.0","method":"ping"}"#, None),
            (r#"{"method":"ping"}"#, None),
            (r#"[{"jsonrpc":"2.0","method":"ping"}]"#, None),
            (r#"{"jsonrpc":"2.0","method":["ping"]}"#, None),
            ("", None),
            ("{", None),
            ("method=ping", None),
        ] {
            assert_eq!(told(body).as_deref(), expected, "{body}");
        }
    }

    /// Wherever it is cut, what is told is true, and once the method is there it stays.
    #[test]
    fn cut_at_every_place() {
        for len in 0..=CALL.len() {
            let found = told(&CALL[..len]);
            let method = CALL.find("call\"").unwrap() + 5;
            let name = CALL.find("add\"").unwrap() + 4;
            let expected = match len {
                len if len < method => None,
                len if len < name => Some("tools/call"),
                _ => Some("tools/call add"),
            };
            assert_eq!(found.as_deref(), expected, "{}", &CALL[..len]);
        }
    }

    #[test]
    fn whatever_comes_is_read_to_its_end() {
        let mut seed = 7_u64;
        let alphabet = br#"{}[]":,\ methodparamsname20.jsonrpc/"#;
        for _ in 0..20_000 {
            let mut body = vec![b'{'];
            for _ in 0..40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                body.push(alphabet[usize::try_from(seed >> 33).unwrap() % alphabet.len()]);
            }
            let _ = call(&body);
        }
        assert_eq!(call(&[b'['; 100_000]), None);
        assert_eq!(call(&[b'{'; 100_000]), None);
    }
}
