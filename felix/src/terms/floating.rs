//! Floating addresses: who has one, of all pods of the cluster that ask for it.

use std::net::IpAddr;

use crds::net::Family;

use super::annotations::FLOATING;
use super::{Claim, Holder, Problem, Terms};

impl Terms {
    /// A pod of any node asks for floating addresses, or for none any more.
    pub fn claim(&mut self, uid: &str, claim: Option<Claim>) {
        let claim = claim.filter(|claim| !claim.addresses.is_empty());
        if self.claims.get(uid) == claim.as_ref() {
            return;
        }
        if let Some(old) = self.claims.remove(uid) {
            let holder = old.holder(uid);
            for address in &old.addresses {
                if let Some(holders) = self.holders.get_mut(address) {
                    holders.remove(&holder);
                }
            }
            self.holders.retain(|_, holders| !holders.is_empty());
        }
        if let Some(new) = claim {
            for address in &new.addresses {
                let holders = self.holders.entry(*address).or_default();
                holders.insert(new.holder(uid));
            }
            self.claims.insert(uid.to_owned(), new);
        }
        self.dirty = true;
    }

    /// Why a pod does not have a floating address that it asks for. The oldest has it; of two that are equally old, the one
    /// whose name comes first.
    pub(super) fn withheld(&self, uid: &str, address: IpAddr) -> Option<Problem> {
        let mut pools = self.pools.values();
        let pool = pools.find(|pool| pool.cidr.contains(address));
        let holders = self.holders.get(&address);
        let holder = holders.and_then(|holders| holders.first());
        let problem = match (pool, holder) {
            _ if !self.chosen.floating => {
                "it needs floatingIPs: Enabled in FelixConfiguration default".to_owned()
            }
            (None, _) => format!(
                "{address} is in no IPPool: make one, with disabled: true and blocks of one address"
            ),
            (Some(pool), _) if !pool.disabled => format!(
                "IPPool {} gives {address} to pods: take an address of one with disabled: true",
                pool.name
            ),
            (Some(pool), _) if pool.block_size != Family::of(address).bits() => format!(
                "IPPool {} is of blocks, and nodes take no single address of it: set its blockSize to {}",
                pool.name,
                Family::of(address).bits()
            ),
            (_, Some(holder)) if holder.uid != uid => {
                format!("{address} is {}'s, which asked for it first", holder.pod)
            }
            _ => return None,
        };
        Some(Problem {
            annotation: FLOATING.to_owned(),
            problem,
        })
    }

    /// Floating addresses of this node's pods: the address, the host interface, and the pod's own address.
    pub(super) fn floating(&self) -> impl Iterator<Item = (IpAddr, &String, IpAddr)> {
        self.asked().flat_map(move |(name, link, asked)| {
            let granted = asked.floating.iter().copied();
            let granted = granted.filter(|address| self.withheld(&link.uid, *address).is_none());
            granted.filter_map(move |address| {
                let own = |it: &&IpAddr| Family::of(**it) == Family::of(address);
                Some((address, name, *link.addresses.iter().find(own)?))
            })
        })
    }
}

impl Claim {
    fn holder(&self, uid: &str) -> Holder {
        Holder {
            created: self.created,
            pod: self.pod.clone(),
            uid: uid.to_owned(),
        }
    }
}
