//! What a handler can do and is told: targets, events, callbacks, timers and requests, last words, leader jobs.

mod callbacks;
mod conversations;
mod events;
mod last_words;
mod leader_jobs;
mod targets;
