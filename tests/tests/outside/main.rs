//! Programs outside the cluster, and in other languages: the push API, the webhook worker, a worker in Python, and programs
//! that push without being workers.

mod programs;
mod push;
mod python;
mod webhook;
