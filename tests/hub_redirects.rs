//! Where redirects may lead a download and what goes with it, and mirrors that say as little as they may.

#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use assert_cmd::Command;
use common::golden;

const ID: &str = "someone/tiny-vit";

fn same(folder: &Path, name: &str) {
    for file in ["model.safetensors", "config.json", "preprocessor_config.json"] {
        let original = golden(&format!("{name}/{file}"));
        assert_eq!(fs::read(folder.join(file)).ok(), fs::read(original).ok(), "{file}");
    }
}

/// A server that answers every request by `reply`, and keeps what it was sent.
fn odd_server(reply: impl Fn(&str, &TcpStream) + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, seen) = (listener.local_addr().unwrap().to_string(), Arc::<Mutex<Vec<String>>>::default());
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let request: Vec<String> = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            log.lock().unwrap().push(request.join("\n"));
            reply(request.first().map_or("", String::as_str), &stream);
            let _ = stream.shutdown(Shutdown::Both);
        }
    });
    (address, seen)
}

fn fetch_from(address: &str, cache: &Path, id: &str) -> (i32, String) {
    let mut command = Command::cargo_bin("igq").unwrap();
    for variable in ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(variable);
    }
    let command =
        command.env("HF_HOME", cache).env("HF_ENDPOINT", format!("http://{address}")).env("HF_TOKEN", "hf_secret").args(["fetch", id]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().unwrap(), said)
}

#[test]
fn the_token_stays_with_the_endpoint() {
    let (other, seen_there) = odd_server(|_, mut stream| drop(stream.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")));
    let to = format!("HTTP/1.1 302 Found\r\nLocation: http://{other}/stored\r\nContent-Length: 0\r\n\r\n");
    let (here, seen_here) = odd_server(move |_, mut stream| drop(stream.write_all(to.as_bytes())));
    let cache = tempfile::tempdir().unwrap();
    assert_eq!(fetch_from(&here, cache.path(), ID).0, 1);
    assert!(seen_here.lock().unwrap().iter().any(|request| request.contains("Bearer hf_secret")));
    let there = seen_there.lock().unwrap();
    assert!(!there.is_empty() && there.iter().all(|request| !request.to_lowercase().contains("authorization")), "{there:?}");
}

#[test]
fn redirects_without_end_or_aim_are_sentences() {
    for status in ["300 Several", "302 Found", "304 Same", "307 Elsewhere"] {
        let reply = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        let (address, _) = odd_server(move |_, mut stream| drop(stream.write_all(reply.as_bytes())));
        let cache = tempfile::tempdir().unwrap();
        let (code, said) = fetch_from(&address, cache.path(), ID);
        assert!(code == 1 && said.contains("without saying where to go"), "{said}");
    }
    let (address, seen) = odd_server(|request, mut stream| {
        let path = request.split(' ').nth(1).unwrap_or("/");
        drop(stream.write_all(format!("HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n").as_bytes()));
    });
    let cache = tempfile::tempdir().unwrap();
    let (code, said) = fetch_from(&address, cache.path(), ID);
    assert!(code == 1 && said.contains("redirects") && seen.lock().unwrap().len() <= 12, "{said}");
}

/// A server of the files of `golden/hf_vit` that says as little as a mirror may.
fn mirror(more: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    odd_server(move |request, mut stream| {
        let name = request.split(' ').nth(1).and_then(|path| path.rsplit('/').next()).unwrap_or_default().to_string();
        match fs::read(golden(&format!("hf_vit/{name}"))) {
            Ok(bytes) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{more}\r\n", bytes.len());
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes));
            }
            Err(_) => drop(stream.write_all(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")),
        }
    })
}

#[test]
fn mirrors_that_say_little_serve_and_wrong_content_does_not() {
    for more in ["", "X-Repo-Commit: 0123456789abcdef0123456789abcdef01234567\r\n", "ETag: \"plain-tag\"\r\n"] {
        // The last has the same tag for all files: it says nothing of the content.
        let (address, _) = mirror(more);
        let cache = tempfile::tempdir().unwrap();
        let (code, said) = fetch_from(&address, cache.path(), ID);
        assert_eq!(code, 0, "{said}");
        same(Path::new(said.lines().last().unwrap()), "hf_vit");
    }
    // A tag of 64 hexadecimal digits is the sha256 of the content.
    let wrong = "X-Linked-ETag: \"0000000000000000000000000000000000000000000000000000000000000000\"\r\n";
    let (address, _) = mirror(wrong);
    let cache = tempfile::tempdir().unwrap();
    let (code, said) = fetch_from(&address, cache.path(), ID);
    assert!(code == 1 && said.contains("sha256"), "{said}");
}
