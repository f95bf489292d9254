//! Serves felix: one stream of reports for each node.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::v1::policy_reports_server::{PolicyReports, PolicyReportsServer};
use api::v1::report_message::Body;
use api::v1::{PolicyState, ReportAnswer, ReportMessage, ReporterHello};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::lead::Event;
use super::{NAME, PATIENCE};
use crate::programmed::{InForce, Input, Key, Kind, Report, StreamId};

/// Version of the contract.
const VERSION: u32 = 1;
/// Bytes of one message.
const MESSAGE: usize = 512 * 1024;
/// Policies in one message.
const BATCH: usize = 256;
/// Tokens that are looked at at a time; when all nodes come back together they queue here.
const REVIEWS: usize = 32;
/// How long a stream waits for its turn.
const TURN: Duration = Duration::from_secs(20);
/// Longest names and uids of the Kubernetes API.
const NAME_BYTES: usize = 253;
/// Where the API says of a token on which node its pod is (Kubernetes 1.30 and newer).
const NODE_CLAIM: &str = "authentication.kubernetes.io/node-name";

type Answer<T> = Result<T, Status>;

/// The service.
pub(super) struct Service {
    client: Client,
    /// Whose tokens are taken: `system:serviceaccount:NAMESPACE:NAME`.
    user: String,
    events: mpsc::Sender<Event>,
    reviews: Arc<Semaphore>,
    streams: AtomicU64,
}

impl Service {
    pub(super) fn server(
        client: &Client,
        account: &str,
        events: mpsc::Sender<Event>,
    ) -> PolicyReportsServer<Self> {
        let namespace = client.default_namespace();
        let service = Self {
            client: client.clone(),
            user: format!("system:serviceaccount:{namespace}:{account}"),
            events,
            reviews: Arc::new(Semaphore::new(REVIEWS)),
            streams: AtomicU64::new(0),
        };
        PolicyReportsServer::new(service)
            .max_decoding_message_size(MESSAGE)
            .max_encoding_message_size(MESSAGE)
    }

    /// Asks the API whose token it is.
    async fn review(&self, token: &str) -> Answer<UserInfo> {
        let away = || Status::unavailable("the API does not say whose token it is");
        let turn = tokio::time::timeout(TURN, self.reviews.acquire()).await;
        let _turn = turn.map_err(|_| away())?.map_err(|_| away())?;
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![NAME.to_owned()]),
            },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let answer = tokio::time::timeout(PATIENCE, api.create(&params, &review)).await;
        let reviewed = answer.map_err(|_| away())?.map_err(|error| {
            tracing::warn!(%error, "asking the API whose token it is");
            away()
        })?;
        let status = reviewed.status.unwrap_or_default();
        let ours = status.audiences.iter().flatten().any(|it| it == NAME);
        let user = status
            .user
            .filter(|_| ours && status.authenticated == Some(true));
        let user = user.ok_or_else(|| Status::unauthenticated("the token is not good"))?;
        if user.username.as_deref() != Some(self.user.as_str()) {
            let name = user.username.unwrap_or_default();
            let why = format!("{name} is not {}", self.user);
            return Err(Status::permission_denied(why));
        }
        Ok(user)
    }
}

/// The node that a token is bound to, if the API says so.
fn bound_node(user: &UserInfo) -> Option<&str> {
    let claims = user.extra.as_ref()?.get(NODE_CLAIM)?;
    // A claim without a value binds to no node at all.
    Some(claims.first().map_or("", String::as_str))
}

fn greeted(hello: Option<ReportMessage>, user: &UserInfo) -> Answer<String> {
    let Some(Body::Hello(ReporterHello { version, node })) = hello.and_then(|it| it.body) else {
        return Err(Status::invalid_argument("the first message is no hello"));
    };
    if version != VERSION {
        let why = format!("version {version} of the contract is not known; {VERSION} is");
        return Err(Status::failed_precondition(why));
    }
    if node.is_empty() || node.len() > NAME_BYTES {
        return Err(Status::invalid_argument("node is no name of a node"));
    }
    match bound_node(user) {
        Some(bound) if bound != node => {
            let why = format!("the token is that of the node {bound}, not of {node}");
            Err(Status::permission_denied(why))
        }
        _ => Ok(node),
    }
}

#[tonic::async_trait]
impl PolicyReports for Service {
    type ReportStream = Pin<Box<dyn Stream<Item = Answer<ReportAnswer>> + Send>>;

    async fn report(
        &self,
        request: Request<Streaming<ReportMessage>>,
    ) -> Answer<Response<Self::ReportStream>> {
        let token = request.metadata().get("authorization");
        let token = token
            .and_then(|it| it.to_str().ok()?.strip_prefix("Bearer "))
            .ok_or_else(|| Status::unauthenticated("there is no token"))?;
        let user = self.review(token.trim()).await?;
        let mut incoming = request.into_inner();
        let hello = tokio::time::timeout(PATIENCE, incoming.message()).await;
        let hello = hello.map_err(|_| Status::deadline_exceeded("there is no hello"))??;
        let node = greeted(hello, &user)?;
        let stream = self.streams.fetch_add(1, Ordering::Relaxed);
        let (close, closed) = oneshot::channel();
        let stopping = |_| Status::unavailable("the controller stops to lead");
        let opened = Event::Opened(stream, node, close);
        self.events.send(opened).await.map_err(stopping)?;
        let (answers, outgoing) = mpsc::channel(2);
        tokio::spawn(pump(stream, incoming, closed, self.events.clone(), answers));
        let welcome = tokio_stream::once(Ok(ReportAnswer { welcome: true }));
        let outgoing = welcome.chain(ReceiverStream::new(outgoing));
        Ok(Response::new(Box::pin(outgoing)))
    }
}

/// Hands on what comes in, until either side has enough.
async fn pump(
    stream: StreamId,
    mut incoming: Streaming<ReportMessage>,
    mut closed: oneshot::Receiver<String>,
    events: mpsc::Sender<Event>,
    answers: mpsc::Sender<Answer<ReportAnswer>>,
) {
    let why = loop {
        let message = tokio::select! {
            message = incoming.message() => message,
            why = &mut closed => break Status::aborted(why.unwrap_or_default()),
            () = events.closed() => break Status::unavailable("the controller stops to lead"),
            () = answers.closed() => break Status::cancelled("nobody listens"),
        };
        let input = match message {
            Ok(Some(message)) => match read(stream, message) {
                Ok(input) => input,
                Err(status) => break status,
            },
            Ok(None) => break Status::ok("the stream ended"),
            Err(status) => break status,
        };
        if events.send(Event::Input(input)).await.is_err() {
            break Status::unavailable("the controller stops to lead");
        }
    };
    tracing::debug!(stream, why = why.message(), "a stream of reports ends");
    let _ = events.send(Event::Input(Input::Closed(stream))).await;
    // It may be over already on that side.
    let _ = answers.send(Err(why)).await;
}

fn read(stream: StreamId, message: ReportMessage) -> Answer<Input> {
    match message.body {
        Some(Body::States(states)) if states.states.len() <= BATCH => {
            let reports = states.states.into_iter().filter_map(report);
            Ok(Input::Reports(stream, reports.collect::<Answer<_>>()?))
        }
        Some(Body::States(_)) => Err(Status::invalid_argument("a message has too many policies")),
        Some(Body::End(_)) => Ok(Input::SnapshotEnd(stream)),
        Some(Body::Hello(_)) | None => Err(Status::invalid_argument("a message is not known")),
    }
}

/// A report; `None` of a kind that has no status here.
fn report(state: PolicyState) -> Option<Answer<Report>> {
    let kind = match state.kind.as_str() {
        "NetworkPolicy" => Kind::NetworkPolicy,
        "GlobalNetworkPolicy" => Kind::GlobalNetworkPolicy,
        "ClusterNetworkPolicy" => Kind::ClusterNetworkPolicy,
        _ => return None,
    };
    let long = [&state.namespace, &state.name, &state.uid]
        .into_iter()
        .any(|it| it.len() > NAME_BYTES);
    if long || state.name.is_empty() || state.generation < 0 {
        return Some(Err(Status::invalid_argument("a policy cannot be so")));
    }
    let in_force = InForce {
        uid: state.uid,
        generation: state.generation,
        error: Some(state.error).filter(|it| !it.is_empty()),
    };
    Some(Ok(Report {
        key: Key {
            kind,
            namespace: state.namespace,
            name: state.name,
        },
        state: state.selects.then_some(in_force),
    }))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use api::v1::PolicyStates;

    use super::*;

    fn hello(version: u32, node: &str) -> Option<ReportMessage> {
        let node = node.to_owned();
        Some(ReportMessage {
            body: Some(Body::Hello(ReporterHello { version, node })),
        })
    }

    fn user(claims: Option<&[&str]>) -> UserInfo {
        let values = |it: &[&str]| it.iter().map(ToString::to_string).collect();
        UserInfo {
            extra: claims.map(|it| BTreeMap::from([(NODE_CLAIM.to_owned(), values(it))])),
            ..UserInfo::default()
        }
    }

    #[test]
    fn a_token_speaks_for_its_own_node_only() {
        let code = |hello, user: UserInfo| greeted(hello, &user).map_err(|it| it.code());
        assert_eq!(
            code(hello(1, "n1"), user(Some(&["n1"]))),
            Ok("n1".to_owned())
        );
        assert_eq!(code(hello(1, "n1"), user(None)), Ok("n1".to_owned()));
        let denied = Err(tonic::Code::PermissionDenied);
        assert_eq!(code(hello(1, "n2"), user(Some(&["n1"]))), denied);
        assert_eq!(code(hello(1, "n2"), user(Some(&[]))), denied);
        let wrong = Err(tonic::Code::InvalidArgument);
        assert_eq!(code(hello(1, ""), user(None)), wrong);
        assert_eq!(code(hello(1, &"n".repeat(300)), user(None)), wrong);
        assert_eq!(code(None, user(None)), wrong);
        let old = Err(tonic::Code::FailedPrecondition);
        assert_eq!(code(hello(2, "n1"), user(None)), old);
    }

    #[test]
    fn what_is_not_in_the_contract_ends_the_stream_and_unknown_kinds_are_passed_over() {
        let state = |kind: &str, name: &str| PolicyState {
            kind: kind.to_owned(),
            name: name.to_owned(),
            selects: true,
            ..PolicyState::default()
        };
        let states = |states| ReportMessage {
            body: Some(Body::States(PolicyStates { states })),
        };
        let told = |message| match read(7, message) {
            Ok(Input::Reports(7, reports)) => Ok(reports.len()),
            Ok(other) => panic!("{other:?}"),
            Err(status) => Err(status.code()),
        };
        let two = vec![state("Later", "x"), state("NetworkPolicy", "y")];
        assert_eq!(told(states(two)), Ok(1));
        let wrong = Err(tonic::Code::InvalidArgument);
        assert_eq!(told(states(vec![state("NetworkPolicy", "")])), wrong);
        let long = state("NetworkPolicy", &"x".repeat(300));
        assert_eq!(told(states(vec![long])), wrong);
        assert_eq!(told(states(vec![state("Later", "x"); BATCH + 1])), wrong);
        assert_eq!(told(ReportMessage { body: None }), wrong);
        assert_eq!(told(hello(1, "n1").unwrap()), wrong);
    }
}
