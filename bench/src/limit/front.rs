//! The front, which has the gateway's part: the clients' sockets and the groups.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::mem;
use std::net::SocketAddr;
use std::os::unix::net;

use mio::net::{TcpListener, UnixStream};
use mio::{Events, Interest, Poll, Token};

use super::client::{Client, frame};
use super::record::{self, RecordKind, decide};

const LISTENER: Token = Token(usize::MAX);
const LINK: Token = Token(usize::MAX - 1);
const BUFFER: usize = 256 << 10;

struct Front {
    clients: Vec<Option<Client>>,
    /// Members by group. Clients that have gone stay members: no number is used twice.
    groups: HashMap<Box<[u8]>, Vec<usize>>,
    /// Clients with frames to be written at the end of the turn.
    listed: Vec<usize>,
    frame: Vec<u8>,
}

/// The stream to the back.
struct Link {
    stream: UnixStream,
    input: Vec<u8>,
    out: Vec<u8>,
}

pub(super) fn run(address: SocketAddr, back: Option<net::UnixStream>) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut link = back.map(Link::new).transpose()?;
    if let Some(link) = &mut link {
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut link.stream, LINK, both)?;
    }
    println!("ws://{}/", listener.local_addr()?);
    io::stdout().flush()?;

    let mut front = Front {
        clients: Vec::new(),
        groups: HashMap::new(),
        listed: Vec::new(),
        frame: Vec::new(),
    };
    let mut events = Events::with_capacity(1024);
    let mut scratch = vec![0; BUFFER];
    // The clients' messages, if there is no back.
    let mut records = Vec::new();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => front.accept(&listener, &poll)?,
                LINK => {
                    if let Some(link) = &mut link {
                        link.read(&mut scratch, |kind, client, payload| {
                            front.carry_out(kind, client as usize, payload);
                        })?;
                    }
                }
                Token(number) => {
                    let records = link.as_mut().map_or(&mut records, |link| &mut link.out);
                    front.client(number, &mut scratch, records);
                }
            }
        }
        match &mut link {
            Some(link) => link.flush()?,
            None => {
                record::each(&records, |_, client, payload| {
                    front.carry_out(decide(payload), client as usize, payload);
                });
                records.clear();
            }
        }
        front.flush();
    }
}

impl Front {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let number = self.clients.len();
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(number), both)?;
            self.clients.push(Some(Client::new(stream)));
        }
    }

    /// A client's socket is ready: what it sends becomes records.
    fn client(&mut self, number: usize, scratch: &mut [u8], records: &mut Vec<u8>) {
        let Some(Some(client)) = self.clients.get_mut(number) else {
            return;
        };
        client.flush();
        let result = client.read(scratch, |payload| {
            record::push(records, RecordKind::Message, number as u32, payload);
        });
        if result.is_err() {
            self.clients[number] = None;
        }
    }

    fn carry_out(&mut self, kind: RecordKind, number: usize, payload: &[u8]) {
        match kind {
            RecordKind::Join => self
                .groups
                .entry(record::group(payload).into())
                .or_default()
                .push(number),
            RecordKind::Message => {
                let Some(Some(client)) = self.clients.get_mut(number) else {
                    return;
                };
                self.frame.clear();
                frame(payload, &mut self.frame);
                client.push(&self.frame);
                if !mem::replace(&mut client.listed, true) {
                    self.listed.push(number);
                }
            }
            RecordKind::Publish | RecordKind::Others => {
                self.frame.clear();
                frame(payload, &mut self.frame);
                let but = (kind == RecordKind::Others).then_some(number);
                let members = self.groups.get(record::group(payload)).into_iter().flatten();
                for member in members.filter(|member| Some(**member) != but) {
                    if let Some(client) = &mut self.clients[*member] {
                        client.write(&self.frame);
                    }
                }
            }
        }
    }

    fn flush(&mut self) {
        for number in self.listed.drain(..) {
            if let Some(Some(client)) = self.clients.get_mut(number) {
                client.listed = false;
                client.flush();
            }
        }
    }
}

impl Link {
    fn new(stream: net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: UnixStream::from_std(stream),
            input: Vec::new(),
            out: Vec::new(),
        })
    }

    /// Reads all records that are there. Error: the back has ended.
    fn read(&mut self, scratch: &mut [u8], mut on: impl FnMut(RecordKind, u32, &[u8])) -> io::Result<()> {
        loop {
            let length = match self.stream.read(scratch) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if self.input.is_empty() {
                let used = record::each(&scratch[..length], &mut on);
                self.input.extend_from_slice(&scratch[used..length]);
            } else {
                self.input.extend_from_slice(&scratch[..length]);
                let used = record::each(&self.input, &mut on);
                self.input.drain(..used);
            }
            if length < scratch.len() {
                return Ok(());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut written = 0;
        while written < self.out.len() {
            match self.stream.write(&self.out[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.out.drain(..written);
        Ok(())
    }
}
