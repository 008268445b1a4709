//! The calls over gRPC.

use std::sync::Arc;

use meepo_proto::push::push_server;
use meepo_proto::push::*;
use tonic::{Request, Response, Status};

use super::Push;
use super::calls::Call;

/// Carries calls out.
#[derive(Clone)]
pub(super) struct Grpc(pub(super) Arc<Push>);

type Answered<C> = Result<Response<<C as Call>::Reply>, Status>;

impl Grpc {
    async fn call<C: Call>(&self, request: Request<C>) -> Answered<C> {
        let reply = request.into_inner().carry_out(&self.0.cluster).await?;
        Ok(Response::new(reply))
    }
}

macro_rules! calls {
    ($($name:ident: $request:ident,)*) => {
        #[tonic::async_trait]
        impl push_server::Push for Grpc {
            $(async fn $name(&self, request: Request<$request>) -> Answered<$request> {
                self.call(request).await
            })*
        }
    };
}

calls! {
    send: SendRequest,
    close: CloseRequest,
    join: JoinRequest,
    leave: LeaveRequest,
    dissolve: DissolveRequest,
    bind: BindRequest,
    unbind: UnbindRequest,
    update_session: UpdateSessionRequest,
    replace_session: ReplaceSessionRequest,
    get_session: GetSessionRequest,
    count: CountRequest,
    online: OnlineRequest,
    select: SelectRequest,
    uids: UidsRequest,
    groups: GroupsRequest,
}
