//! Lines in a file that may be moved away and made anew while it is written to, as `logrotate` does.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often it is looked whether the file is still the one of its name: so long may lines go on to one that was moved.
const LOOK: Duration = Duration::from_secs(1);
/// Names of tools and addresses of clients are not everybody's business.
const MODE: u32 = 0o640;

/// A file that is only added to.
pub(super) struct Appended {
    path: PathBuf,
    file: File,
    looked: Instant,
}

impl Appended {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: open(path)?, path: path.to_owned(), looked: Instant::now() })
    }

    /// Goes on in the file that has the name by now. Where that cannot be had, in the one that it has.
    fn follow(&mut self) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let which = |file: Metadata| (file.dev(), file.ino());
        let is_same = match (std::fs::metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(own)) => which(there) == which(own),
            _ => false,
        };
        if is_same {
            return;
        }
        match open(&self.path) {
            Ok(file) => self.file = file,
            Err(problem) => tracing::warn!(path = %self.path.display(), %problem, "the log file cannot be opened anew"),
        }
    }
}

impl Write for Appended {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.follow();
        self.file.write(lines)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(MODE).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_or_removed_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calls.log");
        let moved = folder.path().join("calls.log.1");
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        std::fs::write(&path, "before\n").unwrap();
        let mut file = Appended::open(&path).unwrap();
        file.write_all(b"one\n").unwrap();

        std::fs::rename(&path, &moved).unwrap();
        // Not looked at yet.
        file.write_all(b"two\n").unwrap();
        assert_eq!(read(&moved), "before\none\ntwo\n");
        let mut write_later = |line: &str| {
            file.looked = Instant::now().checked_sub(LOOK).unwrap();
            file.write_all(line.as_bytes()).unwrap();
        };
        write_later("three\n");
        assert_eq!((read(&path), read(&moved)), ("three\n".to_owned(), "before\none\ntwo\n".to_owned()));
        std::fs::remove_file(&path).unwrap();
        write_later("four\n");
        assert_eq!(read(&path), "four\n");
        // Emptied in its place.
        File::options().write(true).truncate(true).open(&path).unwrap();
        write_later("five\n");
        assert_eq!(read(&path), "five\n");
        // Where it cannot be made anew, what there is is written to.
        std::fs::rename(&path, &moved).unwrap();
        std::fs::create_dir(&path).unwrap();
        write_later("six\n");
        assert_eq!(read(&moved), "five\nsix\n");
    }
}
