//! What a hostile, poor or silent server of models may do, and what the environment of the Hub's tools means.

#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use assert_cmd::Command;
use common::golden;

const ID: &str = "someone/tiny-vit";
const COMMIT: &str = "X-Repo-Commit: 0123456789abcdef0123456789abcdef01234567\r\n";

/// A server that gives each request, with its first byte asked for, to `reply`; and the requests that came.
fn server(reply: impl Fn(&str, u64, &TcpStream) + Send + Sync + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, seen) = (listener.local_addr().unwrap().to_string(), Arc::<Mutex<Vec<String>>>::default());
    let (log, reply) = (Arc::clone(&seen), Arc::new(reply));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
            std::thread::spawn(move || {
                let request: Vec<String> =
                    BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let from =
                    request.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=")?.split('-').next()?.parse().ok());
                log.lock().unwrap().push(request.join("\n"));
                reply(request.first().map_or("", String::as_str).split(' ').nth(1).unwrap_or(""), from.unwrap_or(0), &stream);
                let _ = stream.shutdown(Shutdown::Both);
            });
        }
    });
    (address, seen)
}

fn send(mut stream: &TcpStream, head: &str, body: &[u8]) {
    let _ = stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes()).and_then(|()| stream.write_all(body));
}

fn file(path: &str) -> Option<Vec<u8>> {
    fs::read(golden(&format!("hf_vit/{}", path.rsplit('/').next()?))).ok().filter(|_| path.contains("/resolve/"))
}

fn missing(stream: &TcpStream) {
    send(stream, "404 No\r\nContent-Length: 0", b"");
}

/// A server of `golden/hf_vit` that gives the body as it is, with `head` before it, and only the share `cut` of the files `ending`.
fn says(head: &'static str, ending: &'static str, cut: f64) -> (String, Arc<Mutex<Vec<String>>>) {
    server(move |path, _, stream| match file(path) {
        Some(body) if path.ends_with(ending) => send(stream, head, &body[..(body.len() as f64 * cut) as usize]),
        Some(body) => send(stream, &format!("200 OK\r\nContent-Length: {}", body.len()), &body),
        None => missing(stream),
    })
}

fn command(args: &[&str], endpoint: &str, home: &Path) -> Command {
    let mut command = Command::cargo_bin("igq").unwrap();
    for variable in [
        "HF_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "XDG_CACHE_HOME",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(variable);
    }
    command.env("HF_HOME", home).env("HF_ENDPOINT", endpoint).args(args);
    command
}

fn run(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().unwrap(), said)
}

fn fetch(address: &str, home: &Path) -> (i32, String) {
    run(&mut command(&["fetch", ID], &format!("http://{address}"), home))
}

/// The files under a folder that would be taken for parts of a model.
fn taken(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let all = paths.flat_map(|path| if path.is_dir() { taken(&path) } else { vec![path] });
    all.filter(|path| path.extension().is_none_or(|ending| ending != "part" && ending != "lock")).collect()
}

fn same(folder: &str) {
    for name in ["model.safetensors", "config.json", "preprocessor_config.json"] {
        assert_eq!(fs::read(Path::new(folder).join(name)).ok(), fs::read(golden(&format!("hf_vit/{name}"))).ok(), "{name}");
    }
}

#[test]
fn what_nobody_vouches_for_is_checked_by_what_it_says_itself() {
    for (ending, said) in [("model.safetensors", "its header tells of 387540 bytes"), ("/config.json", "no whole JSON")] {
        let (address, _) = says("200 OK", ending, 0.7);
        let home = tempfile::tempdir().unwrap();
        let (code, text) = fetch(&address, home.path());
        assert!(code == 1 && text.contains(said), "{text}");
        assert!(!taken(home.path()).iter().any(|path| path.to_str().unwrap().contains(ending.trim_start_matches('/'))), "{ending}");
        let (address, _) = says("200 OK", ending, 1.0);
        let (code, text) = fetch(&address, home.path());
        assert_eq!(code, 0, "{text}");
        same(text.lines().last().unwrap());
    }
    // Chunks that end without the last one: the connection was cut.
    let (address, _) = server(|path, _, stream| match file(path) {
        Some(body) => {
            let half = &body[..body.len() / 2];
            let chunk = [format!("{:x}\r\n", half.len()).as_bytes(), half, b"\r\n"].concat();
            send(stream, "200 OK\r\nTransfer-Encoding: chunked", &chunk);
        }
        None => missing(stream),
    });
    let home = tempfile::tempdir().unwrap();
    let (code, text) = fetch(&address, home.path());
    assert!(code == 1 && text.contains("model.safetensors"), "{text}");
    assert_eq!(taken(home.path()), Vec::<PathBuf>::new());
    // A page of an error that comes as a file.
    let (address, _) = server(|_, _, stream| send(stream, "200 OK", b"<html><body>Sign in</body></html>"));
    let (code, text) = fetch(&address, home.path());
    assert!(code == 1 && text.contains("does not begin as a safetensors file"), "{text}");
    assert_eq!(taken(home.path()), Vec::<PathBuf>::new());
}

#[test]
fn bodies_without_end_and_absurd_sizes_end_at_once() {
    let endless = |mut stream: &TcpStream, first: &[u8]| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").and_then(|()| stream.write_all(first));
        let zeros = vec![b' '; 1 << 20];
        while stream.write_all(&zeros).is_ok() {}
    };
    let (address, _) = server(move |path, _, stream| endless(stream, &file(path).unwrap_or_default()));
    let (home, began) = (tempfile::tempdir().unwrap(), Instant::now());
    let (code, text) = fetch(&address, home.path());
    assert!(code == 1 && text.contains("more than the 387540 bytes that its header tells of"), "{text}");
    let (address, _) = server(move |path, _, stream| match path.rsplit('/').next() {
        Some("config.json") => endless(stream, b"{"),
        _ => file(path).map_or_else(|| missing(stream), |body| send(stream, &format!("200 OK\r\nContent-Length: {}", body.len()), &body)),
    });
    let (code, text) = fetch(&address, home.path());
    assert!(code == 1 && text.contains("config.json") && text.contains("more than 67108864 bytes"), "{text}");
    let (address, _) = says("200 OK\r\nContent-Length: 1000000000000000000", "model.safetensors", 1.0);
    let (code, text) = fetch(&address, tempfile::tempdir().unwrap().path());
    assert!(code == 1 && text.contains("free in"), "{text}");
    let (address, _) = says("200 OK\r\nContent-Encoding: gzip", "model.safetensors", 1.0);
    let (code, text) = fetch(&address, tempfile::tempdir().unwrap().path());
    assert!(code == 1 && text.contains("in the coding `gzip`"), "{text}");
    assert!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
}

#[test]
fn a_silent_server_is_left_after_the_time_that_the_user_gives() {
    let (address, _) = server(|_, _, _| std::thread::sleep(Duration::from_secs(20)));
    let home = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let (code, text) = run(command(&["fetch", ID], &format!("http://{address}"), home.path()).env("HF_HUB_DOWNLOAD_TIMEOUT", "1"));
    assert!(code == 1 && text.contains("sent nothing for 1 s") && text.contains("HF_HUB_DOWNLOAD_TIMEOUT"), "{text}");
    assert!(!text.contains("no connection"), "{text}");
    // Silent in the middle of a file: it goes on later from there.
    let silent = Arc::new(Mutex::new(true));
    let still = Arc::clone(&silent);
    let (address, seen) = server(move |path, from, stream| {
        let Some(body) = file(path) else { return missing(stream) };
        let head = format!(
            "206 Part\r\nETag: \"one-tag\"\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}",
            body.len() as u64 - from,
            body.len() - 1,
            body.len()
        );
        let part = &body[from as usize..];
        if path.ends_with(".safetensors") && *still.lock().unwrap() {
            send(stream, &head, &part[..part.len() / 2]);
            std::thread::sleep(Duration::from_secs(20));
        } else {
            send(stream, &head, part);
        }
    });
    let (code, text) = run(command(&["fetch", ID], &format!("http://{address}"), home.path()).env("HF_HUB_DOWNLOAD_TIMEOUT", "1"));
    assert!(code == 1 && text.contains("nothing came for 1 s") && text.contains("goes on"), "{text}");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    *silent.lock().unwrap() = false;
    let (code, text) = fetch(&address, home.path());
    assert_eq!(code, 0, "{text}");
    same(text.lines().last().unwrap());
    let half = format!("bytes={}-", fs::metadata(golden("hf_vit/model.safetensors")).unwrap().len() / 2);
    assert!(seen.lock().unwrap().iter().any(|request| request.contains(&half)), "it went on");
}

#[test]
fn tags_of_every_form_and_ranges_that_are_refused() {
    for tag in ["ETag: W/\"weak\"\r\n", "ETag: bare\r\n", "ETag: \"quoted\"\r\n", ""] {
        let refused = Arc::new(Mutex::new(0));
        let count = Arc::clone(&refused);
        let (address, _) = server(move |path, from, stream| {
            let Some(body) = file(path) else { return missing(stream) };
            let mut count = count.lock().unwrap();
            let head = format!("200 OK\r\n{tag}{COMMIT}Content-Length: {}", body.len());
            if from > 0 {
                *count += 1;
                return send(stream, "416 No such range\r\nContent-Length: 0", b"");
            }
            if path.ends_with(".safetensors") && *count == 0 {
                *count += 1;
                return send(stream, &head, &body[..1000]); // Cut.
            }
            send(stream, &head, &body);
        });
        let home = tempfile::tempdir().unwrap();
        assert_eq!(fetch(&address, home.path()).0, 1);
        let (code, text) = fetch(&address, home.path());
        assert_eq!(code, 0, "{tag}: {text}");
        same(text.lines().last().unwrap());
        assert_eq!(*refused.lock().unwrap(), if tag.is_empty() { 1 } else { 2 }, "a range was asked for where the file has a name");
    }
}

#[test]
fn an_endpoint_may_have_a_path_a_slash_and_a_password_and_redirects_may_be_relative() {
    let (address, seen) = server(|path, _, stream| match path.strip_prefix("/hub/prefix/") {
        Some(rest) if rest.contains("/resolve/main/") && rest.ends_with(".safetensors") => {
            send(stream, "302 Found\r\nLocation: ../../stored/resolve/model.safetensors\r\nContent-Length: 0", b"");
        }
        Some(rest) => {
            file(rest).map_or_else(|| missing(stream), |body| send(stream, &format!("200 OK\r\nContent-Length: {}", body.len()), &body));
        }
        None => missing(stream),
    });
    let home = tempfile::tempdir().unwrap();
    let (code, text) = run(&mut command(&["fetch", ID], &format!("http://{address}/hub/prefix/"), home.path()));
    assert_eq!(code, 0, "{text}: {:?}", seen.lock().unwrap());
    same(text.lines().last().unwrap());
    for address in [address.as_str(), "127.0.0.1:9"] {
        let (code, text) = run(&mut command(&["fetch", "a/other"], &format!("http://someone:hunter2@{address}/x"), home.path()));
        assert!(code == 1 && !text.contains("hunter2") && text.contains("***@127.0.0.1"), "{text}");
    }
}

#[test]
fn the_cache_is_found_wherever_the_variables_say() {
    let (address, _) = says("200 OK", "nothing", 1.0);
    let user = tempfile::tempdir().unwrap();
    let root = user.path();
    let endpoint = format!("http://{address}");
    for (name, value, at) in [
        ("XDG_CACHE_HOME", root.join("xdg").to_str().unwrap().to_string(), "xdg/huggingface/hub"),
        ("HF_HOME", "~/tilde".into(), "tilde/hub"),
        ("HF_HOME", "$HOME/dollar".into(), "dollar/hub"),
        ("HF_HUB_CACHE", "~/${PART}".into(), "piece"),
        ("HUGGINGFACE_HUB_CACHE", "~/older".into(), "older"),
        ("UNUSED", "1".into(), ".cache/huggingface/hub"),
    ] {
        let mut command = command(&["fetch", ID], &endpoint, root);
        let (code, text) = run(command.env_remove("HF_HOME").env("HOME", root).env("PART", "piece").env(name, &value));
        assert_eq!(code, 0, "{name}: {text}");
        assert!(Path::new(text.lines().last().unwrap()).starts_with(root.join(at)), "{name}={value}: {text}");
    }
    // The token of a file that is named.
    fs::write(root.join("secret"), "hf_named\n").unwrap();
    let (address, seen) = says("200 OK", "nothing", 1.0);
    let mut command = command(&["fetch", ID], &format!("http://{address}"), &root.join("fresh"));
    assert_eq!(run(command.env("HOME", root).env("HF_TOKEN_PATH", "~/secret")).0, 0);
    assert!(seen.lock().unwrap().iter().all(|request| request.contains("Bearer hf_named")));
}

#[test]
fn the_reason_is_told_where_the_cache_had_to_do() {
    let (address, _) = says("200 OK", "nothing", 1.0);
    let home = tempfile::tempdir().unwrap();
    let (_, folder) = fetch(&address, home.path());
    let folder = folder.lines().last().unwrap().to_string();
    fs::remove_file(Path::new(&folder).join("preprocessor_config.json")).unwrap();
    let (broken, _) = server(|_, _, stream| send(stream, "503 Later\r\nContent-Length: 0", b""));
    let (code, text) = fetch(&broken, home.path());
    assert!(code == 0 && text.contains("the cache is used, without preprocessor_config.json") && text.contains("answered 503"), "{text}");
    let (code, text) = run(&mut command(&["inspect", ID], &format!("http://{broken}"), home.path()));
    assert!(code == 0 && text.contains("the cache is used, without preprocessor_config.json"), "{text}");
}

#[test]
fn a_list_of_shards_lists_safetensors_alone() {
    let (address, seen) = server(|path, _, stream| {
        if path.ends_with("model.safetensors.index.json") {
            send(stream, "200 OK", br#"{"weight_map": {"a": "config.json"}}"#);
        } else {
            missing(stream);
        }
    });
    let home = tempfile::tempdir().unwrap();
    let (code, text) = fetch(&address, home.path());
    assert!(code == 1 && text.contains("found `config.json` listed as one") && !text.contains("download all shards"), "{text}");
    assert!(!seen.lock().unwrap().iter().any(|request| request.contains("/config.json")));
}

#[test]
fn spellings_of_browsers_and_revisions_with_slashes() {
    let (address, seen) = says("200 OK", "nothing", 1.0);
    let home = tempfile::tempdir().unwrap();
    let endpoint = format!("http://{address}");
    let own = format!("{endpoint}/{ID}/tree/main");
    for spelling in [
        "someone/tiny-vit/",
        "someone/tiny-vit@main",
        "https://huggingface.co/someone/tiny-vit/",
        "http://huggingface.co/someone/tiny-vit",
        "https://www.huggingface.co/someone/tiny-vit",
        "www.huggingface.co/someone/tiny-vit",
        "hf.co/someone/tiny-vit",
        "https://hf.co/someone/tiny-vit",
        "HTTPS://HuggingFace.co/someone/tiny-vit",
        "https://huggingface.co/someone/tiny-vit/tree/main",
        "https://huggingface.co/someone/tiny-vit/tree/main/",
        "https://huggingface.co/someone/tiny-vit/blob/main/config.json?download=true",
        "https://huggingface.co/someone/tiny-vit/resolve/main/model.safetensors",
        "https://huggingface.co/someone/tiny-vit?library=timm",
        "https://huggingface.co/someone/tiny-vit#usage",
        "hf-hub:someone/tiny-vit@main",
        own.as_str(),
    ] {
        let (code, text) = run(&mut command(&["fetch", spelling], &endpoint, home.path()));
        assert!(code == 0 && text.contains("models--someone--tiny-vit/snapshots/main"), "{spelling}: {text}");
    }
    seen.lock().unwrap().clear();
    for spelling in [
        "someone/tiny-vit@refs/pr/1",
        "https://huggingface.co/someone/tiny-vit/tree/refs%2Fpr%2F1",
        "https://hf.co/someone/tiny-vit/blob/refs/pr/1/config.json",
    ] {
        let (code, text) = run(&mut command(&["fetch", spelling], &endpoint, home.path()));
        assert!(code == 0 && text.contains("snapshots/refs--pr--1"), "{spelling}: {text}");
    }
    assert!(seen.lock().unwrap().iter().all(|request| request.contains("/resolve/refs%2Fpr%2F1/")), "{:?}", seen.lock().unwrap());
    for wrong in [
        "someone/tiny-vit/main",
        "someone/tiny-vit@../..",
        "someone/tiny-vit@a//b",
        "https://huggingface.co/datasets/someone/pictures",
        "https://example.com/someone/tiny-vit",
    ] {
        assert_eq!(run(&mut command(&["fetch", wrong], &endpoint, home.path())).0, 2, "{wrong}");
    }
}
