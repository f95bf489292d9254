//! What a rule means.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::schema::ACTIONS;
use super::{EntityRule, IcmpMatch, PolicyRule, ServiceAccountMatch, ServiceMatch};
use crate::error::FieldError;
use crate::net::{Cidr, Family};
use crate::selector::{NamespaceSelector, Selector};

type Result<T> = std::result::Result<T, FieldError>;

/// What a rule does with a flow that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It may pass.
    Allow,
    /// It may not.
    Deny,
    /// The next tier decides.
    Pass,
    /// It is noted; the next rule decides.
    Log,
}

/// Number of an IP protocol.
pub type Protocol = u8;

const ICMP: Protocol = 1;
const ICMP6: Protocol = 58;

/// Protocols by name.
const NAMES: [(&str, Protocol); 6] = [
    ("TCP", 6),
    ("UDP", 17),
    ("ICMP", ICMP),
    ("ICMPv6", ICMP6),
    ("SCTP", 132),
    ("UDPLite", 136),
];

/// Protocols with ports.
const WITH_PORTS: [Protocol; 4] = [6, 17, 132, 136];

/// ICMP messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icmp {
    /// Their type; None: any.
    pub kind: Option<u8>,
    /// Their code; None: any.
    pub code: Option<u8>,
}

/// Ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// From the first to the last.
    Range(u16, u16),
    /// Container ports of that name.
    Named(String),
}

/// Service accounts: those that are named, if any is, and whose labels match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccounts {
    /// Their names; empty: any.
    pub names: BTreeSet<String>,
    /// Over their labels.
    pub selector: Option<Selector>,
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// One end of a flow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entity {
    /// It is inside one of these; empty: anywhere.
    pub nets: Vec<Cidr>,
    /// It is inside none of these.
    pub not_nets: Vec<Cidr>,
    /// It is selected.
    pub selector: Option<Selector>,
    /// It is not selected.
    pub not_selector: Option<Selector>,
    /// Where the selected ones are.
    pub namespaces: Option<NamespaceSelector>,
    /// Of these service accounts.
    pub service_accounts: Option<ServiceAccounts>,
    /// It is behind that Service.
    pub service: Option<ServiceRef>,
    /// Its port is one of these; empty: any.
    pub ports: Vec<Port>,
    /// Its port is none of these.
    pub not_ports: Vec<Port>,
}

/// A rule that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// Only that family.
    pub family: Option<Family>,
    /// Only that protocol.
    pub protocol: Option<Protocol>,
    /// Not that protocol.
    pub not_protocol: Option<Protocol>,
    /// Only such messages; `protocol` is then one of the two ICMPs.
    pub icmp: Option<Icmp>,
    /// No such messages; `protocol` is then one of the two ICMPs.
    pub not_icmp: Option<Icmp>,
    /// Where the flow comes from.
    pub source: Entity,
    /// Where it goes to.
    pub destination: Entity,
    /// Notes.
    pub annotations: BTreeMap<String, String>,
}

impl Rule {
    /// Protocols that a named port of this rule is looked up with: that of the rule, or every one that has ports.
    pub fn port_protocols(&self) -> Vec<Protocol> {
        self.protocol
            .map_or_else(|| WITH_PORTS.to_vec(), |protocol| vec![protocol])
    }
}

/// Where a rule stands, which decides what it may say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) ingress: bool,
    /// Of the policy, if it has one.
    pub(super) namespace: Option<&'a str>,
}

pub(super) fn rule(path: &str, rule: &PolicyRule, place: Place<'_>) -> Result<Rule> {
    let at = |field: &str| format!("{path}.{field}");
    let protocol = optional(&rule.protocol, |it| protocol(&at("protocol"), it))?;
    let family = match rule.ip_version {
        None => None,
        Some(4) => Some(Family::V4),
        Some(6) => Some(Family::V6),
        Some(other) => {
            let problem = format!("{other} is no version of IP: set 4 or 6, or leave it out");
            return Err(FieldError::new(at("ipVersion"), problem));
        }
    };
    let none = EntityRule::default();
    let (source, destination) = (
        rule.source.as_ref().unwrap_or(&none),
        rule.destination.as_ref().unwrap_or(&none),
    );
    for (field, entity, allowed) in [
        ("source", source, place.ingress),
        ("destination", destination, !place.ingress),
    ] {
        if entity.services.is_some() && !allowed {
            let problem = "is for the source of ingress and the destination of egress only: select the pods instead";
            return Err(FieldError::new(at(&format!("{field}.services")), problem));
        }
    }
    let understood = Rule {
        action: action(&at("action"), &rule.action)?,
        family,
        protocol,
        not_protocol: optional(&rule.not_protocol, |it| {
            self::protocol(&at("notProtocol"), it)
        })?,
        icmp: optional(&rule.icmp, |it| icmp(&at("icmp"), it, protocol))?,
        not_icmp: optional(&rule.not_icmp, |it| icmp(&at("notICMP"), it, protocol))?,
        source: entity(&at("source"), source, protocol, place)?,
        destination: entity(&at("destination"), destination, protocol, place)?,
        annotations: rule
            .metadata
            .as_ref()
            .map(|it| it.annotations.clone())
            .unwrap_or_default(),
    };
    for (field, entity) in [
        ("source.nets", &understood.source),
        ("destination.nets", &understood.destination),
    ] {
        let other = entity
            .nets
            .iter()
            .find(|net| family.is_some_and(|family| family != net.family()));
        if let Some(net) = other {
            let problem = format!(
                "{net} is {}, which ipVersion excludes: leave ipVersion out, or the prefix",
                net.family()
            );
            return Err(FieldError::new(at(field), problem));
        }
    }
    Ok(understood)
}

fn optional<T, U>(value: &Option<T>, read: impl FnOnce(&T) -> Result<U>) -> Result<Option<U>> {
    value.as_ref().map(read).transpose()
}

fn action(field: &str, word: &str) -> Result<Action> {
    match word {
        "Allow" => Ok(Action::Allow),
        "Deny" => Ok(Action::Deny),
        "Pass" => Ok(Action::Pass),
        "Log" => Ok(Action::Log),
        other => Err(FieldError::new(
            field,
            format!("{other:?} is no action: set {}", ACTIONS.join(", ")),
        )),
    }
}

/// A protocol by name or number.
pub(crate) fn protocol(field: &str, value: &IntOrString) -> Result<Protocol> {
    let wrong = |given: &dyn std::fmt::Display| {
        let problem = format!(
            "{given} is no protocol: set TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255"
        );
        FieldError::new(field, problem)
    };
    match value {
        IntOrString::Int(number) => u8::try_from(*number)
            .ok()
            .filter(|it| *it > 0)
            .ok_or_else(|| wrong(number)),
        IntOrString::String(name) => {
            let known = NAMES.iter().find(|(known, _)| known == name);
            known.map(|(_, number)| *number).ok_or_else(|| wrong(name))
        }
    }
}

fn icmp(path: &str, it: &IcmpMatch, protocol: Option<Protocol>) -> Result<Icmp> {
    if !matches!(protocol, Some(ICMP | ICMP6)) {
        let problem = "needs to know the kind of ICMP: set protocol to ICMP or ICMPv6";
        return Err(FieldError::new(path, problem));
    }
    let number = |field: &str, value: Option<i32>, most: u8| -> Result<Option<u8>> {
        let Some(value) = value else { return Ok(None) };
        let fits = u8::try_from(value).ok().filter(|it| *it <= most);
        let wrong = || {
            let problem = format!("{value} is out of range: set 0 to {most}");
            FieldError::new(format!("{path}.{field}"), problem)
        };
        fits.map(Some).ok_or_else(wrong)
    };
    let kind = number("type", it.type_, 254)?;
    let code = number("code", it.code, 255)?;
    if kind.is_none() && code.is_some() {
        let problem = "belongs to a type: set type as well";
        return Err(FieldError::new(format!("{path}.code"), problem));
    }
    Ok(Icmp { kind, code })
}

fn entity(
    path: &str,
    entity: &EntityRule,
    protocol: Option<Protocol>,
    place: Place<'_>,
) -> Result<Entity> {
    let at = |field: &str| format!("{path}.{field}");
    if let Some(service) = &entity.services {
        let beside = !(entity.nets.is_empty() && entity.not_nets.is_empty())
            || entity.selector.is_some()
            || entity.not_selector.is_some()
            || entity.namespace_selector.is_some()
            || entity.service_accounts.is_some()
            || !(entity.ports.is_empty() && entity.not_ports.is_empty());
        if beside {
            let problem =
                "stands for addresses and ports: leave nets, selectors and ports out beside it";
            return Err(FieldError::new(at("services"), problem));
        }
        return Ok(Entity {
            service: Some(service_ref(&at("services"), service, place)?),
            ..Entity::default()
        });
    }
    Ok(Entity {
        nets: networks(&at("nets"), &entity.nets)?,
        not_nets: networks(&at("notNets"), &entity.not_nets)?,
        selector: optional(&entity.selector, |it| selector(&at("selector"), it))?,
        not_selector: optional(&entity.not_selector, |it| selector(&at("notSelector"), it))?,
        namespaces: optional(&entity.namespace_selector, |it| {
            it.parse()
                .map_err(|e| FieldError::new(at("namespaceSelector"), e))
        })?,
        service_accounts: optional(&entity.service_accounts, |it| {
            service_accounts(&at("serviceAccounts"), it)
        })?,
        service: None,
        ports: ports(&at("ports"), &entity.ports, protocol)?,
        not_ports: ports(&at("notPorts"), &entity.not_ports, protocol)?,
    })
}

fn service_ref(path: &str, service: &ServiceMatch, place: Place<'_>) -> Result<ServiceRef> {
    let namespace = service.namespace.as_deref().or(place.namespace);
    let namespace = namespace.ok_or_else(|| {
        let problem = "a GlobalNetworkPolicy is in no namespace: say which one the Service is in";
        FieldError::new(format!("{path}.namespace"), problem)
    })?;
    Ok(ServiceRef {
        namespace: namespace.to_owned(),
        name: service.name.clone(),
    })
}

/// A selector over labels of endpoints or service accounts.
pub(crate) fn selector(field: &str, text: &str) -> Result<Selector> {
    text.parse().map_err(|e| FieldError::new(field, e))
}

fn service_accounts(path: &str, it: &ServiceAccountMatch) -> Result<ServiceAccounts> {
    Ok(ServiceAccounts {
        names: it.names.iter().cloned().collect(),
        selector: optional(&it.selector, |text| {
            selector(&format!("{path}.selector"), text)
        })?,
    })
}

/// Prefixes and addresses; each stays on its own so that an error names it.
pub(crate) fn networks(path: &str, nets: &[String]) -> Result<Vec<Cidr>> {
    let nets = nets.iter().enumerate();
    nets.map(|(index, text)| {
        let prefix = match text.parse::<IpAddr>() {
            // An IPv4 address in disguise is refused below, as a prefix would be.
            Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => format!("{text}/128").parse(),
            Ok(address) => Ok(Cidr::host(address)),
            Err(_) => text.parse::<Cidr>(),
        };
        prefix.map_err(|e| FieldError::new(format!("{path}[{index}]"), e))
    })
    .collect()
}

fn ports(path: &str, ports: &[IntOrString], protocol: Option<Protocol>) -> Result<Vec<Port>> {
    let ports = ports.iter().enumerate().map(|(index, value)| {
        let field = format!("{path}[{index}]");
        let port = port(&field, value)?;
        let good = match protocol {
            Some(protocol) => WITH_PORTS.contains(&protocol),
            None => matches!(port, Port::Named(_)),
        };
        let problem =
            "ports need a protocol that has some: set protocol to TCP, UDP, SCTP or UDPLite";
        good.then_some(port)
            .ok_or_else(|| FieldError::new(&field, problem))
    });
    ports.collect()
}

fn port(field: &str, value: &IntOrString) -> Result<Port> {
    let wrong = |given: &dyn std::fmt::Display| {
        let problem = format!(
            "{given} is no port: write a number (80), a range (8000:8999) or the name of a container port (http)"
        );
        FieldError::new(field, problem)
    };
    let text = match value {
        IntOrString::Int(number) => {
            let port = u16::try_from(*number).map_err(|_| wrong(number))?;
            return Ok(Port::Range(port, port));
        }
        IntOrString::String(text) => text,
    };
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|_| plain)
    };
    if let Some((first, last)) = text.split_once(':') {
        let range = number(first).zip(number(last));
        let (first, last) = range.ok_or_else(|| wrong(text))?;
        if last < first {
            let problem = format!("{text} ends before it starts: write {last}:{first}");
            return Err(FieldError::new(field, problem));
        }
        return Ok(Port::Range(first, last));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let port = number(text).ok_or_else(|| wrong(text))?;
        return Ok(Port::Range(port, port));
    }
    let byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let name = text.len() <= 15
        && text.bytes().all(byte)
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && !text.starts_with('-')
        && !text.ends_with('-');
    if name {
        Ok(Port::Named(text.clone()))
    } else {
        Err(wrong(text))
    }
}
