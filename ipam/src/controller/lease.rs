//! The Lease in the API.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as Object, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};

use super::health::Health;
use super::{Clock, NAME, PATIENCE};
use crate::Millis;
use crate::election::{Election, Seen, Step, Timing};

/// Our part in it.
pub(super) struct Lease {
    api: Api<Object>,
    election: Election,
    timing: Timing,
    seconds: u16,
    clock: Clock,
}

impl Lease {
    pub(super) fn new(client: &Client, seconds: u16, clock: Clock) -> anyhow::Result<Self> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
        // A process that starts anew is another candidate: it cannot know what its predecessor still does.
        let life = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let identity = format!("{}_{}", host.trim(), life.trim());
        let timing = Timing {
            lease: Millis::from(seconds) * 1000,
        };
        Ok(Self {
            api: Api::default_namespaced(client.clone()),
            election: Election::new(identity, timing),
            timing,
            seconds,
            clock,
        })
    }

    pub(super) fn identity(&self) -> &str {
        self.election.identity()
    }

    /// Done when we lead.
    pub(super) async fn win(&mut self, health: &Health) {
        loop {
            self.turn(health).await;
            if self.election.leads(self.clock.now()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(self.timing.pause())).await;
        }
    }

    /// Done when we lead no more.
    pub(super) async fn keep(&mut self, health: &Health) {
        while let Some(until) = self.election.leads_until() {
            let until = self.clock.at(until).into();
            let renewed = tokio::time::timeout_at(until, async {
                tokio::time::sleep(Duration::from_millis(self.timing.pause())).await;
                self.turn(health).await;
            });
            if renewed.await.is_err() {
                return;
            }
        }
    }

    /// Gives it back, so that another can lead at once.
    pub(super) async fn give_back(&mut self) {
        if !self.election.leads(self.clock.now()) {
            return;
        }
        let released = tokio::time::timeout(PATIENCE, async {
            let mut lease = self.api.get(NAME).await?;
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(self.election.identity()) {
                spec.holder_identity = Some(String::new());
                self.api
                    .replace(NAME, &PostParams::default(), &lease)
                    .await?;
            }
            Ok::<_, kube::Error>(())
        });
        match released.await {
            Ok(Ok(())) => tracing::info!("the lease is given back"),
            Ok(Err(error)) => tracing::warn!(%error, "giving the lease back"),
            Err(_) => tracing::warn!("giving the lease back: the API does not answer"),
        }
    }

    async fn turn(&mut self, health: &Health) {
        let patience = Duration::from_millis(self.timing.deadline() / 2);
        let looked = tokio::time::timeout(patience, self.look()).await;
        health.looked(matches!(looked, Ok(Ok(()))));
        match looked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "looking at the lease"),
            Err(_) => tracing::warn!("looking at the lease: the API does not answer"),
        }
    }

    async fn look(&mut self) -> Result<(), kube::Error> {
        let found = self.api.get_opt(NAME).await?;
        let asked = self.clock.now();
        let step = self.election.seen(found.as_ref().map(seen).as_ref(), asked);
        if step == Step::Wait {
            return Ok(());
        }
        let mine = self.mine(found, step);
        let answer = match step {
            Step::Create => self.api.create(&PostParams::default(), &mine).await,
            _ => self.api.replace(NAME, &PostParams::default(), &mine).await,
        };
        match answer {
            Ok(_) => self.election.granted(asked),
            // Another was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn mine(&self, found: Option<Object>, step: Step) -> Object {
        let now = MicroTime(Timestamp::now());
        let before = found.unwrap_or_default();
        let spec = before.spec.unwrap_or_default();
        let held = step == Step::Renew;
        let transitions = spec.lease_transitions.unwrap_or_default();
        Object {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                ..before.metadata
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.election.identity().to_owned()),
                lease_duration_seconds: Some(self.seconds.into()),
                acquire_time: if held {
                    spec.acquire_time
                } else {
                    Some(now.clone())
                },
                renew_time: Some(now),
                lease_transitions: Some(match step {
                    Step::Take => transitions.saturating_add(1),
                    _ => transitions,
                }),
                ..spec
            }),
        }
    }
}

fn seen(lease: &Object) -> Seen {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec.lease_duration_seconds.unwrap_or_default();
    Seen {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.holder_identity.unwrap_or_default(),
        lasts: Millis::try_from(seconds).unwrap_or_default() * 1000,
    }
}
