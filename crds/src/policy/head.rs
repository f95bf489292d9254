//! What a policy is about, and the whole of it.

use super::PolicyRule;
use super::rule::{Place, Rule, rule};
use crate::error::FieldError;
use crate::global_network_policy::GlobalNetworkPolicy;
use crate::network_policy::NetworkPolicy;
use crate::selector::Selector;

/// Whether a policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Enforcement {
    /// It does.
    #[default]
    Enforce,
    /// What it would decide otherwise is counted and logged.
    Audit,
}

/// Where on the way of a packet a policy for host endpoints is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// For flows of the host itself.
    #[default]
    Normal,
    /// For these and for flows that are forwarded.
    ApplyOnForward,
    /// Before destinations are translated.
    PreDnat,
    /// Before connections are tracked.
    DoNotTrack,
}

/// Endpoints that a policy selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// In that namespace only.
    pub namespace: Option<String>,
    /// In namespaces with these labels only.
    pub namespaces: Option<Selector>,
    /// Over the labels of endpoints.
    pub selector: Selector,
    /// Over the labels of their service accounts.
    pub service_accounts: Option<Selector>,
}

/// All of a policy but its rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// Namespace of the object; None of a GlobalNetworkPolicy.
    pub namespace: Option<String>,
    /// Name of the object.
    pub name: String,
    /// `metadata.uid`, empty when the object has none.
    pub uid: String,
    /// `metadata.generation`, 0 when the object has none.
    pub generation: i64,
    /// Name of the tier.
    pub tier: String,
    /// Place inside the tier; None: last.
    pub order: Option<f64>,
    /// Which endpoints.
    pub subject: Subject,
    /// Governs flows that are opened to them.
    pub ingress: bool,
    /// Governs flows that they open.
    pub egress: bool,
    /// Whether it decides.
    pub enforcement: Enforcement,
    /// Where it is asked.
    pub stage: Stage,
}

/// A policy that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What it is about.
    pub head: Head,
    /// For flows that are opened to what it selects, in order.
    pub ingress: Vec<Rule>,
    /// For flows that these open, in order.
    pub egress: Vec<Rule>,
}

/// Why a policy is not understood.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    /// The first field that makes no sense.
    pub error: FieldError,
    /// What it is about; what of that could not be read is as closed as it can be. None when not even the selection can be
    /// read.
    pub head: Option<Box<Head>>,
}

/// The fields both kinds have, by reference.
struct Fields<'a> {
    metadata: &'a kube::core::ObjectMeta,
    tier: &'a str,
    order: Option<f64>,
    selector: &'a str,
    namespaces: Option<&'a str>,
    service_accounts: Option<&'a str>,
    types: &'a [String],
    ingress: &'a [PolicyRule],
    egress: &'a [PolicyRule],
    enforcement: &'a str,
    stage: Result<Stage, FieldError>,
    namespaced: bool,
}

impl TryFrom<&NetworkPolicy> for Policy {
    type Error = Refused;

    fn try_from(object: &NetworkPolicy) -> Result<Self, Refused> {
        let spec = &object.spec;
        understand(Fields {
            metadata: &object.metadata,
            tier: &spec.tier,
            order: spec.order,
            selector: &spec.selector,
            namespaces: None,
            service_accounts: spec.service_account_selector.as_deref(),
            types: &spec.types,
            ingress: &spec.ingress,
            egress: &spec.egress,
            enforcement: &spec.enforcement,
            stage: Ok(Stage::Normal),
            namespaced: true,
        })
    }
}

impl TryFrom<&GlobalNetworkPolicy> for Policy {
    type Error = Refused;

    fn try_from(object: &GlobalNetworkPolicy) -> Result<Self, Refused> {
        let spec = &object.spec;
        let egress = !spec.egress.is_empty() || spec.types.iter().any(|it| it == "Egress");
        let stage = match (spec.pre_dnat, spec.do_not_track, spec.apply_on_forward) {
            (true, true, _) => Err((
                "spec.preDNAT",
                "set preDNAT or doNotTrack, not both: use two policies",
            )),
            (true, false, true) if egress => Err((
                "spec.preDNAT",
                "looks at flows before their destination is translated, when they come in: leave egress out",
            )),
            (true, false, true) => Ok(Stage::PreDnat),
            (false, true, true) => Ok(Stage::DoNotTrack),
            (false, false, forward) => Ok(if forward {
                Stage::ApplyOnForward
            } else {
                Stage::Normal
            }),
            (_, _, false) => Err((
                "spec.applyOnForward",
                "preDNAT and doNotTrack look at forwarded flows too: set applyOnForward to true",
            )),
        };
        understand(Fields {
            metadata: &object.metadata,
            tier: &spec.tier,
            order: spec.order,
            selector: &spec.selector,
            namespaces: spec.namespace_selector.as_deref(),
            service_accounts: spec.service_account_selector.as_deref(),
            types: &spec.types,
            ingress: &spec.ingress,
            egress: &spec.egress,
            enforcement: &spec.enforcement,
            stage: stage.map_err(|(field, problem)| FieldError::new(field, problem)),
            namespaced: false,
        })
    }
}

fn understand(fields: Fields<'_>) -> Result<Policy, Refused> {
    let unread = |error| Refused { error, head: None };
    let subject = subject(&fields).map_err(unread)?;
    let mut problem = None;
    let mut note = |error: FieldError| problem = problem.take().or(Some(error));
    // Directions that cannot be read are closed too.
    let (ingress, egress) = directions(&fields).unwrap_or_else(|error| {
        note(error);
        (true, true)
    });
    let enforcement = match fields.enforcement {
        "Enforce" => Enforcement::Enforce,
        "Audit" => Enforcement::Audit,
        other => {
            let problem = format!("{other:?} is no enforcement: set Enforce or Audit");
            note(FieldError::new("spec.enforcement", problem));
            Enforcement::Enforce
        }
    };
    let stage = fields.stage.clone().unwrap_or_else(|error| {
        note(error);
        Stage::Normal
    });
    if fields.order.is_some_and(f64::is_nan) {
        let problem = "is no number: set one, or leave it out to come last";
        note(FieldError::new("spec.order", problem));
    }
    let tier = if fields.tier.is_empty() {
        super::default_tier()
    } else {
        fields.tier.to_owned()
    };
    let head = Head {
        namespace: subject.namespace.clone(),
        name: fields.metadata.name.clone().unwrap_or_default(),
        uid: fields.metadata.uid.clone().unwrap_or_default(),
        generation: fields.metadata.generation.unwrap_or_default(),
        tier,
        order: fields.order.filter(|it| !it.is_nan()),
        subject,
        ingress,
        egress,
        enforcement,
        stage,
    };
    let rules = match problem {
        Some(error) => Err(error),
        None => rules(&fields, head.namespace.as_deref()),
    };
    match rules {
        Ok((ingress, egress)) => Ok(Policy {
            head,
            ingress,
            egress,
        }),
        Err(error) => Err(Refused {
            error,
            head: Some(Box::new(head)),
        }),
    }
}

fn subject(fields: &Fields<'_>) -> Result<Subject, FieldError> {
    let read = |field: &str, text: &str| super::rule::selector(field, text);
    let namespace = fields
        .namespaced
        .then(|| fields.metadata.namespace.clone().unwrap_or_default());
    Ok(Subject {
        namespace,
        namespaces: fields
            .namespaces
            .map(|text| read("spec.namespaceSelector", text))
            .transpose()?,
        selector: read("spec.selector", fields.selector)?,
        service_accounts: fields
            .service_accounts
            .map(|text| read("spec.serviceAccountSelector", text))
            .transpose()?,
    })
}

/// Whether ingress and egress are governed: as `types` says, else those with rules, and ingress if none has.
fn directions(fields: &Fields<'_>) -> Result<(bool, bool), FieldError> {
    if fields.types.is_empty() {
        let egress = !fields.egress.is_empty();
        return Ok((!fields.ingress.is_empty() || !egress, egress));
    }
    let (mut ingress, mut egress) = (false, false);
    for (index, word) in fields.types.iter().enumerate() {
        match word.as_str() {
            "Ingress" => ingress = true,
            "Egress" => egress = true,
            other => {
                let problem = format!("{other:?} is neither Ingress nor Egress");
                return Err(FieldError::new(format!("spec.types[{index}]"), problem));
            }
        }
    }
    Ok((ingress, egress))
}

/// Rules of both directions. Those of a direction that is not governed are checked all the same.
fn rules(
    fields: &Fields<'_>,
    namespace: Option<&str>,
) -> Result<(Vec<Rule>, Vec<Rule>), FieldError> {
    let read = |field: &str, rules: &[PolicyRule], ingress: bool| {
        let place = Place { ingress, namespace };
        let rules = rules.iter().enumerate();
        rules
            .map(|(index, it)| rule(&format!("spec.{field}[{index}]"), it, place))
            .collect::<Result<Vec<_>, _>>()
    };
    Ok((
        read("ingress", fields.ingress, true)?,
        read("egress", fields.egress, false)?,
    ))
}
