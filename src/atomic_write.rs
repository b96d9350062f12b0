//! Writing files as a whole or not at all: through a fresh temporary file beside the target, renamed when complete. What is no regular
//! file, such as a pipe or a device, is written to and not replaced.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes `bytes` to `path`; a failure leaves what was there before. A symbolic link stays, and what it leads to is written.
///
/// # Errors
/// When the file or its folder cannot be written to.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = match fs::metadata(path) {
        Ok(about) if about.is_dir() => Err(std::io::Error::from(std::io::ErrorKind::IsADirectory)),
        Ok(about) if !about.is_file() => append(path, bytes),
        // Standard output by its name may be a regular file that another program holds.
        Ok(_) if is_of_a_process(path) => append(path, bytes),
        Ok(about) => replace(&fs::canonicalize(path).unwrap_or_else(|_| path.into()), bytes, Some(about.permissions())),
        Err(_) => replace(&target(path), bytes, None),
    };
    written.map_err(Error::io("write", path))
}

/// The same, making the folder where there is none.
///
/// # Errors
/// As [`write_whole`].
pub fn write_whole_in(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    }
    write_whole(path, bytes)
}

fn append(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(bytes)?;
    file.flush()
}

/// A path and, where it is a link, what that leads to, step by step.
fn steps(path: &Path) -> impl Iterator<Item = PathBuf> {
    let next = |at: &PathBuf| fs::read_link(at).ok().map(|next| at.parent().unwrap_or(Path::new(".")).join(next));
    std::iter::successors(Some(path.to_path_buf()), next).take(16)
}

/// Whether `path` leads over the open files of a process: `/dev/stdout` and `/dev/fd/3` do, a file in `/dev/shm` is one as any other.
fn is_of_a_process(path: &Path) -> bool {
    steps(path).any(|at| {
        let folder = at.parent().and_then(|folder| folder.canonicalize().ok());
        folder.is_some_and(|folder| folder.starts_with("/proc") || folder.starts_with("/dev/fd"))
    })
}

/// Where a link that leads to nothing yet leads to.
fn target(path: &Path) -> PathBuf {
    steps(path).last().unwrap_or_else(|| path.into())
}

fn replace(path: &Path, bytes: &[u8], mode: Option<fs::Permissions>) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".igq-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any program creates files: all may read, less what the user's mask takes away.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut partial = builder.tempfile_in(folder)?;
    partial.write_all(bytes)?;
    partial.flush()?;
    if let Some(mode) = mode {
        partial.as_file().set_permissions(mode)?;
    }
    partial.persist(path).map(drop).map_err(|e| e.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole_and_nothing_is_left_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("report.json");
        write_whole(&file, b"one").unwrap();
        write_whole(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert!(write_whole(folder.path(), b"x").is_err());
        assert!(write_whole(&folder.path().join("no/such/folder"), b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_open_file_is_written_on_and_a_file_below_dev_is_replaced() {
        use std::os::fd::AsRawFd;
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        write_whole(&file, b"a longer one").unwrap();
        write_whole(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        // As a shell does for `> file`: what the shell holds goes on, whatever name leads there.
        let held = fs::File::open(&file).unwrap();
        for name in [format!("/dev/fd/{}", held.as_raw_fd()), format!("/proc/self/fd/{}", held.as_raw_fd())] {
            write_whole(Path::new(&name), b" more").unwrap();
            std::os::unix::fs::symlink(&name, &link).unwrap();
            write_whole(&link, b" and more").unwrap();
            fs::remove_file(&link).unwrap();
        }
        assert_eq!(fs::read(&file).unwrap(), b"two more and more more and more");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_devices_stay_and_modes_are_kept() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("file", &link).unwrap();
        write_whole(&link, b"new").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!((fs::read(&file).unwrap().as_slice(), fs::metadata(&file).unwrap().permissions().mode() & 0o777), (&b"new"[..], 0o640));
        write_whole(Path::new("/dev/null"), b"gone").unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        assert!(write_whole(Path::new("/dev/full"), b"x").unwrap_err().to_string().contains("/dev/full"));
    }
}
