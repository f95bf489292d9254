//! The status API: each call asks the main loop for a view.

use api::v1::node_status_server::{NodeStatus, NodeStatusServer};
use api::v1::{
    ExplainPolicyRequest, ExplainPolicyResponse, GetStatusRequest, ListBlocksRequest,
    ListBlocksResponse, ListEndpointsRequest, ListEndpointsResponse, ListPoliciesRequest,
    ListPoliciesResponse, Status,
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response};

use crate::explain::Unanswered;

/// A view that somebody waits for.
#[derive(Debug)]
pub enum Query {
    /// felix as a whole.
    Status(oneshot::Sender<Status>),
    /// The node's blocks.
    Blocks(oneshot::Sender<ListBlocksResponse>),
    /// The local endpoints.
    Endpoints(oneshot::Sender<ListEndpointsResponse>),
    /// The policies.
    Policies(oneshot::Sender<ListPoliciesResponse>),
    /// Why a flow is judged as it is.
    Explain(
        ExplainPolicyRequest,
        oneshot::Sender<Result<ExplainPolicyResponse, Unanswered>>,
    ),
}

/// The service.
#[derive(Debug, Clone)]
pub struct Service {
    queries: mpsc::Sender<Query>,
}

impl Service {
    /// A server that sends its questions to the main loop.
    #[must_use]
    pub fn server(queries: mpsc::Sender<Query>) -> NodeStatusServer<Self> {
        NodeStatusServer::new(Self { queries })
    }

    async fn ask<T>(
        &self,
        query: impl FnOnce(oneshot::Sender<T>) -> Query,
    ) -> Result<Response<T>, tonic::Status> {
        let (answer, answered) = oneshot::channel();
        let stopping = || tonic::Status::unavailable("felix is stopping");
        self.queries
            .send(query(answer))
            .await
            .map_err(|_| stopping())?;
        answered.await.map(Response::new).map_err(|_| stopping())
    }
}

#[tonic::async_trait]
impl NodeStatus for Service {
    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<Status>, tonic::Status> {
        self.ask(Query::Status).await
    }

    async fn list_blocks(
        &self,
        _: Request<ListBlocksRequest>,
    ) -> Result<Response<ListBlocksResponse>, tonic::Status> {
        self.ask(Query::Blocks).await
    }

    async fn list_endpoints(
        &self,
        _: Request<ListEndpointsRequest>,
    ) -> Result<Response<ListEndpointsResponse>, tonic::Status> {
        self.ask(Query::Endpoints).await
    }

    async fn list_policies(
        &self,
        _: Request<ListPoliciesRequest>,
    ) -> Result<Response<ListPoliciesResponse>, tonic::Status> {
        self.ask(Query::Policies).await
    }

    async fn explain_policy(
        &self,
        request: Request<ExplainPolicyRequest>,
    ) -> Result<Response<ExplainPolicyResponse>, tonic::Status> {
        let request = request.into_inner();
        let answer = self.ask(|answer| Query::Explain(request, answer)).await?;
        answer.into_inner().map(Response::new).map_err(unanswered)
    }
}

fn unanswered(why: Unanswered) -> tonic::Status {
    match why {
        Unanswered::NoPod(..) | Unanswered::NoPort { .. } => {
            tonic::Status::not_found(why.to_string())
        }
        Unanswered::NoAddress(_) | Unanswered::NoFamily(..) => {
            tonic::Status::failed_precondition(why.to_string())
        }
        Unanswered::NoEnd(_) | Unanswered::NoNumber(..) => {
            tonic::Status::invalid_argument(why.to_string())
        }
    }
}
