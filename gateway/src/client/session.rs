//! What workers change of a client, and who hears of it: its session, and whether it is read.

use meepo_proto::link::event::Body;
use meepo_proto::link::{Event, ReadingChanged, SessionChanged};

use crate::client::handle::Client;
use crate::hub::Hub;
use crate::router::LinkId;

/// The session would be over its limit.
#[derive(Debug)]
pub(crate) struct SessionTooBig;

impl Hub {
    /// Changes a client's session. The worker that serves the client hears of what another one has changed.
    pub(crate) fn update_session(
        &self,
        link: LinkId,
        client: &Client,
        change: SessionChanged,
        max_session: u64,
    ) -> Result<(), SessionTooBig> {
        let dispatch = self.dispatch();
        {
            let mut session = client.profile.session.lock();
            let mut next = match change.clear {
                true => Default::default(),
                false => session.clone(),
            };
            for key in &change.remove {
                next.remove(key);
            }
            next.extend(change.set.clone());
            let size: usize = next.iter().map(|(key, value)| key.len() + value.len()).sum();
            if size as u64 > max_session {
                return Err(SessionTooBig);
            }
            *session = next;
        }
        if let Some(server) = dispatch.router.link_of(client.number)
            && server != link
        {
            let event = Event {
                client: client.number,
                body: Some(Body::SessionChanged(change)),
                ..Event::default()
            };
            dispatch.send(server, event);
        }
        Ok(())
    }

    /// Has a client not read, or read again. The worker that serves the client hears of what another one has done.
    pub(crate) fn pause(&self, link: LinkId, client: &Client, paused: bool) {
        let dispatch = self.dispatch();
        if client.pause(paused)
            && let Some(server) = dispatch.router.link_of(client.number)
            && server != link
        {
            let event = Event {
                client: client.number,
                body: Some(Body::ReadingChanged(ReadingChanged { paused })),
                ..Event::default()
            };
            dispatch.send(server, event);
        }
    }
}
