use crds::ipam_block::Block as SeenBlock;

use super::*;
use crate::attachment::Pod;

mod allocating;
mod blocks;
mod lost_log;
mod model;

const BOOT: &str = "boot-1";
const NOW: Millis = 1_000_000;

fn owner(node: &str, node_uid: &str, instance: &str) -> Owner {
    Owner {
        node: node.to_owned(),
        node_uid: node_uid.to_owned(),
        instance: instance.to_owned(),
    }
}

fn us() -> Owner {
    owner("n1", "u1", "i1")
}

fn pool(name: &str, cidr: &str, block_size: u8) -> Pool {
    Pool {
        block_size,
        ..Pool::new(name, cidr.parse().unwrap())
    }
}

fn key(n: usize) -> Key {
    Key {
        network: "margay".to_owned(),
        container: format!("c{n}"),
        ifname: "eth0".to_owned(),
    }
}

fn request(n: usize, families: &[Family]) -> Request {
    let pod = Pod {
        namespace: "shop".to_owned(),
        name: format!("web-{n}"),
        uid: format!("p{n}"),
    };
    Request {
        key: key(n),
        pod,
        host_interface: format!("mgy{n}"),
        families: families.to_vec(),
    }
}

fn seen(cidr: Cidr, uid: &str, owner: &Owner) -> SeenBlock {
    SeenBlock {
        name: cidr.object_name(),
        uid: uid.to_owned(),
        cidr,
        pool: "pods".to_owned(),
        owner: owner.clone(),
        allocations: Vec::new(),
    }
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn drain(ipam: &mut Ipam) -> Vec<Output> {
    std::iter::from_fn(|| ipam.poll()).collect()
}

/// Outputs other than log records.
fn actions(ipam: &mut Ipam) -> Vec<Output> {
    drain(ipam)
        .into_iter()
        .filter(|output| !matches!(output, Output::Log(_)))
        .collect()
}

fn states(ipam: &Ipam) -> Vec<(String, String)> {
    ipam.blocks()
        .map(|block| (block.cidr.to_string(), block.state.to_string()))
        .collect()
}

/// A node that knows that it owns nothing, with these pools.
fn synced(pools: &[Pool]) -> Ipam {
    let mut ipam = Ipam::new(us(), BOOT);
    ipam.recover(
        journal::replay(&journal::write_all(&header(), []), BOOT),
        NOW,
    );
    ipam.handle(Input::Pools(pools.to_vec()), NOW);
    ipam.handle(Input::Listed(Vec::new()), NOW);
    ipam
}

fn header() -> Header {
    Header {
        version: journal::VERSION,
        boot_id: BOOT.to_owned(),
        owner: us(),
    }
}

/// The claim that was just sent.
fn sent_create(ipam: &mut Ipam) -> Cidr {
    let outputs = actions(ipam);
    match outputs.as_slice() {
        [Output::Create { cidr, .. }] => *cidr,
        other => panic!("expected one Create: {other:?}"),
    }
}

/// Carries out claims until none is left; the uid of a block is its name.
fn grant(ipam: &mut Ipam, now: Millis) -> Vec<Output> {
    let mut rest = Vec::new();
    while let Some(output) = ipam.poll() {
        match output {
            Output::Create { cidr, .. } => ipam.handle(
                Input::Created {
                    cidr,
                    uid: cidr.object_name(),
                },
                now,
            ),
            Output::Log(_) => {}
            other => rest.push(other),
        }
    }
    rest
}

/// A node with one v4 pool of /30 blocks that owns its first block.
fn with_block() -> (Ipam, Cidr) {
    let mut ipam = synced(&[pool("pods", "10.244.0.0/24", 30)]);
    let cidr = sent_create(&mut ipam);
    ipam.handle(
        Input::Created {
            cidr,
            uid: "e1".to_owned(),
        },
        NOW,
    );
    drain(&mut ipam);
    (ipam, cidr)
}
