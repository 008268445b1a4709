//! Client protocols, one folder each with the same few things: how a connection begins, a decoder, an encoder, close codes.
//! A further protocol is a further folder, and a case in `service`.
//!
//! Called by `listen`. It must not know workers and their links.

pub(crate) mod entrance;
pub(crate) mod http;
pub(crate) mod line;
pub(crate) mod service;
pub(crate) mod ws;

#[cfg(test)]
mod tests {
    use crate::client::codec::CODECS;

    #[test]
    fn every_protocol_has_a_cell_of_its_own() {
        let mut cells = [super::ws::CODEC.index, super::line::CODEC.index];
        cells.sort_unstable();
        assert_eq!(cells.to_vec(), (0..CODECS).collect::<Vec<_>>());
    }
}
