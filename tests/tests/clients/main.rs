//! What clients speak and get: the handshake, WebSocket frames, lines, HTTP requests and static files, and what one greedy
//! client must not take from the others.

mod greedy_clients;
mod line_protocol;
mod requests;
mod sites;
mod ws_frames;
mod ws_handshake;
