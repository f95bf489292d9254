//! What the engine answers: which policies are in force where, and why a flow is judged as it is.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::engine::{Engine, Installed};
use super::evaluate::{Sides, Traffic, VerdictTrace, explain};
use super::index::Resident;
use super::intervals::span;
use super::k8s::PolicyError;
use super::lists::ListId;
use super::model::{Enforcement, Order, Peer, PeerList, PolicyKey, PortMatch};
use super::selecting::Labelled;
use super::sorting::offer;
use super::tables::{Direction, Subject, Verdict};
use crate::feed::HostEndpoint;

/// A policy object and what has become of it on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyStatus {
    /// The object.
    pub key: PolicyKey,
    /// `metadata.uid` of the version that [`in_force`](Self::in_force) is about, or of the one that closes what it selects.
    pub uid: String,
    /// Newest generation that was seen.
    pub generation: i64,
    /// Generation in force as of the last compile; `None` while no version of the object was ever understood, in which
    /// case what it selects is closed.
    pub in_force: Option<i64>,
    /// Name of its tier; empty when nothing of the object could be read.
    pub tier: String,
    /// Place of its tier among the tiers; `None` when there is no such tier.
    pub tier_order: Option<Order>,
    /// Place in the tier.
    pub order: Order,
    /// Whether it decides anything.
    pub enforcement: Enforcement,
    /// Rules it has in both directions.
    pub rules: usize,
    /// Directions it governs, in order.
    pub directions: Vec<Direction>,
    /// Endpoints on this node that it selects.
    pub endpoints: usize,
    /// Why the newest generation is not in force.
    pub error: Option<PolicyError>,
}

/// What governs one endpoint of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPolicies {
    /// Device group of the link; `None` while the pod is not known, so that everything is denied.
    pub subject: Option<Subject>,
    /// Policies for the flows it opens, in the order of evaluation.
    pub egress: Vec<PolicyKey>,
    /// Policies for the flows opened to it, in the order of evaluation.
    pub ingress: Vec<PolicyKey>,
}

impl Engine {
    /// Every policy object, in the order in which they are asked; those of which nothing could be read come last.
    pub fn policies(&self) -> impl Iterator<Item = PolicyStatus> {
        let unread = self
            .refused
            .keys()
            .filter(|key| !self.policies.contains_key(*key))
            .filter_map(|key| self.unread(key));
        let mut all: Vec<_> = self
            .policies
            .iter()
            .map(|(key, installed)| self.status(key, installed))
            .chain(unread)
            .collect();
        all.sort_by(|a, b| {
            let place = |it: &PolicyStatus| (it.tier_order.is_none(), it.tier_order, it.order);
            place(a).cmp(&place(b)).then_with(|| a.key.cmp(&b.key))
        });
        all.into_iter()
    }

    /// The policies whose status may be another since this was last asked, with what they are now; `None`: gone. Ask after
    /// a compile.
    pub fn stirred(&mut self) -> Vec<(PolicyKey, Option<PolicyStatus>)> {
        let stirred = std::mem::take(&mut self.stirred).into_iter();
        let now = |key: PolicyKey| {
            let status = self.policies.get(&key).map(|it| self.status(&key, it));
            let status = status.or_else(|| self.unread(&key));
            (key, status)
        };
        stirred.map(now).collect()
    }

    /// A policy of which nothing could be read.
    fn unread(&self, key: &PolicyKey) -> Option<PolicyStatus> {
        self.refused.get(key).map(|refused| PolicyStatus {
            key: key.clone(),
            uid: String::new(),
            generation: refused.generation,
            in_force: None,
            tier: String::new(),
            tier_order: None,
            order: Order(f64::INFINITY),
            enforcement: Enforcement::default(),
            rules: 0,
            directions: Vec::new(),
            endpoints: 0,
            error: Some(refused.error.clone()),
        })
    }

    fn status(&self, key: &PolicyKey, installed: &Installed) -> PolicyStatus {
        let refused = self.refused.get(key);
        let own = installed.policy.generation;
        let governed = |direction: &Direction| installed.rules(*direction).is_some();
        PolicyStatus {
            key: key.clone(),
            uid: installed.policy.uid.clone(),
            generation: refused.map_or(own, |refused| refused.generation),
            in_force: (!installed.closed).then_some(own),
            tier: installed.policy.tier.clone(),
            tier_order: self.tiers.get(&installed.policy.tier).map(|it| it.order),
            order: installed.policy.order,
            enforcement: installed.policy.enforcement,
            rules: Direction::BOTH
                .into_iter()
                .filter_map(|it| installed.policy.rules(it))
                .map(<[_]>::len)
                .sum(),
            directions: Direction::BOTH.into_iter().filter(governed).collect(),
            endpoints: installed.selected.len() + installed.hosts.len(),
            error: refused.map(|refused| refused.error.clone()),
        }
    }

    /// What governs an endpoint as of the last compile; `None` if there is no such endpoint.
    #[must_use]
    pub fn endpoint_policies(&self, ifname: &str) -> Option<EndpointPolicies> {
        self.index.endpoint(ifname)?;
        let programmed = self.endpoints.get(ifname);
        let keys = |direction| {
            let policies = programmed
                .into_iter()
                .flat_map(|programmed| &programmed.policies);
            let stages = self.stages(policies, direction);
            stages
                .into_iter()
                .flat_map(|stage| stage.policies)
                .map(|policy| policy.key.clone())
                .collect()
        };
        Some(EndpointPolicies {
            subject: programmed.and_then(|programmed| programmed.subject),
            egress: keys(Direction::Egress),
            ingress: keys(Direction::Ingress),
        })
    }

    /// Judges a flow of any pod that is known, with what was told so far. `peer` is the other side's address; for ICMP,
    /// `port` is `type << 8 | code`. `None` when nothing is known of the pod.
    #[must_use]
    pub fn judge(
        &self,
        direction: Direction,
        subject: &str,
        peer: IpAddr,
        protocol: u8,
        port: u16,
    ) -> Option<(Verdict, VerdictTrace)> {
        let traffic = Traffic {
            protocol,
            source_port: 0,
            port,
        };
        self.judge_flow(direction, subject, None, peer, traffic)
    }

    /// Judges likewise, with a source port, and from this address of the pod: its first of the family by default.
    #[must_use]
    pub fn judge_flow(
        &self,
        direction: Direction,
        subject: &str,
        own: Option<IpAddr>,
        peer: IpAddr,
        traffic: Traffic,
    ) -> Option<(Verdict, VerdictTrace)> {
        let pod = self.index.resident(subject)?;
        let it = Labelled::Pod(&pod.identity);
        let policies = self.policies.iter().filter(|(_, installed)| {
            let policy = &installed.policy;
            policy.stage.is_for_pods() && policy.subject.selects(it, &self.index.inherited)
        });
        let stages = self.stages(policies.map(|(key, _)| key), direction);
        let known = self.known(direction, pod, own, peer);
        Some(explain(direction, &stages, Verdict::Allow, &known, traffic))
    }

    /// Both sides of a flow of this pod.
    pub(super) fn known<'a>(
        &'a self,
        direction: Direction,
        pod: &'a Resident,
        own: Option<IpAddr>,
        peer: IpAddr,
    ) -> Known<'a> {
        let mut claimed = pod.claimed().iter();
        let claimed = claimed.find(|address| address.is_ipv4() == peer.is_ipv4());
        Known {
            engine: self,
            direction,
            peer: Side {
                address: Some(peer),
                pod: self.index.owner(peer).map(|(_, pod)| pod),
                host: None,
                own: false,
            },
            own: Side {
                address: own.or_else(|| claimed.copied()),
                pod: Some(pod),
                host: None,
                own: true,
            },
        }
    }

    /// Both sides of a flow of this host endpoint, or through it.
    pub(super) fn known_of_host<'a>(
        &'a self,
        direction: Direction,
        host: &'a HostEndpoint,
        own: IpAddr,
        peer: IpAddr,
    ) -> Known<'a> {
        let owner = |address| self.index.owner(address).map(|(_, pod)| pod);
        Known {
            engine: self,
            direction,
            peer: Side {
                address: Some(peer),
                pod: owner(peer),
                host: None,
                own: false,
            },
            own: Side {
                address: Some(own),
                pod: owner(own),
                host: Some(host),
                own: true,
            },
        }
    }
}

impl Engine {
    /// Whether an address is in a list as a block's, a set's or anybody's who is no pod.
    pub(super) fn lists_address(&self, list: &PeerList, address: IpAddr) -> bool {
        let inherited = &self.index.inherited;
        let contains = |net: IpNetwork| {
            let (first, last) = span(net);
            (first..=last).contains(&address)
        };
        let mut sets = self.others.sets.values().map(|set| &set.now);
        let mut others = self.others.at(address);
        list.iter().any(|peer| match peer {
            Peer::Net { cidr, except } => {
                contains(*cidr) && !except.iter().any(|part| contains(*part))
            }
            _ => false,
        }) || others.any(|other| other.object.listed(list, inherited))
            || sets.any(|set| {
                set.nets.iter().any(|net| contains(*net))
                    && list.selects(Labelled::Set(set), inherited)
            })
    }
}

/// Both sides of a flow as the objects describe them.
pub(super) struct Known<'a> {
    engine: &'a Engine,
    direction: Direction,
    peer: Side<'a>,
    own: Side<'a>,
}

/// One side of a flow.
struct Side<'a> {
    address: Option<IpAddr>,
    pod: Option<&'a Resident>,
    /// The host endpoint that policies select.
    host: Option<&'a HostEndpoint>,
    /// It is the side that policies select.
    own: bool,
}

impl Side<'_> {
    fn listed(&self, engine: &Engine, list: ListId) -> bool {
        let Some(list) = engine.lists.list(list) else {
            return false;
        };
        let inherited = &engine.index.inherited;
        let by_labels = self
            .pod
            .is_some_and(|pod| list.selects(Labelled::Pod(&pod.identity), inherited));
        let Some(address) = self.address.filter(|_| !by_labels) else {
            return by_labels;
        };
        engine.lists_address(list, address)
    }

    fn offers(&self, engine: &Engine, entry: &PortMatch, protocol: u8, port: u16) -> bool {
        let mut offers = BTreeSet::new();
        if let Some(host) = self.host {
            offers.extend(host.named_ports.iter().map(offer));
        } else if let Some(pod) = self.pod {
            offers.extend(pod.identity.named_ports.iter().map(offer));
        }
        if let Some(address) = self.address.filter(|_| !self.own) {
            offers.extend(engine.offers(address));
        }
        let mut offers = offers.iter();
        offers.any(|it| it.entry == *entry && it.protocol == protocol && it.port == port)
    }
}

impl Sides for Known<'_> {
    fn listed(&self, list: ListId) -> bool {
        self.peer.listed(self.engine, list)
    }

    fn own(&self, list: ListId) -> bool {
        self.own.listed(self.engine, list)
    }

    fn serves(&self, entry: &PortMatch, protocol: u8, port: u16) -> bool {
        let destination = match self.direction {
            Direction::Egress => &self.peer,
            Direction::Ingress => &self.own,
        };
        destination.offers(self.engine, entry, protocol, port)
    }

    fn sends_from(&self, entry: &PortMatch, protocol: u8, port: u16) -> bool {
        let source = match self.direction {
            Direction::Egress => &self.own,
            Direction::Ingress => &self.peer,
        };
        source.offers(self.engine, entry, protocol, port)
    }
}
