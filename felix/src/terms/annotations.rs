//! Annotations of pods: what a pod asks for beside policy. Each one is understood by itself, so that one that is not leaves the
//! others in force.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crds::net::Cidr;

/// Prefixes that a pod may send from, beside its own addresses: a JSON list.
pub const SOURCES: &str = "margay.io/allowedSourcePrefixes";
/// Addresses by which a pod is reached, beside its own: a JSON list.
pub const FLOATING: &str = "margay.io/floatingIPs";
/// What annotations about limits begin with.
const LIMITS: &str = "qos.margay.io/";
/// What Kubernetes itself has.
const KUBERNETES: [(Way, &str); 2] = [
    (Way::In, "kubernetes.io/ingress-bandwidth"),
    (Way::Out, "kubernetes.io/egress-bandwidth"),
];
/// Prefixes and floating addresses of one pod.
const MOST: usize = 32;
/// Bytes that may come at once when nothing is said: four times the largest packet there is.
const BURST: u32 = 256 * 1024;
/// Connections of a pod in one direction: the kernel looks at all of them when one comes, 0.1 ms for so many.
const CONNECTIONS: u64 = 65_535;
/// Packets that may come at once when nothing is said.
const PACKET_BURST: u32 = 5;

/// Is the annotation one of those that are read here?
#[must_use]
pub fn concerns(name: &str) -> bool {
    let kubernetes = KUBERNETES.iter().any(|(_, known)| *known == name);
    kubernetes || [SOURCES, FLOATING].contains(&name) || name.starts_with(LIMITS)
}

/// Direction, as a pod sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// To the pod.
    In = 0,
    /// From the pod.
    Out = 1,
}

impl Way {
    const BOTH: [Self; 2] = [Self::In, Self::Out];

    const fn name(self) -> &'static str {
        match self {
            Self::In => "ingress",
            Self::Out => "egress",
        }
    }
}

/// Bytes in a second, and at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// In a second.
    pub rate: u64,
    /// At once.
    pub burst: u32,
}

/// Limits of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub bandwidth: Option<Shape>,
    /// Packets in a second, and at once.
    pub packets: Option<(u64, u32)>,
    /// Connections at a time.
    pub connections: Option<u32>,
}

/// What a pod asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Sources beside its own addresses.
    pub sources: Vec<Cidr>,
    /// Addresses beside its own.
    pub floating: Vec<IpAddr>,
    /// Limits, to and from the pod.
    pub limits: [Limits; 2],
    /// DSCP of what it sends out of the cluster.
    pub dscp: Option<u8>,
}

impl Asked {
    /// Is there anything for which each of its packets must be looked at?
    #[must_use]
    pub fn is_limited(&self) -> bool {
        let [to, from] = self.limits;
        let counted = to.packets.is_some() || from.packets.is_some();
        counted || from.bandwidth.is_some() || self.dscp.is_some()
    }

    /// Is there anything for which the first packet of each of its connections must be looked at?
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.limits.iter().any(|it| it.connections.is_some())
    }
}

/// An annotation that is not in force, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("annotation {annotation}: {problem}")]
pub struct Problem {
    /// Its name.
    pub annotation: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// What the annotations say, and which of them are not understood.
#[must_use]
pub fn parse(annotations: &BTreeMap<String, String>) -> (Asked, Vec<Problem>) {
    let mut asked = Asked::default();
    let mut reader = Reader {
        annotations,
        known: Vec::new(),
        problems: Vec::new(),
    };
    asked.sources = reader.read(SOURCES, sources).unwrap_or_default();
    asked.floating = reader.read(FLOATING, floating).unwrap_or_default();
    for way in Way::BOTH {
        asked.limits[way as usize] = reader.limits(way);
    }
    asked.dscp = reader.read(&format!("{LIMITS}dscp"), dscp);
    reader.unknown();
    reader.problems.sort();
    (asked, reader.problems)
}

struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    known: Vec<String>,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn read<T>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.known.push(name.to_owned());
        let text = self.annotations.get(name)?;
        match read(text) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.complain(name, problem);
                None
            }
        }
    }

    fn complain(&mut self, name: &str, problem: String) {
        self.problems.push(Problem {
            annotation: name.to_owned(),
            problem,
        });
    }

    fn limits(&mut self, way: Way) -> Limits {
        let name = |what: &str| format!("{LIMITS}{}{what}", way.name());
        let (rate, burst) = (name("Bandwidth"), name("Burst"));
        let own = self.read(&rate, bandwidth);
        let others = KUBERNETES.iter().find(|(of, _)| *of == way);
        let general = others.and_then(|(_, name)| self.read(name, bandwidth));
        let rate = own.or(general);
        let burst_bytes = self.read(&burst, burst_size);
        if rate.is_none() && burst_bytes.is_some() {
            self.complain(&burst, "it needs a bandwidth beside it".to_owned());
        }
        let (packets, at_once) = (name("PacketRate"), name("PacketBurst"));
        let packet_rate = self.read(&packets, |text| whole(text, 1_000_000));
        let packet_burst = self.read(&at_once, |text| whole(text, 1_000_000));
        if packet_rate.is_none() && packet_burst.is_some() {
            self.complain(&at_once, "it needs a packet rate beside it".to_owned());
        }
        let connections = self.read(&name("MaxConnections"), |text| whole(text, CONNECTIONS));
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Limits {
            bandwidth: rate.map(|rate| Shape {
                rate,
                burst: burst_bytes.unwrap_or(BURST),
            }),
            packets: packet_rate.map(|rate| (rate, packet_burst.map_or(PACKET_BURST, small))),
            connections: connections.map(small),
        }
    }

    /// A word that nobody knows is a limit that nobody keeps.
    fn unknown(&mut self) {
        let ours = self
            .annotations
            .keys()
            .filter(|name| name.starts_with(LIMITS));
        let unknown: Vec<String> = ours
            .filter(|name| !self.known.contains(name))
            .cloned()
            .collect();
        for name in unknown {
            let known: Vec<&str> = self
                .known
                .iter()
                .filter_map(|known| known.strip_prefix(LIMITS))
                .collect();
            let problem = format!(
                "there is none of that name: {LIMITS} has {}",
                known.join(", ")
            );
            self.complain(&name, problem);
        }
    }
}

fn strings(text: &str, form: &str) -> Result<Vec<String>, String> {
    let wrong =
        || format!("{text:?} is not understood: write a JSON list of at most {MOST}, as {form}");
    let list: Vec<String> = serde_json::from_str(text).map_err(|_| wrong())?;
    match list.len() <= MOST {
        true => Ok(list),
        false => Err(wrong()),
    }
}

fn sources(text: &str) -> Result<Vec<Cidr>, String> {
    const FORM: &str = r#"["192.0.2.0/24", "2001:db8::/64"]"#;
    let list = strings(text, FORM)?;
    let mut all = Vec::new();
    for text in list {
        let cidr = text.parse::<Cidr>();
        let cidr =
            cidr.map_err(|error| format!("{error}: write a JSON list of prefixes, as {FORM}"))?;
        all.push(cidr);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn floating(text: &str) -> Result<Vec<IpAddr>, String> {
    const FORM: &str = r#"["192.0.2.7", "2001:db8::7"]"#;
    let list = strings(text, FORM)?;
    let mut all = Vec::new();
    for text in list {
        let address = text.parse::<IpAddr>();
        let address = address.map_err(|_| {
            format!("{text:?} is no address: write a JSON list of addresses, as {FORM}")
        })?;
        all.push(address);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// Bytes in a second, from bits.
fn bandwidth(text: &str) -> Result<u64, String> {
    let bits = quantity(text).filter(|bits| (1_000..=1_000_000_000_000_000).contains(bits));
    bits.map(|bits| bits / 8).ok_or_else(|| {
        format!("{text:?} is no bandwidth: write bits per second from 1k to 1P, as 10M or 1G")
    })
}

/// Bytes, from bits.
fn burst_size(text: &str) -> Result<u32, String> {
    let bits = quantity(text).filter(|bits| *bits >= 1_000);
    let bytes = bits.and_then(|bits| u32::try_from(bits / 8).ok());
    // A bucket smaller than a packet lets none through; nobody knows how large those become.
    bytes.map(|bytes| bytes.max(64 * 1024)).ok_or_else(|| {
        format!("{text:?} is no burst: write bits from 1k to 34359738360, as 4M or 1G")
    })
}

fn whole(text: &str, most: u64) -> Result<u64, String> {
    quantity(text)
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| format!("{text:?} is none of the numbers from 1 to {most}"))
}

/// A quantity of Kubernetes that is a whole number: 1500, 10k, 1.5M, 64Ki.
fn quantity(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let unit: u128 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || part.is_empty() || whole.len() > 18 || part.len() > 9 {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(part.len()).ok()?);
    let scaled = whole.parse::<u128>().ok()? * scale + part.parse::<u128>().ok()?;
    let value = scaled * unit;
    value
        .is_multiple_of(scale)
        .then_some(value / scale)?
        .try_into()
        .ok()
}

/// Names of RFC 2474, 2597, 3246, 5865 and 8622, or the number.
fn dscp(text: &str) -> Result<u8, String> {
    let name = text.to_ascii_uppercase();
    let class = |digits: &str| digits.parse::<u8>().ok();
    let named = match name.as_str() {
        "DF" => Some(0),
        "EF" => Some(46),
        "VA" => Some(44),
        "LE" => Some(1),
        _ => match name.split_at_checked(2).filter(|_| name.is_ascii()) {
            Some(("CS", digits)) if digits.len() == 1 => {
                class(digits).filter(|it| *it < 8).map(|it| it << 3)
            }
            Some(("AF", digits)) if digits.len() == 2 => {
                let (class, drop) = (class(&digits[..1]), class(&digits[1..]));
                class
                    .zip(drop)
                    .filter(|(class, drop)| (1..=4).contains(class) && (1..=3).contains(drop))
                    .map(|(class, drop)| class << 3 | drop << 1)
            }
            _ => None,
        },
    };
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<u8>().ok().filter(|it| plain && *it < 64);
    named.or(number).ok_or_else(|| {
        format!("{text:?} is no DSCP: write a number from 0 to 63, or a name as EF, AF31, CS5, DF")
    })
}

#[cfg(test)]
mod tests;
