//! The questions that the Hub's client asks: redirects followed by hand, so that the token stays with the endpoint; bounds on time, hops and
//! bytes.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use sha2::{Digest, Sha256};

/// Most redirects that are followed.
const HOPS: usize = 10;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Most bytes of an answer that is read as text.
const TEXT: u64 = 64 << 20;
/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// Why there is no answer, or no more of it.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server refused.
    Status(u16),
    /// There was no connection.
    Connection(String),
    /// There was a connection, and nothing came for so long.
    Silent(Duration),
    /// It ended in the middle.
    Cut(String),
    /// The answer is not one of the Hub.
    Answer(String),
}

impl Failure {
    /// The status that the server answered with, if it did.
    pub(super) const fn status(&self) -> Option<u16> {
        if let Self::Status(code) = self { Some(*code) } else { None }
    }
}

/// Asks one endpoint.
pub(super) struct Client {
    agent: ureq::Agent,
    endpoint: String,
    token: Option<String>,
    silent: Duration,
}

/// What a server said, and its body.
pub(super) struct Answer {
    /// The version of the model.
    pub commit: Option<String>,
    /// The name of the content; the sha256 of large files.
    pub tag: Option<String>,
    /// Bytes of the whole file.
    pub total: Option<u64>,
    /// First byte of the body.
    pub from: u64,
    silent: Duration,
    body: Option<Box<dyn Read + Send>>,
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> Option<&str> {
    let host = url.find("://")? + 3;
    Some(&url[..url[host..].find(['/', '?', '#']).map_or(url.len(), |end| host + end)])
}

/// The name and password that an address gives, up to the `@`.
fn user(url: &str) -> Option<&str> {
    let base = origin(url)?;
    base[base.find("://")? + 3..].rsplit_once('@').map(|(user, _)| user)
}

/// A path, which begins with `/`, without the folders `.` and `..`.
fn without_dots(path: &str) -> String {
    let (path, query) = path.split_at(path.find(['?', '#']).unwrap_or(path.len()));
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}{query}", parts.join("/"))
}

/// Where a redirect leads.
fn redirected(url: &str, location: &str) -> Option<String> {
    let base = origin(url)?;
    let scheme = &base[..base.find("://")?];
    Some(if location.starts_with("http://") || location.starts_with("https://") {
        location.into()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{base}{}", without_dots(location))
    } else if location.starts_with('?') {
        format!("{}{location}", url.split(['?', '#']).next()?)
    } else if location.split(['/', '?', '#']).next()?.contains(':') {
        return None; // Another scheme.
    } else {
        let folder = url[base.len()..].split(['?', '#']).next()?.rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{base}{}", without_dots(&format!("{folder}/{location}")))
    })
}

impl Client {
    /// Of an endpoint that may be silent for so long.
    pub(super) fn new(endpoint: &str, token: Option<String>, silent: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(0) // A connection that is kept may be one that the server has closed.
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(silent))
            .build();
        Self { agent: config.into(), endpoint: endpoint.into(), token, silent }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A text without the password that the endpoint may have.
    pub(super) fn masked(&self, text: &str) -> String {
        user(&self.endpoint).map_or_else(|| text.to_string(), |user| text.replace(user, "***"))
    }

    pub(super) const fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Asks for the bytes of `url` from `from` on. The token goes to the endpoint's own origin only, wherever a redirect leads.
    pub(super) fn get(&self, url: &str, from: u64) -> Result<Answer, Failure> {
        let (mut url, mut commit, mut tag, mut linked, mut bare) = (url.to_string(), None, None, None, false);
        for _ in 0..=HOPS {
            let mut request = self.agent.get(&url).header("accept-encoding", "identity");
            if !bare {
                request = request.header("range", format!("bytes={from}-"));
            }
            if let Some(token) = self.token.as_ref().filter(|_| origin(&url).is_some() && origin(&url) == origin(&self.endpoint)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let response = request.call().map_err(|e| match e {
                ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => Failure::Connection(e.to_string()),
                ureq::Error::Timeout(_) => Failure::Silent(self.silent),
                e => Failure::Connection(e.to_string()),
            })?;
            let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_string);
            let number = |name: &str| text(name).and_then(|value| value.trim().parse::<u64>().ok());
            let unquoted = |tag: String| tag.trim_start_matches("W/").trim_matches('"').to_string();
            commit = commit.or_else(|| text("x-repo-commit"));
            tag = text("x-linked-etag").map(unquoted).or(tag);
            linked = linked.or_else(|| number("x-linked-size"));
            let status = response.status().as_u16();
            if (300..400).contains(&status) {
                tag = tag.or_else(|| text("etag").map(unquoted));
                let location =
                    text("location").ok_or_else(|| Failure::Answer(format!("it answered {status} without saying where to go")))?;
                let next = redirected(&url, &location).ok_or_else(|| Failure::Answer(format!("a redirect to `{location}`")))?;
                if url.starts_with("https://") && !next.starts_with("https://") {
                    return Err(Failure::Answer(format!("a redirect from https to `{next}`")));
                }
                url = next;
                continue;
            }
            if status == 416 && from == 0 && !bare {
                bare = true; // Of an empty file there is not even a first byte.
                continue;
            }
            let ranged = text("content-range").and_then(|range| {
                let (span, total) = range.strip_prefix("bytes ")?.split_once('/')?;
                Some((span.split_once('-')?.0.parse::<u64>().ok()?, total.parse::<u64>().ok()))
            });
            let (start, total) = match (status, ranged) {
                (206, Some((start, total))) => (start, total.or_else(|| Some(start + number("content-length")?))),
                (206, None) => return Err(Failure::Answer("a part of a file without Content-Range".into())),
                (200, _) => (0, number("content-length")),
                (code, _) => return Err(Failure::Status(code)),
            };
            if let Some(coding) = text("content-encoding").filter(|coding| !coding.trim().eq_ignore_ascii_case("identity")) {
                return Err(Failure::Answer(format!("content in the coding `{coding}`, which nobody asked for")));
            }
            if let (Some(linked), Some(total)) = (linked, total)
                && linked != total
            {
                return Err(Failure::Answer(format!("{total} bytes of a file that is said to have {linked}")));
            }
            let tag = tag.or_else(|| text("etag").map(unquoted));
            let body: Box<dyn Read + Send> = Box::new(response.into_body().into_reader());
            return Ok(Answer { commit, tag, total: linked.or(total), from: start, silent: self.silent, body: Some(body) });
        }
        Err(Failure::Answer(format!("more than {HOPS} redirects")))
    }
}

impl Answer {
    /// The sha256 that the content should have, where the tag is one.
    pub(super) fn sha256(&self) -> Option<String> {
        self.tag.clone().filter(|tag| tag.len() == 64 && tag.bytes().all(|b| b.is_ascii_hexdigit())).map(|tag| tag.to_lowercase())
    }

    /// Lets go of the body.
    pub(super) fn close(&mut self) {
        self.body = None;
    }

    /// Gives the body to `take`, piece by piece, until it takes no more; at most `limit` bytes: what comes beyond what was announced is not
    /// read.
    pub(super) fn read(&mut self, limit: Option<u64>, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), Failure> {
        let Some(body) = self.body.take() else { return Ok(()) };
        // Read on a thread of its own: a server that falls silent must not hold the program.
        let (send, pieces) = mpsc::sync_channel::<io::Result<Vec<u8>>>(4);
        let (limit, silent) = (limit.unwrap_or(u64::MAX), self.silent);
        let read = move || {
            let mut body = body.take(limit);
            loop {
                let mut piece = vec![0; CHUNK];
                let got = body.read(&mut piece).map(|n| {
                    piece.truncate(n);
                    piece
                });
                let last = got.as_ref().map_or(true, Vec::is_empty);
                if send.send(got).is_err() || last {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("igq-hub".into()).spawn(read).map_err(|e| Failure::Cut(e.to_string()))?;
        loop {
            match pieces.recv_timeout(silent) {
                Ok(Ok(piece)) if piece.is_empty() => return Ok(()),
                Ok(Ok(piece)) => take(&piece).map_err(|e| Failure::Cut(e.to_string()))?,
                Ok(Err(e)) => return Err(Failure::Cut(e.to_string())),
                Err(mpsc::RecvTimeoutError::Timeout) => return Err(Failure::Cut(format!("nothing came for {} s", silent.as_secs_f64()))),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// The body as text.
    pub(super) fn text(&mut self) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        self.read(Some(TEXT), &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        String::from_utf8(bytes).map_err(|e| Failure::Answer(e.to_string()))
    }
}

/// The sha256 of a file, in small letters.
pub(super) fn sha256_of(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher, mut piece) = (File::open(path)?, Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut piece)? {
            0 => {
                return Ok(hasher.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")));
            }
            n => hasher.update(&piece[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_and_redirects() {
        assert_eq!(origin("http://a:1/b?c"), Some("http://a:1"));
        assert_eq!(origin("http://a"), Some("http://a"));
        for (location, to) in [
            ("/x", "http://a:1/x"),
            ("//b/x", "http://b/x"),
            ("https://c/x", "https://c/x"),
            ("x", "http://a:1/m/x"),
            ("../../y/./z?../q", "http://a:1/y/z?../q"),
            ("?r=1", "http://a:1/m/n?r=1"),
        ] {
            assert_eq!(redirected("http://a:1/m/n?q=/", location).unwrap(), to);
        }
    }
}
