//! What all calls of a service share.

use crate::figures::RegistryFigures;
use tokio_util::sync::CancellationToken;

use crate::settings::RegistrySettings;

/// What all calls of a service share.
pub(crate) struct Context<S> {
    pub(crate) store: S,
    pub(crate) settings: RegistrySettings,
    /// Cancelled when the child drains.
    pub(crate) stop: CancellationToken,
    pub(crate) stats: &'static RegistryFigures,
}
