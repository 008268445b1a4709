//! From bytes to lines. Lines end in `\n` or `\r\n`; an empty line is no message; the last line counts without an end.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use meepo_proto::codes;
use meepo_proto::link::{CloseCause, Message};

use crate::client::close::ClientClose;
use crate::client::decoder::{Decoded, Decoder};
use crate::client::handle::Client;
use crate::protocol::line::encoder;

/// Reads of one client before other clients have their turn.
const READS: usize = 8;

/// Reads the lines of one client.
#[derive(Debug)]
pub(crate) struct LineDecoder {
    lines: Lines,
    /// How the client is closed after the lines that are ready.
    close: Option<Box<ClientClose>>,
}

impl LineDecoder {
    /// A decoder for lines of up to `max_line` bytes.
    pub(crate) fn new(max_line: usize) -> Self {
        Self {
            lines: Lines {
                max_line,
                ..Lines::default()
            },
            close: None,
        }
    }

    fn refuse(problem: LineProblem) -> ClientClose {
        let (cause, code, reason) = match problem {
            LineProblem::TooLong { max } => (
                CloseCause::TooBig,
                codes::TOO_BIG,
                format!("line is longer than {max} bytes"),
            ),
            LineProblem::NotUtf8 => (
                CloseCause::InvalidText,
                codes::INVALID_TEXT,
                "line is not valid UTF-8".to_owned(),
            ),
        };
        ClientClose {
            last: Some(encoder::error(&reason)),
            ..ClientClose::by_client(cause, Some(code.code), reason)
        }
    }
}

impl Decoder for LineDecoder {
    const READS_AFTER_EOF: bool = true;

    fn next(&mut self, client: &Client) -> Decoded {
        let mut heard = false;
        for _ in 0..READS {
            if let Some(step) = self.ready(client) {
                return step;
            }
            if let Some(close) = self.close.take() {
                return Decoded::Close(*close);
            }
            match Self::read(client, |read| self.lines.feed(read)) {
                Ok(0) => {
                    self.lines.finish();
                    let close = ClientClose::by_client(CloseCause::Eof, None, "connection ended");
                    self.close = Some(Box::new(close));
                }
                Ok(_) => heard = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Decoded::Blocked { heard },
                Err(error) => {
                    return Decoded::Close(ClientClose::by_client(CloseCause::Reset, None, error.to_string()));
                }
            }
        }
        Decoded::Heard
    }

    /// telnet marks places in its stream with urgent data.
    fn read(client: &Client, take: impl FnOnce(&[u8])) -> io::Result<usize> {
        client.try_read_marked(take)
    }

    fn ready(&mut self, _client: &Client) -> Option<Decoded> {
        Some(match self.lines.pop()? {
            Ok(line) => Decoded::Message(Message {
                payload: line,
                binary: false,
            }),
            Err(problem) => Decoded::Close(Self::refuse(problem)),
        })
    }
}

/// Cuts bytes into lines, however they arrive.
#[derive(Debug, Default)]
struct Lines {
    max_line: usize,
    ready: VecDeque<Result<Bytes, LineProblem>>,
    partial: Vec<u8>,
    /// A line was refused: the rest of the input counts for nothing.
    refused: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineProblem {
    TooLong { max: usize },
    NotUtf8,
}

impl Lines {
    fn pop(&mut self) -> Option<Result<Bytes, LineProblem>> {
        let line = self.ready.pop_front();
        if self.ready.is_empty() {
            // An idle client keeps no queue.
            self.ready = VecDeque::new();
        }
        line
    }

    fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(&bytes[..end]);
            self.line();
            bytes = &bytes[end + 1..];
        }
        if self.refused {
            return;
        }
        self.partial.extend_from_slice(bytes);
        // One byte more: it may be the `\r` of a line's end.
        if self.partial.len() > self.max_line + 1 {
            self.refuse(LineProblem::TooLong { max: self.max_line });
        }
        if self.partial.is_empty() {
            // An idle client keeps no buffer.
            self.partial = Vec::new();
        }
    }

    /// The input has ended.
    fn finish(&mut self) {
        self.line();
    }

    fn line(&mut self) {
        let line = std::mem::take(&mut self.partial);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line.is_empty() || self.refused {
            return;
        }
        if line.len() > self.max_line {
            self.refuse(LineProblem::TooLong { max: self.max_line });
        } else if std::str::from_utf8(line).is_err() {
            self.refuse(LineProblem::NotUtf8);
        } else {
            self.ready.push_back(Ok(Bytes::copy_from_slice(line)));
        }
    }

    fn refuse(&mut self, problem: LineProblem) {
        self.refused = true;
        self.partial = Vec::new();
        self.ready.push_back(Err(problem));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(max_line: usize, input: &[u8], piece: usize) -> Vec<Result<Bytes, LineProblem>> {
        let mut lines = Lines {
            max_line,
            ..Lines::default()
        };
        for piece in input.chunks(piece) {
            lines.feed(piece);
        }
        lines.finish();
        lines.ready.into()
    }

    fn ok(lines: &[&'static str]) -> Vec<Result<Bytes, LineProblem>> {
        lines
            .iter()
            .map(|line| Ok(Bytes::from_static(line.as_bytes())))
            .collect()
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        for piece in 1..12 {
            assert_eq!(
                cut(100, b"a\r\nb\n\nc\xc3\xa9\nlast", piece),
                ok(&["a", "b", "cé", "last"])
            );
        }
    }

    #[test]
    fn the_limit_counts_without_the_end() {
        for piece in 1..8 {
            assert_eq!(cut(3, b"abc\r\nabc\n", piece), ok(&["abc", "abc"]));
            let mut expected = ok(&["abc"]);
            expected.push(Err(LineProblem::TooLong { max: 3 }));
            assert_eq!(cut(3, b"abc\nabcd\nabc\n", piece), expected);
        }
    }

    #[test]
    fn lines_after_invalid_text_do_not_count() {
        let mut expected = ok(&["a"]);
        expected.push(Err(LineProblem::NotUtf8));
        assert_eq!(cut(100, b"a\n\xff\nb\n", 100), expected);
    }

    #[test]
    fn an_endless_line_is_not_kept() {
        let mut lines = Lines {
            max_line: 10,
            ..Lines::default()
        };
        for _ in 0..1000 {
            lines.feed(&[b'x'; 100]);
        }
        assert!(lines.partial.is_empty());
        assert_eq!(lines.ready.len(), 1);
    }
}
