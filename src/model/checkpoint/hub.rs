//! Models by their id on the Hugging Face Hub: first the cache that all its tools share, then the network. The only file that knows of
//! the Hub; what it gives back is a folder like any other.
//!
//! A client of its own, on ureq, in the layout of the Hub's cache: the crate hf-hub sends the token wherever a redirect leads, panics on
//! answers without a header, and has no bounds on time, size or redirects.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use etcetera::home_dir;

use super::environment::{folder, offline, silent, variable};
use super::http::{Answer, Client, Failure};
use super::shards::{INDEX, WEIGHTS, shards};
use super::whole::{self, Watch};
use crate::clean::clean;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Bytes from which on it is worth saying how far a file is.
const LARGE: u64 = 1_000_000;
/// Beside the weights, where the model has them.
const OPTIONAL: [&str; 2] = ["config.json", "preprocessor_config.json"];

/// The folder of the model `id` (`OWNER/NAME`, `OWNER/NAME@REVISION`) in the Hub's cache, downloaded before where it is not there yet. Obeys
/// `HF_HUB_OFFLINE`, `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_DOWNLOAD_TIMEOUT` as the Hub's own tools do, and the
/// older names of these. Beside the folder: why the cache had to do, where the Hub was asked in vain.
///
/// # Errors
/// When the Hub cannot be reached, has no such model, wants a token, or the model has no safetensors.
pub fn fetch(id: &str, only_cache: bool, progress: &dyn Fn(Progress)) -> Result<(PathBuf, Option<String>)> {
    let hub = Hub::from_env(id, progress)?;
    let cached = hub.cached();
    // Other tools fetch what they need; without a configuration too much would have to be guessed.
    let usable = cached.clone().filter(|folder| Hub::has_all(folder, &OPTIONAL[..1]));
    if let Some(folder) = cached.as_ref().filter(|folder| Hub::has_all(folder, &OPTIONAL)) {
        return Ok((folder.clone(), None));
    }
    if only_cache || offline() {
        return usable.map(|folder| (folder, None)).ok_or_else(|| {
            let problem = format!("no such file or folder, nor a complete model of this id in {}", hub.cache.display());
            Error::content(id, problem, "go on without --offline and HF_HUB_OFFLINE to download it")
        });
    }
    match (hub.download(cached.as_deref()), usable) {
        (Ok(folder), _) => Ok((folder, None)),
        (Err(e), Some(folder)) => {
            let missing: Vec<&str> = OPTIONAL.into_iter().filter(|file| !Hub::has_all(&folder, &[file])).collect();
            Ok((folder, Some(format!("the cache is used, without {}: {e}", missing.join(" and ")))))
        }
        (Err(e), None) => Err(e),
    }
}

struct Hub<'a> {
    id: &'a str,
    /// `OWNER/NAME` without a revision.
    model: &'a str,
    revision: &'a str,
    client: Client,
    cache: PathBuf,
    progress: &'a dyn Fn(Progress),
}

impl<'a> Hub<'a> {
    fn from_env(id: &'a str, progress: &'a dyn Fn(Progress)) -> Result<Self> {
        let user = || Some(folder(&["XDG_CACHE_HOME"]).or_else(|| Some(home_dir().ok()?.join(".cache")))?.join("huggingface"));
        let home = folder(&["HF_HOME"]).or_else(user);
        let cache = folder(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]).or_else(|| Some(home.as_ref()?.join("hub")));
        let cache = cache.ok_or_else(|| Error::content(id, "no home folder, where the Hub's cache would be", "set HF_HOME to a folder"))?;
        let token_file = folder(&["HF_TOKEN_PATH"]).or_else(|| Some(home?.join("token")));
        let stored = || crate::read::text(&token_file?).ok();
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).or_else(stored);
        let token = token.map(|token| token.trim().to_string()).filter(|token| !token.is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let (model, revision) = id.split_once('@').unwrap_or((id, "main"));
        Ok(Self { id, model, revision, client: Client::new(endpoint.trim().trim_end_matches('/'), token, silent()), cache, progress })
    }

    /// The model's folder in the cache.
    fn folder(&self) -> PathBuf {
        self.cache.join(format!("models--{}", self.model.replace('/', "--")))
    }

    /// The revision as the name of a folder, where a mirror does not say which commit it is.
    fn unnamed(revision: &str) -> String {
        revision.replace('/', "--")
    }

    /// The folder of the newest version that the cache knows of, if all its weights are there.
    fn cached(&self) -> Option<PathBuf> {
        let reference = self.folder().join("refs").join(self.revision);
        let commit = crate::read::text(&reference).map_or_else(|_| Self::unnamed(self.revision), |commit| commit.trim().to_string());
        let folder = self.folder().join("snapshots").join(commit);
        let weights = [WEIGHTS, INDEX].iter().map(|file| folder.join(file)).find(|file| file.is_file())?;
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
        let revision = cached.and_then(Path::file_name).map_or(self.revision.into(), |commit| commit.to_string_lossy());
        let folder = match cached {
            Some(folder) => folder.to_path_buf(),
            None => self.weights()?,
        };
        for file in OPTIONAL.into_iter().filter(|file| !folder.join(file).is_file()) {
            match self.file(&revision, file)? {
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
    fn weights(&self) -> Result<PathBuf> {
        let path = match self.file(self.revision, WEIGHTS)? {
            Some(path) => path,
            None => self.file(self.revision, INDEX)?.ok_or_else(|| self.without_safetensors())?,
        };
        let folder = path.parent().unwrap_or(&path).to_path_buf();
        if path.ends_with(INDEX) {
            for shard in shards(&path)? {
                let listed = format!("expected the shard {shard} that {INDEX} lists, found no such file");
                self.file(self.revision, &shard)?.ok_or_else(|| Error::content(self.id, listed, "tell the authors of the model"))?;
            }
        }
        Ok(folder)
    }

    fn url(&self, revision: &str, name: &str) -> String {
        format!("{}/{}/resolve/{}/{name}", self.client.endpoint(), self.model, revision.replace('/', "%2F"))
    }

    /// Downloads one file; `None` if the model has no such file. Nothing is taken for the file before all of it is there.
    fn file(&self, revision: &str, name: &str) -> Result<Option<PathBuf>> {
        let url = self.url(revision, name);
        let failed = |failure: Failure| if failure.status() == Some(404) { Ok(None) } else { Err(self.explain(name, &failure)) };
        let answer = match self.client.get(&url, 0) {
            Ok(answer) => answer,
            Err(failure) => return failed(failure),
        };
        // A mirror may say neither: then the version is named by the revision, and the content by its place in it.
        let commit = answer.commit.clone().unwrap_or_else(|| Self::unnamed(revision));
        let tag = match &answer.tag {
            Some(digest) if matches!(digest.len(), 40 | 64) && digest.bytes().all(|digit| digit.is_ascii_hexdigit()) => digest.clone(),
            // A tag that is no digest of the content may be the same for several files.
            Some(other) => format!("{other}-{name}"),
            None => format!("{commit}-{name}"),
        };
        let inside =
            |part: &str| !part.is_empty() && Path::new(part).components().all(|c| matches!(c, Component::Normal(_))) && !part.contains('/');
        if ![tag.as_str(), &commit, name].into_iter().all(inside) {
            let problem = format!("expected the Hub's answer for {name}, found a name that leads out of the cache");
            return Err(Error::content(self.id, problem, "check HF_ENDPOINT"));
        }
        let pointer = self.folder().join("snapshots").join(&commit).join(name);
        if pointer.is_symlink() && !pointer.exists() {
            let _ = fs::remove_file(&pointer); // It leads nowhere; the download fails if it cannot be replaced.
        }
        if !pointer.is_file() {
            let blob = self.folder().join("blobs").join(&tag);
            if !blob.is_file() {
                self.receive(name, &url, answer, &blob)?;
            }
            Self::point(&pointer, &blob, &tag)?;
        }
        if revision != commit {
            let reference = self.folder().join("refs").join(revision);
            crate::atomic_write::write_whole_in(&reference, commit.as_bytes())?;
        }
        Ok(Some(pointer))
    }

    /// Makes `pointer` lead to `blob`, or be a copy of it where links cannot be made.
    fn point(pointer: &Path, blob: &Path, tag: &str) -> Result<()> {
        let folder = pointer.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        #[cfg(unix)]
        if std::os::unix::fs::symlink(Path::new("../../blobs").join(tag), pointer).is_ok() {
            return Ok(());
        }
        #[cfg(not(unix))]
        let _ = tag;
        if pointer.is_file() {
            return Ok(()); // Another process was first. Copying onto its link would empty the blob.
        }
        let copy = folder.join(format!("{tag}.{}.part", std::process::id()));
        fs::copy(blob, &copy).and_then(|_| fs::rename(&copy, pointer)).map_err(Error::io("write", pointer))
    }

    /// Receives a body into `blob`, going on with what an earlier attempt has received. The content is checked by its length and, where the
    /// tag is one, by its sha256.
    fn receive(&self, name: &str, url: &str, mut answer: Answer, blob: &Path) -> Result<()> {
        let folder = blob.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let beside = |end: &str| {
            let mut path = blob.as_os_str().to_owned();
            path.push(end);
            PathBuf::from(path)
        };
        let (part, lock_path) = (beside(".part"), beside(".lock"));
        let lock = File::create(&lock_path).map_err(Error::io("create", &lock_path))?;
        if lock.try_lock().is_err() {
            answer.close();
            lock.lock().map_err(Error::io("lock", &lock_path))?; // Another program downloads the same file.
            if !blob.is_file() {
                answer = self.client.get(url, 0).map_err(|failure| self.explain(name, &failure))?;
            }
        }
        if blob.is_file() {
            return Ok(());
        }
        let size = answer.total;
        let mut have = fs::metadata(&part).map_or(0, |about| about.len());
        if answer.tag.is_none() || size.is_none_or(|size| have >= size) {
            have = 0; // Not the beginning of this file, or nobody knows.
        }
        if have > 0 {
            answer.close(); // One connection at a time.
            let tag = answer.tag.take();
            answer = match self.client.get(url, have) {
                Err(failure) if failure.status() == Some(416) => self.client.get(url, 0), // It has become shorter, or its ranges are wrong.
                other => other,
            }
            .map_err(|failure| self.explain(name, &failure))?;
            if answer.tag != tag {
                let _ = fs::remove_file(&part);
                return Err(Error::content(self.id, format!("{name} was changed while it was downloaded"), "run it again"));
            }
            if answer.from != have {
                have = 0; // A server that does not know ranges gives all of it.
            }
        }
        let refused = |problem: String| {
            let _ = fs::remove_file(&part);
            Error::content(
                self.id,
                format!("{name} of {} was not taken: {problem}", self.client.masked(self.client.endpoint())),
                "check HF_ENDPOINT, or run it again",
            )
        };
        let mut watch = Watch::new(name, size, have, folder).map_err(refused)?;
        let mut file = OpenOptions::new().create(true).write(true).truncate(have == 0).append(have > 0).open(&part);
        if have == 0 {
            file = File::create(&part);
        }
        let mut file = file.map_err(Error::io("write", &part))?;
        let mut received = have;
        let tell = |received: u64| {
            if let Some(size) = size.filter(|size| *size >= LARGE) {
                (self.progress)(Progress::received(name, received as usize, size as usize));
            }
        };
        let mut unfit = None;
        let ended = answer.read(size.map(|size| size - have), &mut |bytes| {
            if let Err(problem) = watch.take(bytes) {
                return Err(io::Error::other(unfit.insert(problem).clone()));
            }
            received += bytes.len() as u64;
            tell(received);
            file.write_all(bytes)
        });
        file.flush().map_err(Error::io("write", &part))?;
        if let Some(problem) = unfit {
            return Err(refused(problem));
        }
        if let Err(failure) = ended {
            return Err(self.explain(name, &failure));
        }
        if let Some(size) = size.filter(|size| *size != received) {
            let _ = fs::remove_file(&part);
            return Err(Error::content(self.id, format!("expected {size} bytes of {name}, received {received}"), "run it again"));
        }
        match answer.sha256() {
            Some(digest) if super::http::sha256_of(&part).map_err(Error::io("read", &part))? != digest => {
                let _ = fs::remove_file(&part);
                return Err(Error::content(self.id, format!("{name} does not have the sha256 that the Hub says"), "run it again"));
            }
            // Nobody vouches for it: what it says itself must do.
            None if size.is_none() || name.ends_with(".safetensors") => whole::check(&part, name).map_err(refused)?,
            Some(_) | None => {}
        }
        fs::rename(&part, blob).map_err(Error::io("write", blob))?;
        let _ = fs::remove_file(&lock_path);
        Ok(())
    }

    fn without_safetensors(&self) -> Error {
        #[derive(serde::Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        #[derive(serde::Deserialize)]
        struct Info {
            siblings: Vec<Sibling>,
        }
        let url = format!("{}/api/models/{}/revision/{}", self.client.endpoint(), self.model, self.revision.replace('/', "%2F"));
        let info = self.client.get(&url, 0).and_then(|mut answer| answer.text()).map(|text| serde_json::from_str::<Info>(&text));
        match info {
            Ok(Ok(info)) => {
                let files: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
                let pickle = files.iter().find(|file| Path::new(file).extension().is_some_and(|e| e == "bin" || e == "pth" || e == "pt"));
                let found = pickle.map_or_else(
                    || format!("{} other files", files.len()),
                    |file| format!("{}, a pickle, which can run code", clean(file)),
                );
                let problem = format!("expected {WEIGHTS} or {INDEX} in the model on the Hub, found {found}");
                Error::content(self.id, problem, "name a model with safetensors")
            }
            Ok(Err(_)) => Error::content(
                self.id,
                format!("expected {WEIGHTS} or {INDEX} in the model on the Hub, found neither"),
                "name a model with safetensors",
            ),
            Err(failure) => self.explain(WEIGHTS, &failure),
        }
    }

    fn explain(&self, file: &str, failure: &Failure) -> Error {
        let endpoint = self.client.masked(self.client.endpoint());
        let (problem, advice): (String, &str) = match failure {
            Failure::Status(404) => (format!("no such file or folder, nor such a model on {endpoint}"), "check the name (OWNER/NAME)"),
            Failure::Status(code @ (401 | 403)) if !self.client.has_token() => (
                format!("{endpoint} does not give {file} to everybody ({code}): there is no such model, or it is gated or private"),
                "check the name; if it is right, accept the model's terms on its page and set HF_TOKEN",
            ),
            Failure::Status(code @ (401 | 403)) => (
                format!("{endpoint} does not give {file} for this token ({code})"),
                "accept the model's terms on its page, or set HF_TOKEN to a token that may read it",
            ),
            Failure::Status(code) => (format!("{endpoint} answered {code} to the question for {file}"), "try again later"),
            Failure::Connection(e) => (
                format!("no such file or folder, and no connection to {endpoint} ({})", clean(e)),
                "check the network; a model in the cache or a folder needs none",
            ),
            Failure::Silent(long) => (
                format!("{endpoint} took the question for {file} and sent nothing for {} s", long.as_secs_f64()),
                "try again later, or give it more seconds in HF_HUB_DOWNLOAD_TIMEOUT",
            ),
            Failure::Cut(e) => {
                (format!("receiving {file} from {endpoint} ended early ({})", clean(e)), "run it again: it goes on with what was received")
            }
            Failure::Answer(e) => {
                (format!("{endpoint} does not answer as the Hub does ({})", clean(e)), "check HF_ENDPOINT, or try again later")
            }
        };
        Error::content(self.id, self.client.masked(&problem), advice)
    }
}
