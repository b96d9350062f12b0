//! Whether a file that comes over the network is whole, as far as it says so itself, and how long it may become.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

/// Most bytes of a configuration or a list of shards.
const TEXT: u64 = crate::read::TEXT;
/// Most bytes of the header of a safetensors file, as the format says.
const HEADER: u64 = 100_000_000;
/// Bytes before the header: its length.
const PREFIX: u64 = 8;

/// Watches a file while it comes.
pub(super) struct Watch {
    /// Its beginning, while its header is not known; nothing for other files.
    head: Option<Vec<u8>>,
    /// Most bytes that it may have.
    bound: u64,
    /// Why.
    reason: String,
    seen: u64,
}

fn weights(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "safetensors")
}

/// Bytes that are free where `folder` is, if the system says.
fn free(folder: &Path) -> u64 {
    #[cfg(unix)]
    if let Ok(about) = rustix::fs::statvfs(folder) {
        return about.f_bavail.saturating_mul(about.f_frsize);
    }
    let _ = folder;
    u64::MAX
}

/// The length of the whole file by the beginning of a safetensors file; none while there is too little of it.
fn length(head: &[u8]) -> Result<Option<u64>, String> {
    let Some(prefix) = head.first_chunk::<8>() else { return Ok(None) };
    let header = u64::from_le_bytes(*prefix);
    if header > HEADER || head.get(8).is_some_and(|first| *first != b'{') {
        return Err("it does not begin as a safetensors file".into());
    }
    let Some(text) = head.get(8..8 + header as usize) else { return Ok(None) };
    let entries: BTreeMap<String, Value> =
        serde_json::from_slice(text).map_err(|e| format!("it does not begin as a safetensors file ({e})"))?;
    let ends = entries.iter().filter(|(name, _)| *name != "__metadata__").map(|(_, entry)| entry["data_offsets"][1].as_u64().unwrap_or(0));
    Ok(Some(ends.max().unwrap_or(0).saturating_add(PREFIX + header)))
}

impl Watch {
    /// Of the file `name`, which is said to have `size` bytes and of which `have` are in `folder`.
    ///
    /// # Errors
    /// When it is too large.
    pub(super) fn new(name: &str, size: Option<u64>, have: u64, folder: &Path) -> Result<Self, String> {
        let (bound, reason) = match size {
            _ if !weights(name) => (TEXT, format!("more than {TEXT} bytes")),
            Some(size) => (size, format!("more than the {size} bytes that were announced")),
            None => (free(folder), "more bytes than are free on the disk".into()),
        };
        if let Some(size) = size {
            let free = free(folder);
            if size > bound {
                return Err(format!("it is said to have {size} bytes, the limit is {bound}"));
            }
            if size - have.min(size) > free {
                return Err(format!("it is said to have {size} bytes, free in {} are {free}", folder.display()));
            }
        }
        Ok(Self { head: (weights(name) && size.is_none()).then(Vec::new), bound, reason, seen: have })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// When there is no need to read on.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.seen += bytes.len() as u64;
        if let Some(head) = &mut self.head {
            head.extend_from_slice(bytes);
            if let Some(length) = length(head)? {
                if length > self.bound {
                    return Err(format!("its header tells of {length} bytes, {} are free on the disk", self.bound));
                }
                (self.bound, self.reason, self.head) = (length, format!("more than the {length} bytes that its header tells of"), None);
            }
        }
        if self.seen > self.bound { Err(self.reason.clone()) } else { Ok(()) }
    }
}

/// Checks a file that nothing else vouches for by what it says itself.
///
/// # Errors
/// When it is cut or no such file.
pub(super) fn check(path: &Path, name: &str) -> Result<(), String> {
    let mut file = File::open(path).map_err(|e| e.to_string())?;
    if !weights(name) {
        return serde_json::from_reader::<_, serde::de::IgnoredAny>(std::io::BufReader::new(file))
            .map(drop)
            .map_err(|e| format!("it is no whole JSON ({e})"));
    }
    let found = file.metadata().map_err(|e| e.to_string())?.len();
    let mut head = Vec::new();
    file.by_ref().take(PREFIX).read_to_end(&mut head).map_err(|e| e.to_string())?;
    let header = head.first_chunk::<8>().map_or(0, |prefix| u64::from_le_bytes(*prefix));
    file.take(header.min(HEADER)).read_to_end(&mut head).map_err(|e| e.to_string())?;
    match length(&head)? {
        Some(length) if length == found => Ok(()),
        Some(length) => Err(format!("its header tells of {length} bytes, {found} have come")),
        None => Err(format!("it ends in its header, after {found} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let header = br#"{"__metadata__":{"a":"b"},"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
        [&(header.len() as u64).to_le_bytes()[..], header, b"data"].concat()
    }

    #[test]
    fn a_safetensors_file_tells_its_length() {
        let whole = file();
        for end in 0..whole.len() - 4 {
            assert_eq!(length(&whole[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(length(&whole).unwrap(), Some(whole.len() as u64));
        assert!(length(b"<html><body>").is_err());
    }

    #[test]
    fn what_nobody_announced_ends_where_its_header_says() {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch::new("model.safetensors", None, 0, folder.path()).unwrap();
        let whole = file();
        for piece in whole.chunks(7) {
            watch.take(piece).unwrap();
        }
        assert!(watch.take(b"!").unwrap_err().contains("its header tells of"));
        let mut watch = Watch::new("config.json", None, 0, folder.path()).unwrap();
        let piece = vec![b' '; 1 << 20];
        assert_eq!((0..100).position(|_| watch.take(&piece).is_err()), Some(64));
        assert!(Watch::new("model.safetensors", Some(1 << 60), 0, folder.path()).is_err_and(|e| e.contains("free in")));
    }

    #[test]
    fn what_is_cut_is_no_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for end in 0..=file().len() {
            std::fs::write(&path, &file()[..end]).unwrap();
            assert_eq!(check(&path, "model.safetensors").is_ok(), end == file().len(), "{end}");
        }
        std::fs::write(&path, "{\"a\": [1, 2").unwrap();
        assert!(check(&path, "config.json").is_err());
    }
}
