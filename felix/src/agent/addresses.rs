//! Address management: pools, blocks, allocations, and the routes and origins that follow from owning a block.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::v1;
use api::v1::OriginKind;
use cni::error::{CniError, Code};
use cni::frame::Pod;
use cni::key::AttachmentKey;
use crds::ip_pool::Pool;
use crds::ipam_block::Block;
use crds::net::{Cidr, Family};
use ipam::journal;

use super::endpoint::{Endpoint, State};
use super::input::{Kind, Node};
use super::view::count;
use super::{Agent, Output, bgp};
use crate::Millis;
use crate::routes::want;

/// What the agent keeps about blocks beside address management itself.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// This node's objects, by name.
    seen: BTreeMap<String, Block>,
    /// Ours: the unreachable route is wanted. The value says whether BGP shall announce it.
    held: BTreeMap<Cidr, bool>,
    /// Being withdrawn; the route goes when the peers know.
    leaving: BTreeSet<Cidr>,
    /// Addresses that routes of an earlier life and the API show in use here, for when the log was lost.
    found: BTreeSet<IpAddr>,
    /// When address management is told again what is in use.
    tell_at: Option<Millis>,
}

impl Blocks {
    /// Nothing known but the addresses that routes of an earlier life lead to.
    pub(super) fn new(found: BTreeSet<IpAddr>) -> Self {
        Self {
            found,
            ..Self::default()
        }
    }
}

/// While addresses are held back, how often it is looked whether they still must be.
const TELL_EVERY: Millis = 60_000;

impl Agent {
    /// One address of each family that has a pool, or the reason why not.
    pub(super) fn allocate(
        &mut self,
        key: &AttachmentKey,
        pod: &Pod,
        now: Millis,
    ) -> Result<Vec<IpAddr>, CniError> {
        let in_force = self.in_force();
        let families = Family::ALL
            .into_iter()
            .filter(|family| in_force.iter().any(|pool| pool.cidr.family() == *family));
        let request = ipam::Request {
            key: ipam_key(key),
            pod: ipam_pod(pod),
            host_interface: key.host_interface(),
            families: families.collect(),
        };
        if request.families.is_empty() {
            let fix = "create an IPPool, or check disabled and nodeSelector of those there are";
            return Err(CniError::new(
                Code::NoAddress,
                "no pool is in force for this node",
                fix,
            ));
        }
        let outcome = self.ipam.allocate(&request, now);
        self.pump(now);
        outcome.map_err(|error| {
            let code = if error.is_transient() {
                Code::TryAgain
            } else {
                Code::NoAddress
            };
            CniError::new(code, "no address for the pod", error)
        })
    }

    /// Frees what an attachment holds.
    pub(super) fn free(&mut self, key: &AttachmentKey, now: Millis) {
        self.ipam.free(&ipam_key(key), now);
        self.pump(now);
        self.unpark(now);
    }

    pub(super) fn ipam(&mut self, input: ipam::Input, now: Millis) {
        self.ipam.handle(input, now);
        self.pump(now);
        match self.blocks.tell_at {
            Some(at) if now >= at => self.tell_in_use(now),
            None if self.ipam.held() > 0 && self.in_sync.contains(&Kind::Pod) => {
                self.blocks.tell_at = Some(now + TELL_EVERY);
            }
            _ => {}
        }
        if !self.parked.is_empty() {
            self.unpark(now);
        }
    }

    pub(super) fn node(&mut self, node: Node, now: Millis) {
        if node.uid != self.owner.node_uid {
            // Blocks belong to a Node object, not to a name. A new life finds out what is still its own.
            let reason = format!("Node {} was made again with another uid", self.node_name);
            self.outputs.push_back(Output::Stop(reason));
            return;
        }
        let addresses_changed = self.node.addresses != node.addresses;
        self.node = node;
        if addresses_changed {
            let addresses = self.node.addresses.clone();
            self.outputs.push_back(Output::KeepAddresses(addresses));
            self.readdress();
        }
        self.pools_changed(now);
    }

    pub(super) fn pool(
        &mut self,
        name: String,
        pool: Result<Pool, crds::FieldError>,
        refused: Option<bool>,
        now: Millis,
    ) {
        let problem = pool.as_ref().err().map(ToString::to_string);
        self.pool_told(&name, problem, refused);
        if let Ok(pool) = pool {
            self.terms.pool(&name, Some(&pool));
            self.pools.insert(name, pool);
            self.pools_changed(now);
        }
    }

    pub(super) fn pool_gone(&mut self, name: &str, now: Millis) {
        self.pool_errors.remove(name);
        if self.pools.remove(name).is_some() {
            self.terms.pool(name, None);
            self.pools_changed(now);
        }
    }

    pub(super) fn block(&mut self, object: &crds::IPAMBlock, now: Millis) {
        match Block::try_from(object) {
            Ok(block) => {
                self.blocks.seen.insert(block.name.clone(), block.clone());
                if self.in_sync.contains(&Kind::IpamBlock) {
                    self.ipam(ipam::Input::Seen(block), now);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a block is not understood; what was known of it stays")
            }
        }
    }

    pub(super) fn block_gone(&mut self, name: &str, now: Millis) {
        if let Some(block) = self.blocks.seen.remove(name) {
            self.ipam(
                ipam::Input::Gone {
                    cidr: block.cidr,
                    uid: block.uid,
                },
                now,
            );
        }
    }

    /// The complete list that follows says the same to address management, and all of it at once.
    pub(super) fn block_unlisted(&mut self, name: &str) {
        self.blocks.seen.remove(name);
    }

    pub(super) fn configuration(
        &mut self,
        configuration: crds::ipam_configuration::Configuration,
        now: Millis,
    ) {
        self.ipam(ipam::Input::Configuration(configuration), now);
    }

    /// A list is complete: those that address management waits for are handed on whole.
    pub(super) fn addresses_in_sync(&mut self, kind: Kind, now: Millis) {
        match kind {
            Kind::IpamBlock => {
                let listed = self.blocks.seen.values().cloned().collect();
                self.ipam(ipam::Input::Listed(listed), now);
                self.restore_from_mirrors(now);
            }
            Kind::Pod => self.tell_in_use(now),
            Kind::IpPool | Kind::Node => self.pools_changed(now),
            _ => {}
        }
    }

    /// Does the node own what it needs to take pods?
    pub(super) fn owns_blocks(&self) -> bool {
        self.ipam.is_ready()
    }

    /// The kernel has the unreachable routes of these blocks: they may be announced.
    pub(super) fn announce_blocks(&mut self) {
        let ready: Vec<Cidr> = self
            .blocks
            .held
            .iter()
            .filter(|(cidr, export)| **export && !self.routed.refused.contains(cidr))
            .map(|(cidr, _)| *cidr)
            .collect();
        for cidr in ready {
            let idle = self.ipam.is_idle(cidr);
            self.outputs.extend(
                self.bgp
                    .announce(cidr, OriginKind::Block, idle)
                    .map(Output::ToBgpd),
            );
        }
    }

    /// bgpd said something, or went away.
    pub(super) fn bgp_changed(&mut self, change: bgp::Change, now: Millis) {
        match change {
            bgp::Change::Nothing => {}
            bgp::Change::Routes(prefixes) => {
                prefixes.iter().for_each(|prefix| self.want_bgp(*prefix))
            }
            bgp::Change::Complete(gone) => {
                gone.iter().for_each(|prefix| self.want_bgp(*prefix));
                // Only now may what an earlier life left go.
                self.reread_routes = true;
            }
            bgp::Change::Withdrawn(prefixes) => {
                for cidr in prefixes {
                    if self.blocks.leaving.remove(&cidr) {
                        self.unwant_block(cidr);
                        self.ipam(ipam::Input::Withdrawn { cidr }, now);
                    }
                }
            }
        }
    }

    /// Takes what address management wants done.
    pub(super) fn pump(&mut self, now: Millis) {
        while let Some(output) = self.ipam.poll() {
            match output {
                ipam::Output::Log(record) => {
                    let mut bytes = Vec::new();
                    journal::encode(&record, &mut bytes);
                    self.outputs.push_back(Output::Log(bytes));
                }
                ipam::Output::Create { cidr, pool } => {
                    let block = Block::claim(cidr, &pool, &self.owner);
                    self.outputs
                        .push_back(Output::CreateBlock(cidr, Box::new(block)));
                }
                ipam::Output::Delete { cidr, uid } => {
                    self.outputs.push_back(Output::DeleteBlock(cidr, uid))
                }
                ipam::Output::Mirror {
                    cidr,
                    uid,
                    allocations,
                } => {
                    self.outputs
                        .push_back(Output::MirrorBlock(cidr, uid, allocations));
                }
                ipam::Output::Survey => self.outputs.push_back(Output::SurveyBlocks),
                ipam::Output::Announce { cidr, pool } => {
                    let export = self.pools.get(&pool).is_none_or(|pool| pool.export);
                    self.blocks.leaving.remove(&cidr);
                    self.blocks.held.insert(cidr, export);
                    self.want_block(cidr);
                }
                ipam::Output::Withdraw { cidr } => self.withdraw_block(cidr, now),
                ipam::Output::Quarantined { cidr, reason } => {
                    tracing::error!(%cidr, %reason, "a block with pods of this node has another owner; it is not announced any more");
                }
            }
        }
        if self.ipam.wants_compaction() {
            self.outputs
                .push_back(Output::RewriteLog(self.ipam.compact()));
        }
    }

    fn withdraw_block(&mut self, cidr: Cidr, now: Millis) {
        self.blocks.held.remove(&cidr);
        let (message, change) = self.bgp.withdraw(cidr);
        self.outputs.extend(message.map(Output::ToBgpd));
        if change == bgp::Change::Nothing {
            self.blocks.leaving.insert(cidr);
        } else {
            // Nobody was told of it: there is nothing to wait for.
            self.unwant_block(cidr);
            self.ipam.handle(ipam::Input::Withdrawn { cidr }, now);
        }
    }

    fn in_force(&self) -> Vec<Pool> {
        ipam::pool::in_force(self.pools.values().cloned(), &self.node.labels)
    }

    /// Hands the pools in force on, and lets a changed `disableBGPExport` take effect.
    fn pools_changed(&mut self, now: Millis) {
        if !self.in_sync.contains(&Kind::IpPool) || !self.in_sync.contains(&Kind::Node) {
            return;
        }
        let held: Vec<Cidr> = self.blocks.held.keys().copied().collect();
        for cidr in held {
            let pool = self.pools.values().find(|pool| pool.cidr.covers(cidr));
            let export = pool.is_none_or(|pool| pool.export);
            if self.blocks.held.insert(cidr, export) != Some(!export) {
                continue;
            }
            if export {
                // Announced when the kernel is seen to have its unreachable route.
                self.routes_changed.add(want::block(cidr));
            } else {
                let message = self.bgp.withdraw(cidr).0;
                self.outputs.extend(message.map(Output::ToBgpd));
            }
        }
        let pools = self.in_force();
        self.ipam(ipam::Input::Pools(pools), now);
    }

    /// What is in use as far as anybody can tell, for when the log cannot.
    fn tell_in_use(&mut self, now: Millis) {
        let attached = self
            .endpoints
            .values()
            .flat_map(|endpoint| endpoint.addresses.iter().copied());
        let pods = self.local_pods.values().flat_map(|it| it.iter().copied());
        let in_use: BTreeSet<IpAddr> = attached
            .chain(pods)
            .chain(self.blocks.found.iter().copied())
            .collect();
        self.blocks.tell_at = None;
        self.ipam(ipam::Input::InUse(in_use), now);
    }

    /// The kernel has no route any more that nobody wants: what an earlier life left shows nothing in use from now on.
    pub(super) fn swept(&mut self) {
        self.blocks.found.clear();
    }

    pub(super) const fn next_tell(&self) -> Option<Millis> {
        self.blocks.tell_at
    }

    /// Attachments that the log does not know, because it was lost, but whose interface is there: the mirror names their
    /// key, and the key the interface. Their pods keep address, route and policy. Only what is held back can be such: a
    /// mirror is a second old, and also shows what was freed since.
    fn restore_from_mirrors(&mut self, now: Millis) {
        let mut found: BTreeMap<String, Endpoint> = BTreeMap::new();
        let lines = self
            .blocks
            .seen
            .values()
            .flat_map(|block| &block.allocations);
        for (address, line) in lines.filter(|(address, _)| self.ipam.is_held(*address)) {
            let key = AttachmentKey {
                network: line.network.clone(),
                container_id: line.container_id.clone(),
                interface: line.interface.clone(),
            };
            let name = key.host_interface();
            let Some(ifindex) = self
                .links
                .get(&name)
                .copied()
                .filter(|_| !self.endpoints.contains_key(&name))
            else {
                continue;
            };
            let pod = Pod {
                namespace: line.namespace.clone(),
                name: line.pod.clone(),
                uid: line.pod_uid.clone(),
            };
            let endpoint = found.entry(name).or_insert_with(|| Endpoint {
                key,
                pod,
                addresses: Vec::new(),
                ifindex: Some(ifindex),
                state: State::Attached,
            });
            endpoint.addresses.push(*address);
        }
        for (name, endpoint) in found {
            let attachment = ipam::Attachment {
                key: ipam_key(&endpoint.key),
                addresses: endpoint.addresses.clone(),
                pod: ipam_pod(&endpoint.pod),
                host_interface: name.clone(),
            };
            if !self.ipam.adopt(attachment, now) {
                continue;
            }
            tracing::info!(
                pod = endpoint.pod_name(),
                "an attachment was found again by the mirror of its block"
            );
            self.endpoints.insert(name.clone(), endpoint);
            self.plug(&name);
        }
        self.pump(now);
    }
}

pub(super) fn ipam_key(key: &AttachmentKey) -> ipam::Key {
    ipam::Key {
        network: key.network.clone(),
        container: key.container_id.clone(),
        ifname: key.interface.clone(),
    }
}

fn ipam_pod(pod: &Pod) -> ipam::Pod {
    ipam::Pod {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
    }
}

pub(super) fn attachment_key(key: &ipam::Key) -> AttachmentKey {
    AttachmentKey {
        network: key.network.clone(),
        container_id: key.container.clone(),
        interface: key.ifname.clone(),
    }
}

/// A block as the status API shows it.
pub(super) fn view(block: ipam::BlockStatus) -> v1::Block {
    let epoch = match &block.state {
        ipam::State::Owned { epoch } | ipam::State::Releasing { epoch, .. } => epoch.clone(),
        _ => String::new(),
    };
    let allocations = block.allocations.iter().map(|line| v1::Allocation {
        address: line.address.clone(),
        pod: if line.pod.is_empty() {
            String::new()
        } else {
            format!("{}/{}", line.namespace, line.pod)
        },
        pod_uid: line.pod_uid.clone(),
        container_id: line.container_id.clone(),
        interface: line.interface.clone(),
    });
    v1::Block {
        name: block.cidr.object_name(),
        cidr: block.cidr.to_string(),
        pool: block.pool,
        state: block.state.to_string(),
        epoch,
        size: u32::from(block.size),
        used: count(block.allocations.len()),
        allocations: allocations.collect(),
    }
}
