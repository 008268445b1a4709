//! What lies between nodes: registries and their stores, the links between gateways and workers, the secret.

mod batches;
mod parts;
mod registries;
mod secret;
mod separate_nodes;
mod stores;
mod worker_link;
