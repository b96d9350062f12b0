//! Models by their id on the Hugging Face Hub: first the cache that all its tools share, then the network. The only file that knows of
//! the Hub; what it gives back is a folder like any other.

use std::cell::Cell;
use std::env;
use std::fs;
use std::path::{Component, Path, PathBuf};

use etcetera::home_dir;
use hf_hub::api::Progress as HubProgress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, CacheRepo, Repo, RepoType};

use super::shards::{INDEX, WEIGHTS, shards};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Bytes from which on it is worth saying how far a file is.
const LARGE: usize = 1_000_000;
/// Beside the weights, where the model has them.
const OPTIONAL: [&str; 2] = ["config.json", "preprocessor_config.json"];

/// The folder of the model `id` in the Hub's cache, downloaded before where it is not there yet. Obeys `HF_HUB_OFFLINE`, `HF_HOME`,
/// `HF_HUB_CACHE`, `HF_ENDPOINT` and `HF_TOKEN` as the Hub's own tools do.
///
/// # Errors
/// When the Hub cannot be reached, has no such model, wants a token, or the model has no safetensors.
pub fn fetch(id: &str, offline: bool, progress: &dyn Fn(Progress)) -> Result<PathBuf> {
    let hub = Hub::from_env(id, progress)?;
    let cached = hub.cached();
    // Other tools fetch what they need; without a configuration too much would have to be guessed.
    let usable = cached.clone().filter(|folder| Hub::has_all(folder, &OPTIONAL[..1]));
    if let Some(folder) = cached.as_ref().filter(|folder| Hub::has_all(folder, &OPTIONAL)) {
        return Ok(folder.clone());
    }
    if offline || offline_by_environment() {
        return usable.ok_or_else(|| {
            let problem = format!("no such file or folder, nor a complete model of this id in {}", hub.cache.path().display());
            Error::content(id, problem, "go on without --offline and HF_HUB_OFFLINE to download it")
        });
    }
    hub.download(cached.as_deref()).or_else(|e| usable.ok_or(e))
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn offline_by_environment() -> bool {
    variable("HF_HUB_OFFLINE").is_some_and(|value| ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str()))
}

struct Hub<'a> {
    id: &'a str,
    endpoint: String,
    cache: Cache,
    token: Option<String>,
    progress: &'a dyn Fn(Progress),
}

impl<'a> Hub<'a> {
    fn from_env(id: &'a str, progress: &'a dyn Fn(Progress)) -> Result<Self> {
        let folder = |name: &str| variable(name).map(PathBuf::from);
        let user = || Some(folder("XDG_CACHE_HOME").or_else(|| Some(home_dir().ok()?.join(".cache")))?.join("huggingface"));
        let home = folder("HF_HOME").or_else(user);
        let path = folder("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub")));
        let path = path.ok_or_else(|| Error::content(id, "no home folder, where the Hub's cache would be", "set HF_HOME to a folder"))?;
        let token_file = folder("HF_TOKEN_PATH").or_else(|| Some(home?.join("token")));
        let token = variable("HF_TOKEN").or_else(|| fs::read_to_string(token_file?).ok());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Ok(Self {
            id,
            endpoint: endpoint.trim_end_matches('/').into(),
            cache: Cache::new(path),
            token: token.map(|token| token.trim().to_string()).filter(|token| !token.is_empty()),
            progress,
        })
    }

    fn repo(&self, revision: &str) -> Repo {
        Repo::with_revision(self.id.into(), RepoType::Model, revision.into())
    }

    fn cache_repo(&self) -> CacheRepo {
        self.cache.repo(self.repo("main"))
    }

    /// The folder of the newest version that the cache knows of, if all its weights are there.
    fn cached(&self) -> Option<PathBuf> {
        let known = |file: &&str| self.cache_repo().get(file);
        let weights = [WEIGHTS, INDEX].iter().find_map(known)?;
        let folder = weights.parent()?.to_path_buf();
        let complete = weights.ends_with(WEIGHTS) || shards(&weights).ok()?.iter().all(|shard| folder.join(shard).is_file());
        complete.then_some(folder)
    }

    /// Whether each file is in the folder or known not to exist.
    fn has_all(folder: &Path, files: &[&str]) -> bool {
        files.iter().all(|file| folder.join(file).is_file() || Self::missing(folder, file).is_some_and(|mark| mark.is_file()))
    }

    /// Where the Hub's tools note that a version has no such file: `.no_exist/COMMIT/FILE` beside `snapshots/COMMIT`.
    fn missing(folder: &Path, file: &str) -> Option<PathBuf> {
        Some(folder.parent()?.parent()?.join(".no_exist").join(folder.file_name()?).join(file))
    }

    /// Downloads what is not there, weights first; `cached` is the folder of complete weights, whose version is kept.
    fn download(&self, cached: Option<&Path>) -> Result<PathBuf> {
        let api = ApiBuilder::from_cache(self.cache.clone()).with_endpoint(self.endpoint.clone()).with_token(self.token.clone());
        let api = api.with_progress(false).build().map_err(|e| self.explain("", &e))?;
        let revision = cached.and_then(Path::file_name).map_or("main".into(), |commit| commit.to_string_lossy());
        let folder = match cached {
            Some(folder) => folder.to_path_buf(),
            None => self.weights(&api)?,
        };
        for file in OPTIONAL.into_iter().filter(|file| !folder.join(file).is_file()) {
            match self.file(&api, &revision, file)? {
                Some(path) if path.parent() != Some(&folder) => {
                    return Err(Error::content(self.id, "the model was changed on the Hub while it was downloaded", "run it again"));
                }
                Some(_) => {}
                None => {
                    if let Some(mark) = Self::missing(&folder, file) {
                        // Not needed for anything but to spare a request.
                        let _ = mark.parent().map(fs::create_dir_all);
                        let _ = fs::write(mark, "");
                    }
                }
            }
        }
        Ok(folder)
    }

    /// Downloads the weights and says in which folder they are.
    fn weights(&self, api: &Api) -> Result<PathBuf> {
        let path = match self.file(api, "main", WEIGHTS)? {
            Some(path) => path,
            None => self.file(api, "main", INDEX)?.ok_or_else(|| self.without_safetensors(api))?,
        };
        let folder = path.parent().unwrap_or(&path).to_path_buf();
        if path.ends_with(INDEX) {
            for shard in shards(&path)? {
                let listed = format!("expected the shard {shard} that {INDEX} lists, found no such file");
                self.file(api, "main", &shard)?.ok_or_else(|| Error::content(self.id, listed, "tell the authors of the model"))?;
            }
        }
        Ok(folder)
    }

    /// Downloads one file; `None` if the model has no such file. Nothing is taken for the file before all of it is there.
    fn file(&self, api: &Api, revision: &str, name: &str) -> Result<Option<PathBuf>> {
        let repo = api.repo(self.repo(revision));
        let failed = |e: ApiError| if status(&e) == Some(404) { Ok(None) } else { Err(self.explain(name, &e)) };
        let about = match api.metadata(&repo.url(name)) {
            Ok(about) => about,
            Err(e) => return failed(e),
        };
        let inside = |part: &str| !part.is_empty() && Path::new(part).components().all(|c| matches!(c, Component::Normal(_)));
        if ![about.etag(), about.commit_hash(), name].into_iter().all(inside) {
            let problem = format!("expected the Hub's answer for {name}, found a name that leads out of the cache");
            return Err(Error::content(self.id, problem, "check HF_ENDPOINT"));
        }
        let cache = self.cache_repo();
        let known = cache.pointer_path(about.commit_hash()).join(name);
        if known.is_symlink() && !known.exists() {
            let _ = fs::remove_file(&known); // It leads nowhere; the download fails if it cannot be replaced.
        }
        let part = cache.blob_path(about.etag()).with_extension("part");
        if fs::metadata(&part).is_ok_and(|part| part.len() > about.size() as u64) {
            let _ = fs::remove_file(&part); // Not the beginning of this file.
        }
        let (received, wrong) = (Cell::new(0), Cell::new(false));
        let watch = Watch { file: name, size: about.size(), part: &part, received: &received, wrong: &wrong, progress: self.progress };
        match repo.download_with_progress(name, watch) {
            Ok(path) => Ok(Some(path)),
            Err(_) if wrong.get() => {
                let problem = format!("expected {} bytes of {name}, received {}", about.size(), received.get());
                Err(Error::content(self.id, problem, "run it again"))
            }
            Err(e) => failed(e),
        }
    }

    fn without_safetensors(&self, api: &Api) -> Error {
        match api.repo(self.repo("main")).info() {
            Ok(info) => {
                let files: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
                let pickle = files.iter().find(|file| Path::new(file).extension().is_some_and(|e| e == "bin" || e == "pth" || e == "pt"));
                let found =
                    pickle.map_or_else(|| format!("{} other files", files.len()), |file| format!("{file}, a pickle, which can run code"));
                let problem = format!("expected {WEIGHTS} or {INDEX} in the model on the Hub, found {found}");
                Error::content(self.id, problem, "name a model with safetensors")
            }
            Err(e) => self.explain(WEIGHTS, &e),
        }
    }

    fn explain(&self, file: &str, error: &ApiError) -> Error {
        let endpoint = &self.endpoint;
        let (problem, advice): (String, &str) = match (error, status(error)) {
            (_, Some(404)) => (format!("no such file or folder, nor such a model on {endpoint}"), "check the name (OWNER/NAME)"),
            (_, Some(code @ (401 | 403))) if self.token.is_none() => (
                format!("{endpoint} does not give {file} to everybody ({code}): there is no such model, or it is gated or private"),
                "check the name; if it is right, accept the model's terms on its page and set HF_TOKEN",
            ),
            (_, Some(code @ (401 | 403))) => (
                format!("{endpoint} does not give {file} for this token ({code})"),
                "accept the model's terms on its page, or set HF_TOKEN to a token that may read it",
            ),
            (_, Some(code)) => (format!("{endpoint} answered {code} to the question for {file}"), "try again later"),
            (ApiError::RequestError(e), None) => (
                format!("no such file or folder, and no connection to {endpoint} ({e})"),
                "check the network; a model in the cache or a folder needs none",
            ),
            (ApiError::IoError(e), None) => {
                (format!("receiving {file} from {endpoint} ended early ({e})"), "run it again: it goes on with what was received")
            }
            (ApiError::LockAcquisition(_), None) => (format!("another program is downloading {file}"), "wait for it"),
            (e, None) => (format!("{endpoint} does not answer as the Hub does ({e})"), "check HF_ENDPOINT, or try again later"),
        };
        Error::content(self.id, problem, advice)
    }
}

/// The status that a server answered with, if it was an error.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(e) => match e.as_ref() {
            ureq::Error::StatusCode(code) => Some(*code),
            _ => None,
        },
        _ => None,
    }
}

/// Follows one download, and takes what came away again when it is not as long as it should be: hf-hub would rename it to the file.
struct Watch<'a> {
    file: &'a str,
    size: usize,
    part: &'a Path,
    received: &'a Cell<usize>,
    wrong: &'a Cell<bool>,
    progress: &'a dyn Fn(Progress),
}

impl HubProgress for Watch<'_> {
    fn init(&mut self, _size: usize, _file: &str) {
        self.received.set(0);
    }

    fn update(&mut self, size: usize) {
        self.received.set(self.received.get() + size);
        if self.size >= LARGE {
            (self.progress)(Progress::received(self.file, self.received.get(), self.size));
        }
    }

    fn finish(&mut self) {
        if self.received.get() != self.size {
            self.wrong.set(true);
            let _ = fs::remove_file(self.part);
        }
    }
}
