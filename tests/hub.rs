//! Models from the Hub, against a small server on loopback that answers as the Hub does, and badly on request.

#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assert_cmd::Command;
use candle_core::{DType, Device, Tensor};
use common::golden;

const ID: &str = "someone/tiny-vit";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// How the server answers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Well,
    /// The connection ends in the middle of a large file.
    Cut,
    /// Fewer bytes than the size that was said.
    Short,
    /// A server that does not know the header `Range`.
    Whole,
    /// It takes two seconds over the second half of a large file.
    Slow,
    /// This status to every question without the token `hf_right`.
    Gated(u16),
    /// This status to every question.
    Status(u16),
}

struct Server {
    address: String,
    manner: Arc<Mutex<Manner>>,
    /// The request lines that came.
    asked: Arc<Mutex<Vec<String>>>,
    cache: tempfile::TempDir,
}

impl Server {
    fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (manner, asked) = (Arc::new(Mutex::new(Manner::Well)), Arc::<Mutex<Vec<String>>>::default());
        let (theirs, log) = (Arc::clone(&manner), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(&stream, *theirs.lock().unwrap(), &files, &log);
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        Self { address, manner, asked, cache: tempfile::tempdir().unwrap() }
    }

    /// The files of a golden folder.
    fn of(name: &str) -> Self {
        let files = fs::read_dir(golden(name)).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_string();
        Self::new(files.map(|path| (name(&path), fs::read(&path).unwrap())).collect())
    }

    fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// The request lines since the last time.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    fn igq(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("igq").unwrap();
        for variable in
            ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
        {
            command.env_remove(variable);
        }
        command.env("HF_HOME", self.cache.path()).env("HF_ENDPOINT", format!("http://{}/", self.address)).args(args);
        command
    }

    /// Where `igq fetch` says that the model is.
    fn fetch(&self) -> PathBuf {
        let output = self.igq(&["fetch", ID]).assert().success().get_output().stdout.clone();
        PathBuf::from(String::from_utf8(output).unwrap().trim_end())
    }

    /// What `igq fetch` says when it cannot.
    fn refuses(&self, more: &[&str], words: &[&str]) {
        let error = self.igq(&[&["fetch", ID], more].concat()).assert().code(1).get_output().stderr.clone();
        let error = String::from_utf8(error).unwrap();
        for word in [&[ID], words].concat() {
            assert!(error.contains(word) && !error.contains("panicked"), "`{word}` is not in: {error}");
        }
    }
}

/// Answers one request as the Hub does: `resolve` redirects large files to another path, `Range` is obeyed, sizes and tags are headers.
fn answer(mut stream: &TcpStream, manner: Manner, files: &BTreeMap<String, Vec<u8>>, log: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let headers: BTreeMap<String, String> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(key, value)| (key.to_lowercase(), value.to_string())))
        .collect();
    let path = request.split(' ').nth(1).unwrap_or_default().to_string();
    log.lock().unwrap().push(format!("{path} {}", headers.get("range").map_or("", String::as_str)));
    let mut send = |status: &str, more: &str, body: &[u8], sent: usize| {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n", body.len());
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body[..sent]));
    };
    let right = headers.get("authorization").is_some_and(|token| token == "Bearer hf_right");
    match manner {
        Manner::Status(code) => return send(&format!("{code} Sorry"), "", b"{}", 2),
        Manner::Gated(code) if !right => return send(&format!("{code} Sorry"), "", b"{}", 2),
        _ => {}
    }
    if path.starts_with(&format!("/api/models/{ID}/")) {
        let names: Vec<String> = files.keys().map(|name| format!("{{\"rfilename\":\"{name}\"}}")).collect();
        let body = format!("{{\"sha\":\"{COMMIT}\",\"siblings\":[{}]}}", names.join(","));
        return send("200 OK", "Content-Type: application/json\r\n", body.as_bytes(), body.len());
    }
    let resolve = [format!("/{ID}/resolve/main/"), format!("/{ID}/resolve/{COMMIT}/")];
    let stored = path.strip_prefix("/stored/");
    let name = stored.or_else(|| resolve.iter().find_map(|start| path.strip_prefix(start.as_str())));
    let Some((name, bytes)) = name.and_then(|name| files.get_key_value(name)) else {
        return send("404 Not Found", "X-Error-Code: EntryNotFound\r\n", b"Entry not found", 15);
    };
    let large = name.ends_with(".safetensors");
    let tags = format!("ETag: \"tag-of-{}\"\r\nX-Repo-Commit: {COMMIT}\r\nAccept-Ranges: bytes\r\n", name.replace('.', "-"));
    if large && stored.is_none() {
        let linked = format!(
            "X-Linked-Size: {}\r\nX-Linked-ETag: \"linked-{}\"\r\nLocation: /stored/{name}\r\n",
            bytes.len(),
            name.replace('.', "-")
        );
        return send("302 Found", &(tags + &linked), b"", 0);
    }
    let tags = if large { tags + &format!("X-Linked-ETag: \"linked-{}\"\r\n", name.replace('.', "-")) } else { tags };
    let range = headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (from, to) = range.map_or((0, bytes.len()), |(from, to)| {
        (from.parse().unwrap(), to.parse().map_or(bytes.len(), |last: usize| (last + 1).min(bytes.len())))
    });
    let question = to - from == 1;
    let content = format!("Content-Range: bytes {from}-{}/{}\r\n", to - 1, bytes.len());
    let part = &bytes[from..to];
    match manner {
        Manner::Cut if large && !question => send("206 Partial Content", &(tags + &content), part, part.len() / 2),
        Manner::Slow if large && !question => {
            send("206 Partial Content", &(tags + &content), part, part.len() / 2);
            std::thread::sleep(Duration::from_secs(2));
            let _ = stream.write_all(&part[part.len() / 2..]);
        }
        Manner::Short if large && !question => send("206 Partial Content", &(tags + &content), &part[..part.len() - 8], part.len() - 8),
        Manner::Whole if large && !question => send("200 OK", &tags, bytes, bytes.len()),
        _ => send("206 Partial Content", &(tags + &content), part, part.len()),
    }
}

fn same(folder: &Path, name: &str) {
    for file in ["model.safetensors", "config.json", "preprocessor_config.json"] {
        let original = golden(&format!("{name}/{file}"));
        assert_eq!(fs::read(folder.join(file)).ok(), fs::read(original).ok(), "{file}");
    }
}

/// Whether the cache holds anything that would be taken for the weights.
fn weights(server: &Server) -> bool {
    let folder = server.cache.path().join("hub").join("models--someone--tiny-vit");
    folder.join("blobs/linked-model-safetensors-model.safetensors").exists()
        || folder.join("snapshots").join(COMMIT).join("model.safetensors").exists()
}

#[test]
fn programs_that_download_at_once_all_get_the_files() {
    for _ in 0..5 {
        let server = Server::of("hf_vit");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| server.igq(&["fetch", ID]).assert().success());
            }
        });
        same(&server.fetch(), "hf_vit");
    }
}

#[test]
fn a_model_is_downloaded_once_and_verifies_from_the_cache_with_the_server_gone() {
    let mut server = Server::of("hf_vit");
    let expected = golden("hf_vit/expected.safetensors");
    let verify = ["verify", ID, "--expected", expected.to_str().unwrap()];
    let said = server.igq(&verify).assert().success().get_output().stdout.clone();
    assert!(String::from_utf8(said).unwrap().starts_with("tiny-vit against"));
    assert!(
        server
            .asked()
            .iter()
            .any(|line| line.starts_with("/stored/model.safetensors bytes=0- ") || line == "/stored/model.safetensors bytes=0-")
    );
    same(&server.fetch(), "hf_vit");
    assert_eq!(server.asked(), Vec::<String>::new(), "all of it was in the cache");

    server.address = "127.0.0.1:9".into();
    server.igq(&verify).assert().success();
    server.igq(&["fetch", ID, "--offline"]).assert().success();
    server.igq(&["inspect", ID]).env("HF_HUB_OFFLINE", "1").assert().success();
    server.igq(&["run", "--model", ID, "--offline", "--calibration-images", "1", "--no-cache"]).assert().success();
}

#[test]
fn what_a_model_does_not_have_is_asked_for_once() {
    let server = Server::of("timm_vit");
    same(&server.fetch(), "timm_vit");
    assert!(server.asked().iter().any(|line| line.contains("/preprocessor_config.json")));
    server.fetch();
    assert_eq!(server.asked(), Vec::<String>::new());
    // A cache that another tool has filled, without a word on the preprocessor: the network is asked, and done without.
    fs::remove_dir_all(server.cache.path().join("hub/models--someone--tiny-vit/.no_exist")).unwrap();
    server.behave(Manner::Status(503));
    server.fetch();
    assert!(server.asked().iter().all(|line| line.starts_with(&format!("/{ID}/resolve/{COMMIT}/preprocessor_config.json"))));
    server.igq(&["fetch", ID, "--offline"]).assert().success();
}

#[test]
fn shards_come_with_their_index() {
    let whole = common::tensors(golden("hf_vit/model.safetensors"));
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = whole.into_iter().partition::<std::collections::HashMap<_, _>, _>(|(key, _)| key.contains("layer.1"));
    let mut files = BTreeMap::new();
    let mut map = serde_json::Map::new();
    for (shard, part) in [("model-00001-of-00002.safetensors", one), ("model-00002-of-00002.safetensors", two)] {
        map.extend(part.keys().map(|key| (key.clone(), shard.into())));
        candle_core::safetensors::save(&part, folder.path().join(shard)).unwrap();
        files.insert(shard.to_string(), fs::read(folder.path().join(shard)).unwrap());
    }
    files.insert("model.safetensors.index.json".into(), serde_json::json!({ "weight_map": map }).to_string().into_bytes());
    files.insert("config.json".into(), fs::read(golden("hf_vit/config.json")).unwrap());
    let server = Server::new(files.clone());
    let expected = golden("hf_vit/expected.safetensors");
    server.igq(&["verify", ID, "--expected", expected.to_str().unwrap()]).assert().success();

    let lying = serde_json::json!({ "weight_map": {"a": "../../../../outside"} }).to_string();
    files.insert("model.safetensors.index.json".into(), lying.into_bytes());
    let server = Server::new(files);
    let error = server.igq(&["fetch", ID]).assert().code(1).get_output().stderr.clone();
    assert!(String::from_utf8(error).unwrap().contains("expected the shard `../../../../outside` in the same folder"));
    assert!(!server.asked().iter().any(|line| line.contains("outside")), "a list from elsewhere cannot name files outside");
}

#[test]
fn a_cut_connection_leaves_nothing_that_is_taken_for_the_file_and_goes_on() {
    let server = Server::of("hf_vit");
    server.behave(Manner::Cut);
    server.refuses(&[], &["model.safetensors", "run it again"]);
    assert!(!weights(&server));
    server.refuses(&["--offline"], &["nor a complete model"]);
    server.asked();
    server.behave(Manner::Well);
    same(&server.fetch(), "hf_vit");
    let resumed = |line: &String| line.starts_with("/stored/model.safetensors bytes=") && !line.contains("bytes=0-");
    assert!(server.asked().iter().any(resumed), "the second half only");
}

#[test]
fn a_wrong_size_leaves_nothing_that_is_taken_for_the_file() {
    let server = Server::of("hf_vit");
    server.behave(Manner::Short);
    server.refuses(&[], &["expected 387540 bytes of model.safetensors, received 387532"]);
    assert!(!weights(&server));
    // Half of it, and then all of it again behind that half.
    server.behave(Manner::Cut);
    server.refuses(&[], &["run it again"]);
    // A server that does not know ranges: all of it comes again, from the start.
    server.behave(Manner::Whole);
    same(&server.fetch(), "hf_vit");
}

#[cfg(unix)]
#[test]
fn the_screen_says_how_much_has_come_and_can_be_left_meanwhile() {
    use common::terminal::Terminal;
    // A tensor beside the network's makes the file large enough to be told of; the model leaves it aside.
    let large = common::edited("hf_vit", |mut t| {
        t.insert("decoder.beside".into(), Tensor::zeros(8_000_000, DType::F32, &Device::Cpu).unwrap());
        t
    });
    let files = ["model.safetensors", "config.json", "preprocessor_config.json"];
    let server = Server::new(files.map(|name| (name.to_string(), fs::read(large.path().join(name)).unwrap())).into());
    server.behave(Manner::Slow);
    let (home, endpoint) = (server.cache.path().to_str().unwrap(), format!("http://{}/", server.address));
    let variables = [("HF_HOME", home), ("HF_ENDPOINT", endpoint.as_str()), ("HF_HUB_OFFLINE", ""), ("HTTP_PROXY", ""), ("http_proxy", "")];
    let open = || Terminal::start_program(env!("CARGO_BIN_EXE_igq").as_ref(), 100, 30, &["--model", ID], &variables);
    let opening = |s: &str| s.contains("opening someone/tiny-vit") && s.contains("MB of model.safetensors received") && s.contains('%');
    let mut terminal = open();
    terminal.wait_for("share of the file", opening);
    terminal.press(b"q");
    terminal.left_cleanly();
    assert!(!weights(&server), "it left before the file was there");
    let mut terminal = open();
    terminal.wait_for("share of the file", opening);
    terminal.wait_for("filled overview", |s| s.contains("blocks.0.") && !s.contains("opening"));
    terminal.press(b"q");
    terminal.left_cleanly();
}

#[test]
fn who_may_not_is_told_what_to_do() {
    let server = Server::of("hf_vit");
    for code in [401, 403] {
        server.behave(Manner::Gated(code));
        server.refuses(&[], &[&code.to_string(), "gated or private", "set HF_TOKEN"]);
    }
    let wrong = server.igq(&["fetch", ID]).env("HF_TOKEN", "hf_wrong").assert().code(1).get_output().stderr.clone();
    let wrong = String::from_utf8(wrong).unwrap();
    assert!(wrong.contains("this token (403)") && !wrong.contains("hf_wrong"), "{wrong}");
    fs::write(server.cache.path().join("token"), "hf_right\n").unwrap();
    same(&server.fetch(), "hf_vit");
}

#[test]
fn what_is_not_there_is_said() {
    let server = Server::of("hf_vit");
    server.behave(Manner::Status(404));
    server.refuses(&[], &["no such file or folder, nor such a model", "check the name"]);
    server.behave(Manner::Status(500));
    server.refuses(&[], &["answered 500"]);
    server.refuses(&["--offline"], &["nor a complete model of this id", "go on without --offline"]);
    let gone = Server { address: "127.0.0.1:9".into(), ..Server::of("hf_vit") };
    gone.refuses(&[], &["no connection to http://127.0.0.1:9", "check the network"]);
    let pickle = BTreeMap::from([("config.json".to_string(), b"{}".to_vec()), ("pytorch_model.bin".to_string(), b"PK".to_vec())]);
    Server::new(pickle).refuses(&[], &["expected model.safetensors", "pytorch_model.bin, a pickle"]);
    let error = server.igq(&["fetch", "no-owner"]).assert().code(2).get_output().stderr.clone();
    assert!(String::from_utf8(error).unwrap().contains("OWNER/NAME"));
}

#[test]
fn ids_are_told_from_files() {
    for id in ["timm/deit_tiny_patch16_224.fb_in1k", "google/vit-base-patch16-224", "a/b"] {
        assert!(igq::model::is_hub_id(id), "{id}");
    }
    for file in
        ["model", "a/b/c", "./model", "../model", "/model", "a/", "weights/model.safetensors", "a/b c", "a/..", "a/.hidden", "models/x.bin"]
    {
        assert!(!igq::model::is_hub_id(file), "{file}");
    }
    assert_eq!(igq::model::checkpoint::hub_id("/weights/model"), None, "the path of a folder that is not there");
    assert_eq!(igq::model::checkpoint::hub_id("weights/model/"), Some("weights/model".into()));
}

#[test]
fn older_variables_and_other_spellings_mean_the_same() {
    let server = Server::of("hf_vit");
    same(&server.fetch(), "hf_vit");
    let hub = server.cache.path().join("hub");
    let inspect = |id: &str, variables: &[(&str, &str)]| {
        let mut command = server.igq(&["inspect", id]);
        command.env_remove("HF_HOME").env("HF_ENDPOINT", "http://127.0.0.1:9").envs(variables.iter().copied()).assert().success();
    };
    let (hub, home) = (hub.to_str().unwrap(), server.cache.path().to_str().unwrap());
    inspect(ID, &[("HUGGINGFACE_HUB_CACHE", hub), ("HF_HUB_OFFLINE", "1")]);
    inspect(ID, &[("HF_HOME", home), ("TRANSFORMERS_OFFLINE", "1")]);
    for spelling in [
        "hf_hub:someone/tiny-vit",
        "hf-hub:someone/tiny-vit",
        "https://huggingface.co/someone/tiny-vit",
        "someone/tiny-vit/",
        "someone/tiny-vit@main",
    ] {
        inspect(spelling, &[("HF_HOME", home), ("HF_HUB_OFFLINE", "1")]);
    }
}
