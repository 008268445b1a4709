//! The back, which has the worker's part: reads all records that are there, and answers them in one write.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::record::{self, decide};

const BUFFER: usize = 1 << 20;

pub(super) fn run() -> io::Result<()> {
    let mut link = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut input = vec![0; BUFFER];
    let (mut filled, mut out) = (0, Vec::with_capacity(BUFFER));
    loop {
        if filled == input.len() {
            input.resize(2 * filled, 0);
        }
        match link.read(&mut input[filled..])? {
            0 => return Ok(()),
            length => filled += length,
        }
        out.clear();
        let used = record::each(&input[..filled], |_, client, payload| {
            record::push(&mut out, decide(payload), client, payload);
        });
        input.copy_within(used..filled, 0);
        filled -= used;
        link.write_all(&out)?;
    }
}
