//! The status API: each call asks the main loop for a view.

use std::pin::Pin;

use api::v1::node_status_server::{NodeStatus, NodeStatusServer};
use api::v1::{
    ExplainPolicyRequest, ExplainPolicyResponse, GetStatusRequest, ListBlocksRequest,
    ListBlocksResponse, ListEndpointsRequest, ListEndpointsResponse, ListPoliciesRequest,
    ListPoliciesResponse, ListRuleCountersRequest, ListRuleCountersResponse, ListUnusedRequest,
    ListUnusedResponse, PolicyEvent, RenderTableRequest, RenderTableResponse, Status,
    WatchPolicyEventsRequest, WhatIfRequest, WhatIfResponse,
};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response};

use crate::explain::Unanswered;
use crate::explain::table::Picture;
use crate::offline::Cluster;

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
    /// The last events, and what comes after them.
    Events(oneshot::Sender<(Vec<PolicyEvent>, broadcast::Receiver<PolicyEvent>)>),
    /// What makes the table.
    Table(oneshot::Sender<Picture>),
    /// What each rule has decided.
    Counters(oneshot::Sender<ListRuleCountersResponse>),
    /// All that is known of policies, to be asked at leisure.
    Cluster(oneshot::Sender<Cluster>),
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

    async fn list_rule_counters(
        &self,
        _: Request<ListRuleCountersRequest>,
    ) -> Result<Response<ListRuleCountersResponse>, tonic::Status> {
        self.ask(Query::Counters).await
    }

    type WatchPolicyEventsStream =
        Pin<Box<dyn Stream<Item = Result<PolicyEvent, tonic::Status>> + Send>>;

    async fn watch_policy_events(
        &self,
        request: Request<WatchPolicyEventsRequest>,
    ) -> Result<Response<Self::WatchPolicyEventsStream>, tonic::Status> {
        let WatchPolicyEventsRequest { follow, pod } = request.into_inner();
        let (kept, coming) = self.ask(Query::Events).await?.into_inner();
        let about = move |event: &PolicyEvent| {
            let ends = [&event.from, &event.to].into_iter().flatten();
            pod.is_empty() || ends.map(|it| &it.pod).any(|it| *it == pod)
        };
        // Who reads too slowly misses events, which the kernel's limit makes possible anyway.
        let coming = BroadcastStream::new(coming).filter_map(Result::ok);
        let kept = tokio_stream::iter(kept);
        Ok(Response::new(match follow {
            true => Box::pin(kept.chain(coming).filter(about).map(Ok)),
            false => Box::pin(kept.filter(about).map(Ok)),
        }))
    }

    async fn render_table(
        &self,
        request: Request<RenderTableRequest>,
    ) -> Result<Response<RenderTableResponse>, tonic::Status> {
        let json = request.into_inner().json;
        let picture = self.ask(Query::Table).await?.into_inner();
        let rendered = at_leisure(move || picture.render(json)).await?;
        rendered
            .map(Response::new)
            .map_err(|error| tonic::Status::internal(error.to_string()))
    }

    async fn what_if(
        &self,
        request: Request<WhatIfRequest>,
    ) -> Result<Response<WhatIfResponse>, tonic::Status> {
        let request = request.into_inner();
        let cluster = self.ask(Query::Cluster).await?.into_inner();
        let answer = at_leisure(move || cluster.what_if(&request)).await?;
        answer
            .map(Response::new)
            .map_err(tonic::Status::invalid_argument)
    }

    async fn list_unused(
        &self,
        _: Request<ListUnusedRequest>,
    ) -> Result<Response<ListUnusedResponse>, tonic::Status> {
        let cluster = self.ask(Query::Cluster).await?.into_inner();
        at_leisure(move || cluster.unused())
            .await
            .map(Response::new)
    }
}

/// Computes beside the threads that keep the kernel in step.
async fn at_leisure<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tonic::Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| tonic::Status::internal(error.to_string()))
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
