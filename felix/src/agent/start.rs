//! A new life of felix: what the earlier one left is taken up before anything is deleted.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::net::IpAddr;

use cni::frame::Pod;
use crds::ipam_block::Owner;
use ipam::Ipam;
use ipam::journal::{self, Replay};

use super::acks::Acks;
use super::addresses::{Blocks, attachment_key};
use super::bgp::Bgp;
use super::endpoint::{Endpoint, State};
use super::hosts::Hosts;
use super::input::Node;
use super::services::Services;
use super::view::Samples;
use super::{Agent, BGP_PATIENCE, Output, Routed};
use crate::Millis;
use crate::nft::epoch::Options;
use crate::policy::Engine;
use crate::policy::tables::Tables;
use crate::routes::table::Changed;
use crate::routes::want::Wants;
use crate::terms::Terms;

/// What the agent starts with.
#[derive(Debug)]
pub struct Start {
    /// This node: its name, the uid of its object, the id kept in the state directory.
    pub owner: Owner,
    /// Id of this life of the process.
    pub life: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The attachment log, read.
    pub log: Replay,
    /// Host interfaces of ours, by name, with their index.
    pub links: BTreeMap<String, u32>,
    /// Addresses that workload routes of ours lead to.
    pub routed: BTreeSet<IpAddr>,
    /// Whether BGP routes of ours are in the kernel, for IPv4 and IPv6.
    pub preserved: [bool; 2],
    /// Elements of the table in the kernel.
    pub tables: Tables,
    /// MTU for pods, in bytes.
    pub mtu: u32,
    /// The node's addresses, as far as they are known without the API.
    pub addresses: Vec<IpAddr>,
    /// Own addresses on loopback interfaces.
    pub loopbacks: BTreeSet<IpAddr>,
    /// Own addresses by interface, without those of pods and loopbacks.
    pub interfaces: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl Agent {
    /// Takes up what is left. Attachments in the log whose interface is gone have no network any more: they are freed.
    #[must_use]
    pub fn new(start: Start, now: Millis) -> Self {
        for damage in &start.log.damaged {
            tracing::error!(%damage, "the attachment log is damaged; addresses that may be in use are held back");
        }
        let mut ipam = Ipam::new(start.owner.clone(), start.boot_id.clone());
        ipam.recover(start.log, now);
        let mut engine = Engine::new();
        engine.resume(&start.tables);
        let routed = start.routed.clone();
        let mut agent = Self {
            node_name: start.owner.node.clone(),
            owner: start.owner,
            node: Node {
                addresses: start.addresses,
                ..Node::default()
            },
            mtu: start.mtu,
            engine,
            options: Options::default(),
            hosts: Hosts::new(start.interfaces),
            ipam,
            bgp: Bgp::new(start.life, start.boot_id, start.preserved),
            endpoints: BTreeMap::new(),
            links: start.links,
            parked: Vec::new(),
            in_sync: BTreeSet::new(),
            services: Services::default(),
            lost: BTreeMap::new(),
            pods: HashSet::new(),
            local_pods: BTreeMap::new(),
            pools: BTreeMap::new(),
            pool_errors: BTreeMap::new(),
            blocks: Blocks::new(start.routed),
            wants: Wants::default(),
            routes_changed: Changed::All,
            relink: false,
            reread_routes: true,
            engine_dirty: true,
            tables_known: false,
            applying: false,
            retry: None,
            kernel_problem: None,
            routed: Routed::default(),
            route_retry: None,
            log_problem: None,
            routes_refused: BTreeSet::new(),
            settings_refused: BTreeSet::new(),
            loopbacks: start.loopbacks,
            told_addresses: BTreeSet::new(),
            network_available: false,
            bgpd_away: Some(now),
            bgp_until: Some(now + BGP_PATIENCE),
            started: now,
            outputs: VecDeque::new(),
            adds: Samples::default(),
            policies: Samples::default(),
            events: Default::default(),
            events_problem: None,
            events_unread: None,
            events_unlogged: None,
            policy_since: None,
            acks: Acks::default(),
            terms: Terms::default(),
            floating: BTreeMap::new(),
        };
        agent.readdress();
        agent.configure();
        agent.take_up(now);
        agent.take_up_floating(&routed);
        agent
    }

    fn take_up(&mut self, now: Millis) {
        let attachments: Vec<ipam::Attachment> = self.ipam.attachments().cloned().collect();
        for attachment in attachments {
            let key = attachment_key(&attachment.key);
            let name = key.host_interface();
            let Some(ifindex) = self.links.get(&name).copied() else {
                tracing::info!(%key, "an attachment's interface went while felix was away");
                self.ipam.free(&attachment.key, now);
                continue;
            };
            let pod = attachment.pod;
            let pod = Pod {
                namespace: pod.namespace,
                name: pod.name,
                uid: pod.uid,
            };
            let addresses = attachment.addresses;
            let endpoint = Endpoint {
                key,
                pod,
                addresses,
                ifindex: Some(ifindex),
                state: State::Attached,
            };
            self.endpoints.insert(name.clone(), endpoint);
            self.plug(&name);
        }
        self.outputs
            .push_back(Output::RewriteLog(self.ipam.compact()));
        self.pump(now);
    }
}

/// Reads the attachment log.
#[must_use]
pub fn read_log(bytes: &[u8], boot_id: &str) -> Replay {
    journal::replay(bytes, boot_id)
}
