//! One file that grows, is rotated or truncated.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The most bytes that are read at once. As JSON they are six times as many at worst, and still below the gateway's `max_message`.
const MOST: u64 = 64 << 10;
/// A line of more bytes comes in pieces.
const MAX_LINE: usize = 8 << 10;
/// The number of looks at a rotated file that must find nothing new: its writer may not have opened the new file yet.
const LAST_LOOKS: u32 = 5;

#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    open: Option<Open>,
    partial: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    file: File,
    position: u64,
    looks: u32,
}

impl Tail {
    /// Follows a file from its present end. A file that is not there yet is followed from its beginning.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let mut tail = Self {
            path: path.into(),
            open: None,
            partial: Vec::new(),
        };
        if let Some(mut file) = there(File::open(path))? {
            if file.metadata()?.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            let position = file.seek(SeekFrom::End(0))?;
            tail.open = Some(Open {
                file,
                position,
                looks: 0,
            });
        }
        Ok(tail)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The lines that were appended since the last look.
    pub(crate) fn look(&mut self) -> io::Result<Vec<String>> {
        let Some(open) = &mut self.open else {
            let file = there(File::open(&self.path))?;
            self.open = file.map(|file| Open {
                file,
                position: 0,
                looks: 0,
            });
            return Ok(Vec::new());
        };
        let mut new = Vec::new();
        open.position += (&open.file).take(MOST).read_to_end(&mut new)? as u64;
        if !new.is_empty() {
            open.looks = 0;
            return Ok(self.cut(&new));
        }
        let here = open.file.metadata()?;
        if here.len() < open.position {
            // The file was truncated: all that it has now is new.
            open.file.seek(SeekFrom::Start(0))?;
            open.position = 0;
            return Ok(self.rest());
        }
        if there(fs::metadata(&self.path))?.is_some_and(|named| !same(&named, &here)) {
            open.looks += 1;
            if open.looks >= LAST_LOOKS {
                self.open = None;
                return Ok(self.rest());
            }
        }
        Ok(Vec::new())
    }

    fn cut(&mut self, new: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in new.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= MAX_LINE {
                lines.extend(self.rest());
            }
        }
        lines
    }

    /// The bytes after the last line end, as a line.
    fn rest(&mut self) -> Vec<String> {
        let partial = std::mem::take(&mut self.partial);
        let line = String::from_utf8_lossy(&partial);
        let line = line.trim_end_matches(['\r', '\n']);
        Some(line.to_owned())
            .filter(|line| !line.is_empty())
            .into_iter()
            .collect()
    }
}

fn same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// None where there is no such file.
fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn append(path: &Path, text: &str) {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// All lines that come while nothing is appended.
    fn looks(tail: &mut Tail) -> Vec<String> {
        (0..LAST_LOOKS + 3).flat_map(|_| tail.look().unwrap()).collect()
    }

    #[test]
    fn lines_that_are_appended_come_once_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, "before\n");
        let mut tail = Tail::new(&path).unwrap();
        append(&path, "one\n\ntwo\r\nhal");
        assert_eq!(looks(&mut tail), ["one", "two"]);
        append(&path, "f\n");
        assert_eq!(looks(&mut tail), ["half"]);
        append(&path, &"x".repeat(MAX_LINE * 2));
        append(&path, "\nafter\n");
        assert!(looks(&mut tail).ends_with(&["after".into()]));
    }

    #[test]
    fn a_rotated_file_is_read_to_its_end_and_its_successor_from_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let mut tail = Tail::new(&path).unwrap();
        append(&path, "first\n");
        assert_eq!(looks(&mut tail), ["first"]);
        append(&path, "last");
        fs::rename(&path, &old).unwrap();
        assert_eq!(looks(&mut tail), [""; 0]);
        append(&path, "new\n");
        assert_eq!(tail.look().unwrap(), [""; 0]);
        append(&old, " words\n");
        assert_eq!(looks(&mut tail), ["last words", "new"]);
    }

    #[test]
    fn a_truncated_file_is_read_from_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        append(&path, "a long line before\n");
        let mut tail = Tail::new(&path).unwrap();
        File::create(&path).unwrap();
        append(&path, "short\n");
        assert_eq!(looks(&mut tail), ["short"]);
    }
}
