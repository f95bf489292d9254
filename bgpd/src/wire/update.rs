//! UPDATE (RFC 4271 section 4.3, RFC 4760, RFC 7606).

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use crds::net::{Cidr, Family};

use super::attribute::{self, Attributes, Problem, ProblemKind, Reaction, code};
use super::cursor::Cursor;
use super::nlri::{self, Item, Paths};
use super::notification::UpdateError;
use super::writer::{Announcer, withdraw_one};
use super::{Dialect, Notification};

/// What an UPDATE says once RFC 7606 has been applied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Update {
    /// Prefixes that are gone; they come before those announced.
    pub withdrawn: Vec<Cidr>,
    /// Prefixes announced, together with all that have the same attributes.
    pub announced: Vec<(Attributes, Vec<Cidr>)>,
    /// Path identifiers of all those prefixes (RFC 7911).
    pub path_ids: PathIds,
    /// The family whose initial routes are complete with this message (RFC 4724 section 2).
    pub end_of_rib: Option<Family>,
    /// What was wrong and already dealt with.
    pub problems: Vec<Problem>,
}

/// Path identifiers in an UPDATE, in the order of its prefixes; an empty list: all are 0, as where none are carried.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathIds {
    /// Those of the withdrawn prefixes.
    pub withdrawn: Vec<u32>,
    /// Those of each list of announced prefixes.
    pub announced: Vec<Vec<u32>>,
}

/// The attributes of a route leave no room for even one prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the attributes do not fit into one message")]
pub struct TooLong;

impl Update {
    /// Reads the body. An error ends the session.
    pub fn decode(body: &[u8], dialect: Dialect) -> Result<Self, Notification> {
        let lengths = || Notification::update(UpdateError::MalformedAttributes, &[]);
        let network = || Notification::update(UpdateError::InvalidNetwork, &[]);
        let mut cursor = Cursor::new(body);
        let length = cursor.u16().ok_or_else(lengths)?;
        let withdrawn = cursor.take(usize::from(length)).ok_or_else(lengths)?;
        let length = cursor.u16().ok_or_else(lengths)?;
        let attributes = cursor.take(usize::from(length)).ok_or_else(lengths)?;
        let plain = cursor.rest();

        let with_ids = dialect.paths_received.contains(Family::V4);
        let (withdrawn, withdrawn_ids) =
            nlri::decode(withdrawn, Family::V4, with_ids).ok_or_else(network)?;
        let plain = nlri::decode(plain, Family::V4, with_ids).ok_or_else(network)?;
        let mut decoded = attribute::decode(attributes, dialect)?;
        // RFC 4760 section 3: where only MP_REACH_NLRI announces, NEXT_HOP is ignored, whatever it says.
        let reach = decoded.reach.as_ref();
        if plain.0.is_empty() && reach.is_some_and(|it| !it.paths.0.is_empty()) {
            decoded.problems.retain(|it| it.code != code::NEXT_HOP);
        }

        let mut update = Self {
            withdrawn,
            path_ids: PathIds {
                withdrawn: withdrawn_ids,
                announced: Vec::new(),
            },
            ..Self::default()
        };
        update.end_of_rib = match &decoded.unreach {
            _ if !update.withdrawn.is_empty() || !plain.0.is_empty() || decoded.any => None,
            Some((family, (gone, _))) => gone.is_empty().then_some(*family),
            None => attributes.is_empty().then_some(Family::V4),
        };
        if let Some((_, gone)) = decoded.unreach.take() {
            update.withdraw(gone);
        }
        update.announce(&mut decoded, plain);
        let bad = update
            .problems
            .iter()
            .any(|problem| problem.reaction == Reaction::TreatAsWithdraw);
        if bad {
            // RFC 7606 section 5.2: without prefixes there is nothing that could be withdrawn, and nobody knows what
            // was meant. Prefixes of a family not spoken here are some, though, and MP_UNREACH_NLRI alone is clear.
            let others = update
                .problems
                .iter()
                .any(|problem| problem.kind == ProblemKind::Family);
            if update.announced.is_empty() && !others && decoded.any {
                return Err(lengths());
            }
            let ids = std::mem::take(&mut update.path_ids.announced);
            for ((_, prefixes), ids) in std::mem::take(&mut update.announced).into_iter().zip(ids) {
                update.withdraw((prefixes, ids));
            }
        }
        Ok(update)
    }

    /// Every withdrawn prefix with its path identifier.
    pub fn withdrawn_paths(&self) -> impl Iterator<Item = (Cidr, u32)> {
        paths(&self.withdrawn, &self.path_ids.withdrawn)
    }

    /// Every announced prefix with its path identifier, by attributes.
    pub fn announced_paths(
        &self,
    ) -> impl Iterator<Item = (&Attributes, impl Iterator<Item = (Cidr, u32)>)> {
        let lists = self.announced.iter().enumerate();
        lists.map(|(index, (attributes, prefixes))| {
            let ids = self.path_ids.announced.get(index);
            (attributes, paths(prefixes, ids.map_or(&[], Vec::as_slice)))
        })
    }

    fn withdraw(&mut self, (prefixes, ids): Paths) {
        let have = &mut self.path_ids.withdrawn;
        // Where only one of two families carries identifiers, the other one's are 0.
        if !have.is_empty() || !ids.is_empty() {
            have.resize(self.withdrawn.len(), 0);
            have.extend(ids);
            have.resize(self.withdrawn.len() + prefixes.len(), 0);
        }
        self.withdrawn.extend(prefixes);
    }

    /// Puts prefixes together with their attributes, noting those that are missing.
    fn announce(&mut self, decoded: &mut attribute::Decoded, plain: Paths) {
        let reach = decoded
            .reach
            .take()
            .filter(|reach| !reach.paths.0.is_empty());
        if plain.0.is_empty() && reach.is_none() {
            self.problems = std::mem::take(&mut decoded.problems);
            return;
        }
        // RFC 7606 section 3 d; a NEXT_HOP is only needed for prefixes outside of MP_REACH_NLRI (RFC 4760 section 3).
        let missing = [
            (code::ORIGIN, decoded.origin.is_none()),
            (code::AS_PATH, decoded.as_path.is_none()),
            (
                code::NEXT_HOP,
                decoded.next_hop.is_none() && !plain.0.is_empty(),
            ),
        ];
        for (code, _) in missing.into_iter().filter(|(_, missing)| *missing) {
            // A bad one is missing too, but has been noted.
            if !decoded.problems.iter().any(|problem| problem.code == code) {
                let (kind, reaction) = (ProblemKind::Missing, Reaction::TreatAsWithdraw);
                decoded.problems.push(Problem {
                    code,
                    kind,
                    reaction,
                    bytes: Vec::new(),
                });
            }
        }
        self.problems = std::mem::take(&mut decoded.problems);
        let plain = (!plain.0.is_empty()).then(|| {
            let next_hop = IpAddr::V4(decoded.next_hop.unwrap_or(Ipv4Addr::UNSPECIFIED));
            (next_hop.into(), plain)
        });
        let reach = reach.map(|reach| (reach.next_hop, reach.paths));
        // One list is the rule; memory for four, as a vector begins with, is a lot for every UPDATE.
        self.announced = Vec::with_capacity(1);
        self.path_ids.announced = Vec::with_capacity(1);
        let lists = plain.into_iter().chain(reach);
        let mut lists = lists.peekable();
        while let Some((next_hop, (prefixes, ids))) = lists.next() {
            let decoded = match lists.peek() {
                Some(_) => decoded.clone(),
                None => std::mem::take(decoded),
            };
            let attributes = decoded.attributes(next_hop);
            // Without the mandatory ones a withdrawal follows, for which only the prefixes count.
            let attributes = attributes.unwrap_or_else(|| Attributes::new(next_hop));
            self.announced.push((attributes, prefixes));
            self.path_ids.announced.push(ids);
        }
    }
}

/// Prefixes with their path identifiers, which [`PathIds`] may leave out.
pub fn paths(prefixes: &[Cidr], ids: &[u32]) -> impl Iterator<Item = (Cidr, u32)> {
    let ids = ids.iter().copied().chain(std::iter::repeat(0));
    prefixes.iter().copied().zip(ids)
}

/// The fewest UPDATEs that announce the prefixes, all of one family, with these attributes; without path identifiers.
pub fn announce(
    attributes: &Attributes,
    family: Family,
    prefixes: &[Cidr],
    dialect: Dialect,
) -> Result<Vec<Bytes>, TooLong> {
    announce_items(attributes, family, prefixes, dialect)
}

/// The same with a path identifier before each prefix (RFC 7911).
pub fn announce_paths(
    attributes: &Attributes,
    family: Family,
    paths: &[(u32, Cidr)],
    dialect: Dialect,
) -> Result<Vec<Bytes>, TooLong> {
    announce_items(attributes, family, paths, dialect)
}

fn announce_items<T: Item>(
    attributes: &Attributes,
    family: Family,
    prefixes: &[T],
    dialect: Dialect,
) -> Result<Vec<Bytes>, TooLong> {
    let announcer = Announcer::new(attributes, family, dialect)?;
    let (mut rest, mut messages) = (prefixes, Vec::new());
    while !rest.is_empty() {
        let mut message = Vec::new();
        rest = announcer.write_one(rest, &mut message)?;
        messages.push(message.into());
    }
    Ok(messages)
}

/// The fewest UPDATEs that withdraw the prefixes, all of one family; without path identifiers.
pub fn withdraw(family: Family, prefixes: &[Cidr]) -> Vec<Bytes> {
    withdraw_items(family, prefixes)
}

/// The same with a path identifier before each prefix (RFC 7911).
pub fn withdraw_paths(family: Family, paths: &[(u32, Cidr)]) -> Vec<Bytes> {
    withdraw_items(family, paths)
}

fn withdraw_items<T: Item>(family: Family, prefixes: &[T]) -> Vec<Bytes> {
    let (mut rest, mut messages) = (prefixes, Vec::new());
    while !rest.is_empty() {
        let mut message = Vec::new();
        rest = withdraw_one(family, rest, &mut message);
        messages.push(message.into());
    }
    messages
}

/// The End-of-RIB of a family (RFC 4724 section 2).
pub fn end_of_rib(family: Family) -> Bytes {
    let mut out = Vec::new();
    withdraw_one::<Cidr>(family, &[], &mut out);
    out.into()
}
