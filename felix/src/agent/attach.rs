//! Calls of the plugin.

use cni::error::{CniError, Code};
use cni::frame::{Pod, Reply, Request};
use cni::key::AttachmentKey;
use crds::net::Cidr;

use super::endpoint::{Endpoint, State};
use super::input::{CallId, Fetched, try_again};
use super::view::millis;
use super::{Agent, Output};
use crate::Millis;
use crate::feed::LocalEndpoint;

/// An ADD that waits: for the feed to be complete, or for a block.
#[derive(Debug, Clone)]
pub(super) struct Parked {
    call: CallId,
    key: AttachmentKey,
    pod: Pod,
    until: Millis,
}

/// Longest that an ADD waits for an address: well below the plugin's own patience, so that the reason reaches the runtime.
const ADDRESS_PATIENCE: Millis = 4_000;
/// How long the feed may take to tell of a pod that the runtime already starts, before the API is asked.
const FEED_PATIENCE: Millis = 2_000;
/// Longest that an ADD waits for route and policy, the pod's identity included.
const POLICY_PATIENCE: Millis = 5_000;

impl Agent {
    pub(super) fn call(&mut self, call: CallId, request: Request, now: Millis) {
        match request {
            Request::Add { key, pod } => self.add(
                Parked {
                    call,
                    key,
                    pod,
                    until: now + ADDRESS_PATIENCE,
                },
                now,
            ),
            Request::Ready { key, .. } => self.ready(call, &key, now),
            Request::Del { key } => self.del(Some(call), &key, now),
            Request::Status => {
                let reply = self
                    .status_error()
                    .map_or(Reply::Done, |error| Reply::Failed { error });
                self.answer(call, reply);
            }
        }
    }

    /// The plugin is gone: an attachment it did not finish is taken back.
    pub(super) fn hangup(&mut self, call: CallId, now: Millis) {
        self.parked.retain(|parked| parked.call != call);
        let unfinished = self
            .endpoints
            .values()
            .find(|endpoint| match &endpoint.state {
                State::Reserved { call: by, .. } | State::Programming { call: by, .. } => {
                    *by == call
                }
                State::Attached | State::Removing { .. } => false,
            });
        if let Some(key) = unfinished.map(|endpoint| endpoint.key.clone()) {
            self.del(None, &key, now);
        }
    }

    /// Serves what could not be served before.
    pub(super) fn unpark(&mut self, now: Millis) {
        for parked in std::mem::take(&mut self.parked) {
            self.add(parked, now);
        }
    }

    fn add(&mut self, ask: Parked, now: Millis) {
        let outcome = match self.obstacle(&ask, now) {
            None => self.allocate(&ask.key, &ask.pod, now),
            Some(error) => Err(error),
        };
        match outcome {
            Ok(addresses) => {
                let state = State::Reserved {
                    call: ask.call,
                    since: now,
                };
                let ifindex = self.links.get(&ask.key.host_interface()).copied();
                self.reserved(
                    ask.call,
                    Endpoint {
                        key: ask.key,
                        pod: ask.pod,
                        addresses,
                        ifindex,
                        state,
                    },
                );
            }
            Err(error) if error.code == Code::TryAgain && now < ask.until => self.parked.push(ask),
            Err(error) => self.answer(ask.call, Reply::Failed { error }),
        }
    }

    /// What keeps an ADD from being served. An attachment that works is never given to a second ADD: that one's failure
    /// would take it away.
    fn obstacle(&mut self, ask: &Parked, now: Millis) -> Option<CniError> {
        let key = &ask.key;
        if ask.pod.uid.is_empty() {
            return Some(CniError::new(
                Code::BadEnvironment,
                "CNI_ARGS names no pod",
                "K8S_POD_UID is missing, and policy goes by it: a newer container runtime tells it",
            ));
        }
        let Some(endpoint) = self.endpoints.get(&key.host_interface()) else {
            return self.status_error();
        };
        match endpoint.state {
            State::Removing { .. } => Some(try_again("the attachment is still being removed", key)),
            State::Reserved { call, .. } | State::Programming { call, .. } if call != ask.call => {
                Some(try_again("another ADD is making the attachment", key))
            }
            State::Attached if endpoint.ifindex.is_none() => {
                self.del(None, key, now);
                Some(try_again("the attachment is still being removed", key))
            }
            State::Reserved { .. } | State::Programming { .. } | State::Attached => {
                Some(CniError::new(
                    Code::BadEnvironment,
                    "the container has this attachment already",
                    format!("{key}: a DEL must come before another ADD"),
                ))
            }
        }
    }

    /// The log's record has been queued by the allocation; the answer stands behind it, and is taken back when the
    /// record cannot be written.
    fn reserved(&mut self, call: CallId, endpoint: Endpoint) {
        let reply = Reply::Reserved {
            addresses: endpoint.addresses.clone(),
            mtu: self.mtu,
        };
        self.endpoints.insert(endpoint.host_interface(), endpoint);
        self.answer(call, reply);
    }

    fn ready(&mut self, call: CallId, key: &AttachmentKey, now: Millis) {
        let name = key.host_interface();
        let Some(endpoint) = self
            .endpoints
            .get_mut(&name)
            .filter(|e| matches!(e.state, State::Reserved { call: by, .. } if by == call))
        else {
            let error = CniError::new(Code::Other(102), "the attachment was not reserved", key);
            return self.answer(call, Reply::Failed { error });
        };
        if endpoint.ifindex.is_none() {
            let error = CniError::new(Code::Kernel, "the host has no such interface", &name);
            return self.answer(call, Reply::Failed { error });
        }
        endpoint.state = State::Programming {
            call,
            since: now,
            asked: false,
        };
        self.plug(&name);
    }

    /// Wants route and policy of an endpoint in the kernel.
    pub(super) fn plug(&mut self, name: &str) {
        let Some(endpoint) = self.endpoints.get(name) else {
            return;
        };
        let local = LocalEndpoint {
            uid: endpoint.pod.uid.clone(),
            namespace: endpoint.pod.namespace.clone(),
            pod: endpoint.pod.name.clone(),
            addresses: endpoint.addresses.clone(),
        };
        let pod = endpoint.pod_name();
        let said = (
            endpoint.pod.uid.as_str(),
            pod,
            endpoint.addresses.as_slice(),
        );
        self.terms.link(name, Some(said));
        self.engine.set_local(name, local);
        self.engine_dirty = true;
        self.want_workload(name);
    }

    /// Takes an attachment away, whatever its state. `call` is the DEL that asks for it, if one does.
    pub(super) fn del(&mut self, call: Option<CallId>, key: &AttachmentKey, now: Millis) {
        let why = try_again("the attachment was deleted while it was made", key);
        if call.is_some() {
            let parked = std::mem::take(&mut self.parked);
            let (refused, others) = parked.into_iter().partition(|parked| parked.key == *key);
            self.parked = others;
            for Parked { call, .. } in refused {
                let error = why.clone();
                self.answer(call, Reply::Failed { error });
            }
        }
        self.take_away(call, key, why, now);
    }

    /// `why` is what an ADD that is still under way is told.
    fn take_away(&mut self, call: Option<CallId>, key: &AttachmentKey, why: CniError, now: Millis) {
        let name = key.host_interface();
        let Some(endpoint) = self.endpoints.get_mut(&name) else {
            // Never reserved here, or gone already. An interface of that name can only be a remainder.
            self.links.remove(&name);
            self.free(key, now);
            self.outputs.push_back(Output::DeleteLink(name));
            return call
                .into_iter()
                .for_each(|call| self.answer(call, Reply::Done));
        };
        if let State::Removing { calls } = &mut endpoint.state {
            return calls.extend(call);
        }
        let removing = State::Removing {
            calls: call.into_iter().collect(),
        };
        if let State::Programming { call: waiting, .. } =
            std::mem::replace(&mut endpoint.state, removing)
        {
            self.answer(waiting, Reply::Failed { error: why });
        }
        self.engine.remove_local(&name);
        self.terms.link(&name, None);
        self.engine_dirty = true;
        self.unwant_workload(&name);
    }

    /// What the kernel now has: endpoints whose policy and route are in force are attached, those that left are freed.
    pub(super) fn settle(&mut self, now: Millis) {
        let mut done = Vec::new();
        let mut gone = Vec::new();
        let in_force = &self.engine.tables().links;
        let refused = &self.routed.refused;
        for (name, endpoint) in &mut self.endpoints {
            let mut addresses = endpoint.addresses.iter();
            let routed = addresses.all(|address| !refused.contains(&Cidr::host(*address)));
            match &mut endpoint.state {
                State::Programming { call, since, .. } if routed && in_force.contains_key(name) => {
                    self.adds.add(millis(now.saturating_sub(*since)));
                    done.push(*call);
                    endpoint.state = State::Attached;
                }
                State::Removing { calls } => {
                    gone.push((name.clone(), endpoint.key.clone(), std::mem::take(calls)))
                }
                _ => {}
            }
        }
        for call in done {
            self.answer(call, Reply::Done);
        }
        for (name, key, calls) in gone {
            self.endpoints.remove(&name);
            self.free(&key, now);
            for call in calls {
                self.answer(call, Reply::Done);
            }
            self.outputs.push_back(Output::DeleteLink(name));
        }
    }

    /// Looks after what has waited too long.
    pub(super) fn hurry(&mut self, now: Millis) {
        let late: Vec<_> = {
            let (late, parked) = std::mem::take(&mut self.parked)
                .into_iter()
                .partition(|p| now >= p.until);
            self.parked = parked;
            late
        };
        for parked in late {
            self.add(parked, now);
        }
        let mut ask = Vec::new();
        let mut give_up = Vec::new();
        for endpoint in self.endpoints.values_mut() {
            let State::Programming { since, asked, .. } = &mut endpoint.state else {
                continue;
            };
            let waited = now.saturating_sub(*since);
            if waited >= POLICY_PATIENCE {
                give_up.push(endpoint.key.clone());
            } else if waited >= FEED_PATIENCE
                && !*asked
                && !self.pods.contains(endpoint.pod.uid.as_str())
            {
                *asked = true;
                ask.push(endpoint.pod.clone());
            }
        }
        self.outputs.extend(
            ask.into_iter()
                .map(|pod| Output::FetchPod(pod.namespace, pod.name, pod.uid)),
        );
        for key in give_up {
            let problem = self.kernel_problem.as_ref();
            let why = match problem.or(self.routed.problem.as_ref()) {
                Some(problem) => try_again(
                    "the kernel does not take the pod's route and policy",
                    problem,
                ),
                None => try_again("the pod's identity did not come in time", &key),
            };
            self.take_away(None, &key, why, now);
        }
    }

    /// When [`Agent::hurry`] has something to do next.
    pub(super) fn next_hurry(&self) -> Option<Millis> {
        let parked = self.parked.iter().map(|parked| parked.until);
        let endpoints = self
            .endpoints
            .values()
            .filter_map(|endpoint| match endpoint.state {
                State::Programming { since, asked, .. }
                    if asked || self.pods.contains(endpoint.pod.uid.as_str()) =>
                {
                    Some(since + POLICY_PATIENCE)
                }
                State::Programming { since, .. } => Some(since + FEED_PATIENCE),
                _ => None,
            });
        parked.chain(endpoints).min()
    }

    /// The API's answer about a pod that the feed did not tell of in time.
    pub(super) fn fetched(&mut self, uid: &str, found: Fetched, now: Millis) {
        let why = match found {
            Fetched::Pod(pod) => return self.pod(pod),
            Fetched::Gone => try_again("the API knows no such pod", uid),
            Fetched::Away(problem) => try_again(
                "the API does not answer, and the pod is not known yet",
                problem,
            ),
        };
        let waiting = self.endpoints.values().filter(|e| e.pod.uid == uid);
        let keys: Vec<_> = waiting
            .filter(|e| matches!(e.state, State::Programming { .. }))
            .map(|e| e.key.clone())
            .collect();
        for key in keys {
            self.take_away(None, &key, why.clone(), now);
        }
    }

    pub(super) fn answer(&mut self, call: CallId, reply: Reply) {
        self.outputs.push_back(Output::Answer(call, reply));
    }
}
