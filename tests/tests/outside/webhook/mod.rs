//! The webhook worker: events as POSTs to an endpoint, its faults, and the examples of endpoints.

mod events;
mod examples;
mod faults;
