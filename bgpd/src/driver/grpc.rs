//! The gRPC socket: the stream with felix, and the status for people.

use std::pin::Pin;
use std::sync::Arc;

use api::v1;
use api::v1::bgp_status_server::{BgpStatus, BgpStatusServer};
use api::v1::bgpd_message::Body as Tell;
use api::v1::dataplane_server::{Dataplane, DataplaneServer};
use api::v1::felix_message::Body as Heard;
use crds::net::{Cidr, Family};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

use super::Event;
use super::ask::{self, DrainOrder, ExplainQuery};
use super::bfd::Listing;
use super::fib::{Fib, Step, Told};
use super::status;
use crate::config::{OriginKind, PeerKey};
use crate::speaker::{DataplaneReport, Leg, Page, RouteFilter};

/// Version of the contract with felix; one up and one down are understood.
const CONTRACT: u32 = 1;

/// Messages to felix that wait for the socket.
const TO_FELIX: usize = 1024;

/// What felix said, or that it is there or gone.
#[derive(Debug)]
pub(crate) struct Felix {
    /// The stream it said it on.
    pub(crate) stream: u64,
    pub(crate) said: Said,
}

#[derive(Debug)]
pub(crate) enum Said {
    Opened,
    Report(DataplaneReport),
    Origin {
        generation: u64,
        prefix: Cidr,
        kind: OriginKind,
        withdrawn: bool,
        idle: bool,
    },
    OriginsComplete {
        generation: u64,
    },
    /// A message that makes no sense.
    Invalid {
        generation: u64,
        problem: String,
    },
    Ack {
        generation: u64,
        error: String,
    },
    /// That many best routes have been sent.
    Taken(usize),
    Closed,
}

/// What people ask.
#[derive(Debug)]
pub(crate) enum Query {
    Speaker(oneshot::Sender<v1::Speaker>),
    Neighbors(oneshot::Sender<Vec<v1::Neighbor>>),
    Bfd(oneshot::Sender<Listing>),
    Routes(Page, RouteFilter, oneshot::Sender<v1::ListRoutesResponse>),
    Advertised(
        Page,
        PeerKey,
        oneshot::Sender<Option<v1::ListRoutesResponse>>,
    ),
    Explain(ExplainQuery, oneshot::Sender<v1::ExplainResponse>),
    Drain(
        DrainOrder,
        oneshot::Sender<Result<v1::DrainResponse, String>>,
    ),
}

/// What the calls are answered with.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) fib: Arc<Fib>,
    /// Changes with each start.
    pub(crate) instance: String,
    /// There is a configuration, and with it a speaker.
    pub(crate) ready: watch::Receiver<bool>,
}

/// Serves both services for as long as the program runs.
pub(crate) async fn serve(listener: api::local::Listener, service: Service) -> anyhow::Result<()> {
    tonic::transport::Server::builder()
        .add_service(BgpStatusServer::new(service.clone()))
        .add_service(DataplaneServer::new(service))
        .serve_with_incoming(listener)
        .await?;
    Ok(())
}

type ToFelix = mpsc::Sender<Result<v1::BgpdMessage, Status>>;

#[tonic::async_trait]
impl Dataplane for Service {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<v1::BgpdMessage, Status>> + Send>>;

    async fn sync(
        &self,
        request: Request<Streaming<v1::FelixMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        self.is_ready()?;
        let (out, messages) = mpsc::channel(TO_FELIX);
        let service = self.clone();
        tokio::spawn(async move {
            if let Err(status) = service.converse(request.into_inner(), &out).await {
                warn!(problem = status.message(), "the stream with felix ended");
                // It may be gone already.
                let _ = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

impl Service {
    /// One stream, from its Hello to its end.
    async fn converse(
        &self,
        mut from: Streaming<v1::FelixMessage>,
        out: &ToFelix,
    ) -> Result<(), Status> {
        let hello = match from
            .next()
            .await
            .transpose()?
            .and_then(|message| message.body)
        {
            Some(Heard::Hello(hello)) => hello,
            None => return Ok(()),
            Some(_) => {
                return Err(Status::failed_precondition(
                    "the first message must be Hello",
                ));
            }
        };
        if hello.version.abs_diff(CONTRACT) > 1 {
            return Err(Status::failed_precondition(format!(
                "felix speaks version {} of the contract and bgpd version {CONTRACT}: bring both to neighbouring releases",
                hello.version
            )));
        }
        let (stream, changed) = self.fib.open();
        info!(felix = hello.instance, stream, "felix is connected");
        let ended = self.exchange(stream, changed, from, out).await;
        self.fib.close(stream);
        self.tell(stream, Said::Closed).await?;
        ended
    }

    /// Hears and tells until either ends.
    async fn exchange(
        &self,
        stream: u64,
        mut changed: watch::Receiver<()>,
        mut from: Streaming<v1::FelixMessage>,
        out: &ToFelix,
    ) -> Result<(), Status> {
        self.tell(stream, Said::Opened).await?;
        let instance = self.instance.clone();
        send(
            out,
            Tell::Hello(v1::Hello {
                version: CONTRACT,
                instance,
            }),
        )
        .await?;
        let telling = async {
            let mut generation = 0;
            loop {
                changed.mark_unchanged();
                let Some(step) = self.fib.step(stream) else {
                    return Err(Status::aborted("a newer felix has connected"));
                };
                if step == Step::default() {
                    // The sender lives as long as the service.
                    let _ = changed.changed().await;
                    continue;
                }
                let routes = step.routes.iter();
                let routes = routes.filter(|it| matches!(it, Told::Route(..))).count();
                generation = send_step(out, step, generation).await?;
                if routes > 0 {
                    self.tell(stream, Said::Taken(routes)).await?;
                }
            }
        };
        let hearing = async {
            while let Some(message) = from.next().await.transpose()? {
                if let Some(said) = message.body.and_then(understand) {
                    self.tell(stream, said).await?;
                }
            }
            Ok(())
        };
        tokio::select! {
            ended = telling => ended,
            ended = hearing => ended,
        }
    }

    fn is_ready(&self) -> Result<(), Status> {
        if *self.ready.borrow() {
            return Ok(());
        }
        Err(Status::unavailable(
            "it has no configuration yet: does the Kubernetes API answer, and is --node-name right?",
        ))
    }

    async fn tell(&self, stream: u64, said: Said) -> Result<(), Status> {
        let event = Event::Felix(Felix { stream, said });
        self.events.send(event).await.map_err(|_| ending())
    }

    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, Status> {
        self.is_ready()?;
        let (answer, answered) = oneshot::channel();
        let event = Event::Query(query(answer));
        self.events.send(event).await.map_err(|_| ending())?;
        answered.await.map_err(|_| ending())
    }
}

fn ending() -> Status {
    Status::unavailable("bgpd is ending")
}

async fn send(out: &ToFelix, body: Tell) -> Result<(), Status> {
    let message = v1::BgpdMessage { body: Some(body) };
    out.send(Ok(message))
        .await
        .map_err(|_| Status::cancelled("felix is gone"))
}

/// Sends what is due; the generation after it.
async fn send_step(out: &ToFelix, step: Step, mut generation: u64) -> Result<u64, Status> {
    if let Some(ack) = step.ack {
        let ack = v1::Ack {
            generation: ack.generation,
            error: ack.error,
        };
        send(out, Tell::Ack(ack)).await?;
    }
    if let Some(interfaces) = step.interfaces {
        let advertise = v1::Advertise { interfaces };
        send(out, Tell::Advertise(advertise)).await?;
    }
    let words = |legs: &[Leg]| legs.iter().map(leg).collect();
    for told in step.routes {
        generation += 1;
        let told = match told {
            Told::Route(prefix, legs) => Tell::Route(v1::RouteUpdate {
                generation,
                prefix: prefix.to_string(),
                legs: words(&legs),
            }),
            Told::Moved(from, to) => Tell::Moved(v1::LegsMoved {
                generation,
                from: words(&from),
                to: words(&to),
            }),
        };
        send(out, told).await?;
    }
    if step.end_of_snapshot {
        generation += 1;
        send(out, Tell::EndOfSnapshot(v1::EndOfSnapshot { generation })).await?;
    }
    Ok(generation)
}

fn leg(leg: &Leg) -> v1::Leg {
    v1::Leg {
        address: leg.address.to_string(),
        ifindex: leg.ifindex.unwrap_or(0),
        onlink: leg.onlink,
        weight: leg.weight.into(),
    }
}

pub(super) fn understand(body: Heard) -> Option<Said> {
    match body {
        // Only the first one means something.
        Heard::Hello(_) => None,
        Heard::Dataplane(report) => {
            let families = [
                (report.preserved_ipv4, Family::V4),
                (report.preserved_ipv6, Family::V6),
            ];
            let preserved = families
                .iter()
                .filter(|(kept, _)| *kept)
                .map(|(_, family)| *family)
                .collect();
            Some(Said::Report(DataplaneReport {
                boot_id: report.boot_id,
                preserved,
                // The engine knows.
                restarted: false,
            }))
        }
        Heard::Origin(origin) => Some(understand_origin(&origin)),
        Heard::EndOfSnapshot(end) => Some(Said::OriginsComplete {
            generation: end.generation,
        }),
        Heard::Ack(ack) => Some(Said::Ack {
            generation: ack.generation,
            error: ack.error,
        }),
    }
}

fn understand_origin(origin: &v1::OriginUpdate) -> Said {
    let generation = origin.generation;
    let prefix = match origin.prefix.parse() {
        Ok(prefix) => prefix,
        Err(e) => {
            return Said::Invalid {
                generation,
                problem: format!("prefix: {e}"),
            };
        }
    };
    let kind = match v1::OriginKind::try_from(origin.kind) {
        Ok(v1::OriginKind::Block) => OriginKind::Block,
        Ok(v1::OriginKind::Borrowed) => OriginKind::Borrowed,
        Ok(v1::OriginKind::Service) => OriginKind::Service,
        Ok(v1::OriginKind::Node) => OriginKind::Node,
        // A withdrawal needs no kind.
        _ if origin.withdrawn => OriginKind::Block,
        _ => {
            let problem = format!("kind: {} of {} is not known", origin.kind, origin.prefix);
            return Said::Invalid {
                generation,
                problem,
            };
        }
    };
    Said::Origin {
        generation,
        prefix,
        kind,
        withdrawn: origin.withdrawn,
        idle: origin.idle,
    }
}

#[tonic::async_trait]
impl BgpStatus for Service {
    async fn get_speaker(
        &self,
        _: Request<v1::GetSpeakerRequest>,
    ) -> Result<Response<v1::Speaker>, Status> {
        self.ask(Query::Speaker).await.map(Response::new)
    }

    async fn list_neighbors(
        &self,
        _: Request<v1::ListNeighborsRequest>,
    ) -> Result<Response<v1::ListNeighborsResponse>, Status> {
        let neighbors = self.ask(Query::Neighbors).await?;
        Ok(Response::new(v1::ListNeighborsResponse { neighbors }))
    }

    async fn list_bfd_sessions(
        &self,
        _: Request<v1::ListBfdSessionsRequest>,
    ) -> Result<Response<v1::ListBfdSessionsResponse>, Status> {
        let listing = self.ask(Query::Bfd).await?;
        Ok(Response::new(status::bfd_sessions(&listing)))
    }

    async fn list_routes(
        &self,
        request: Request<v1::ListRoutesRequest>,
    ) -> Result<Response<v1::ListRoutesResponse>, Status> {
        let request = request.get_ref();
        let query = ask::route_filter(request).map_err(Status::invalid_argument)?;
        let page = ask::page(&request.after, request.limit).map_err(Status::invalid_argument)?;
        let routes = self
            .ask(|answer| Query::Routes(page, query, answer))
            .await?;
        Ok(Response::new(routes))
    }

    async fn list_advertised(
        &self,
        request: Request<v1::ListAdvertisedRequest>,
    ) -> Result<Response<v1::ListRoutesResponse>, Status> {
        let missing = || Status::invalid_argument("neighbor: which one is not said");
        let request = request.get_ref();
        let peer = ask::peer(&request.neighbor).ok_or_else(missing)?;
        let unknown = Status::not_found(ask::no_neighbor(&peer));
        let page = ask::page(&request.after, request.limit).map_err(Status::invalid_argument)?;
        let routes = self
            .ask(|answer| Query::Advertised(page, peer, answer))
            .await?;
        Ok(Response::new(routes.ok_or(unknown)?))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let query = ask::explain_query(request.get_ref()).map_err(Status::invalid_argument)?;
        let answer = self.ask(|answer| Query::Explain(query, answer)).await?;
        Ok(Response::new(answer))
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        let order = ask::drain_order(request.get_ref()).map_err(Status::invalid_argument)?;
        let answer = self.ask(|answer| Query::Drain(order, answer)).await?;
        answer
            .map(Response::new)
            .map_err(Status::failed_precondition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_that_makes_no_sense_is_told_back() {
        let update = |prefix: &str, kind: v1::OriginKind, withdrawn| v1::OriginUpdate {
            generation: 7,
            prefix: prefix.into(),
            kind: kind.into(),
            withdrawn,
            idle: false,
        };
        let said = understand_origin(&update("10.244.0.0/26", v1::OriginKind::Block, false));
        assert!(
            matches!(
                said,
                Said::Origin {
                    generation: 7,
                    kind: OriginKind::Block,
                    ..
                }
            ),
            "{said:?}"
        );
        for bad in [
            update("10.244.0.1/26", v1::OriginKind::Block, false),
            update("10.244.0.0/26", v1::OriginKind::Unspecified, false),
        ] {
            let said = understand_origin(&bad);
            assert!(
                matches!(said, Said::Invalid { generation: 7, .. }),
                "{said:?}"
            );
        }
        let said = understand_origin(&update("10.244.0.0/26", v1::OriginKind::Unspecified, true));
        assert!(
            matches!(
                said,
                Said::Origin {
                    withdrawn: true,
                    ..
                }
            ),
            "{said:?}"
        );
    }
}
