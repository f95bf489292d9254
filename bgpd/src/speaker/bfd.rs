//! BFD sessions beside BGP's (RFC 5882), and links that are lost.
//!
//! A session is watched from the moment its peer is configured with BFD and the way to it is known. BGP does not wait for
//! it: what counts is a session that was up and fails.

use std::collections::BTreeSet;

use crate::Millis;
use crate::bfd::{Event, Path, Settings};
use crate::config::{Distance, OnBfdFailure, PeerKey};
use crate::fsm::{DownReason, State};
use crate::nexthop::Change;
use crate::wire::Notification;
use crate::wire::notification::Cease;

use super::peer::{PeerState, session_interface};
use super::{BfdInfo, Output, Speaker, SpeakerEvent};

/// A BFD session that was asked for.
#[derive(Debug)]
pub(super) struct Watched {
    settings: Settings,
    /// What was last heard of it, and when.
    last: Option<(Event, Millis)>,
    since: Millis,
}

impl Watched {
    pub(super) fn info(&self, now: Millis) -> BfdInfo {
        let since = self.last.map_or(self.since, |(_, at)| at);
        BfdInfo {
            last: self.last.map(|(event, _)| event),
            state_millis: now.saturating_sub(since),
        }
    }
}

impl Speaker {
    /// Every peer's BFD session may have to be another one.
    pub(super) fn watch_all(&mut self) {
        let watched = self.watched.keys().cloned();
        self.rewatch.extend(watched);
        let asked = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.config.options.bfd.is_some());
        self.rewatch.extend(asked.map(|(key, _)| key.clone()));
    }

    /// Starts, changes and stops BFD sessions as peers and kernel have changed.
    pub(super) fn watch(&mut self, now: Millis, out: &mut Vec<Output>) {
        for key in std::mem::take(&mut self.rewatch) {
            let wanted = self.peers.get(&key).and_then(|peer| self.wanted(peer));
            match wanted {
                None => {
                    if self.watched.remove(&key).is_some() {
                        out.push(Output::BfdStop { peer: key });
                    }
                }
                Some(settings) => {
                    let watched = self.watched.get_mut(&key);
                    match watched {
                        Some(watched) if watched.settings == settings => continue,
                        Some(watched) => watched.settings = settings.clone(),
                        None => {
                            let watched = Watched {
                                settings: settings.clone(),
                                last: None,
                                since: now,
                            };
                            self.watched.insert(key.clone(), watched);
                        }
                    }
                    let peer = key;
                    out.push(Output::BfdStart { peer, settings });
                }
            }
        }
    }

    /// The BFD session that a peer shall have now.
    fn wanted(&self, peer: &PeerState) -> Option<Settings> {
        let asked = peer.config.options.bfd?;
        let before = self.watched.get(&peer.config.key).map(|it| &it.settings);
        let ends = peer.session.ends();
        let (remote, local, link) = match (&peer.config.key, ends, before) {
            (PeerKey::Address(address), ..) => {
                let link = self.table.connected(*address);
                (*address, peer.config.local_address, link)
            }
            // Whom the interface leads to is known while the session is there, and remembered when it is not.
            (PeerKey::Interface(_), Some((local, remote)), _) => {
                let link = session_interface(&self.table, local, remote);
                (remote.ip(), Some(local.ip()), link)
            }
            (PeerKey::Interface(_), None, Some(before)) => {
                (before.remote, before.local, before.path.ifindex())
            }
            (PeerKey::Interface(_), None, None) => return None,
        };
        let internal = peer.session.settings().is_internal();
        let on = |ifindex: u32| {
            let interface = self.table.interface_name(ifindex)?.to_owned();
            Some(Path::SingleHop { ifindex, interface })
        };
        let path = match peer.config.options.distance {
            Distance::Multihop(_) => Path::Multihop { least_ttl: 0 },
            Distance::Secure(hops) if hops > 1 => Path::Multihop {
                least_ttl: 256_u16
                    .saturating_sub(hops.into())
                    .try_into()
                    .unwrap_or(u8::MAX),
            },
            // A link without carrier is still the way to the peer: its failure is what BFD is for.
            Distance::Direct | Distance::Secure(_) => link
                .or_else(|| before?.path.ifindex())
                .and_then(on)
                .or_else(|| {
                    let far = internal && !self.table.is_empty();
                    far.then_some(Path::Multihop { least_ttl: 0 })
                })?,
        };
        Some(Settings::new(remote, local, path, asked))
    }

    /// The monitor says something of a session.
    pub(super) fn bfd(&mut self, key: &PeerKey, event: Event, now: Millis, out: &mut Vec<Output>) {
        let Some(watched) = self.watched.get_mut(key) else {
            return;
        };
        watched.last = Some((event, now));
        out.push(Output::Event(SpeakerEvent::Bfd {
            peer: key.clone(),
            event,
        }));
        // RFC 5882 section 3.2: that the peer ended its BFD session on purpose says nothing of the way to it.
        if let Event::Down { .. } = event {
            let bfd = self.peers.get(key).and_then(|it| it.config.options.bfd);
            let reason = match bfd.map(|it| it.on_failure) {
                Some(OnBfdFailure::Graceful) => DownReason::BfdDown,
                _ => DownReason::Sent(Notification::cease(Cease::BfdDown)),
            };
            self.with_session(key, now, out, |session, actions| {
                session.path_lost(reason, now, actions);
            });
        }
    }

    /// Peers whose sessions cannot outlive the changes, with the name of the interface: external ones, which are on the
    /// link itself, and whoever is known by its interface.
    pub(super) fn cut_off(&self, changes: &[Change]) -> Vec<(PeerKey, String)> {
        let lost: BTreeSet<u32> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Link {
                    ifindex, up: false, ..
                }
                | Change::LinkGone { ifindex } => Some(*ifindex),
                _ => None,
            })
            .filter(|ifindex| self.table.is_up(*ifindex))
            .collect();
        if lost.is_empty() {
            return Vec::new();
        }
        let cut = self.peers.iter().filter_map(|(key, peer)| {
            if peer.session.state() != State::Established {
                return None;
            }
            let direct = match peer.config.options.distance {
                Distance::Direct => {
                    !peer.session.settings().is_internal() || matches!(key, PeerKey::Interface(_))
                }
                Distance::Secure(hops) => hops <= 1,
                Distance::Multihop(_) => false,
            };
            let (local, remote) = peer.session.ends()?;
            let ifindex = session_interface(&self.table, local, remote)?;
            let name = self.table.interface_name(ifindex).unwrap_or_default();
            (direct && lost.contains(&ifindex)).then(|| (key.clone(), name.to_owned()))
        });
        cut.collect()
    }
}
