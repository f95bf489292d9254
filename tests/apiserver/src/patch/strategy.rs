//! Which lists of the builtin kinds merge, and by which key: what the Go types of Kubernetes say in their
//! `patchStrategy` and `patchMergeKey` tags. A list that is not here is replaced as a whole.

/// How a strategic merge patch treats a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListStrategy {
    /// The patch's list takes the place of the object's.
    Atomic,
    /// A list of plain values without repetition: values are added.
    Set,
    /// A list of objects, each known by the value of this field.
    Keyed(&'static str),
}

/// The strategy of the list at `path` (field names from the root, list positions left out).
pub(super) fn of(kind: &str, path: &[&str]) -> ListStrategy {
    use ListStrategy::{Atomic, Keyed, Set};
    match path {
        ["metadata", "ownerReferences"] => return Keyed("uid"),
        ["metadata", "finalizers"] => return Set,
        _ => {}
    }
    match (kind, path) {
        ("Pod", ["spec", rest @ ..]) => pod_spec(rest),
        (_, ["spec", "template", "metadata", "ownerReferences"]) => Keyed("uid"),
        (_, ["spec", "template", "metadata", "finalizers"]) => Set,
        (_, ["spec", "template", "spec", rest @ ..]) => pod_spec(rest),
        ("Pod", ["status", "podIPs" | "hostIPs"]) => Keyed("ip"),
        ("Pod", ["status", "resourceClaimStatuses"]) => Keyed("name"),
        ("Node", ["spec", "podCIDRs"]) => Set,
        ("Node", ["status", "addresses"])
        | ("Pod" | "Node" | "Namespace" | "Service", ["status", "conditions"]) => Keyed("type"),
        ("Service", ["spec", "ports"]) => Keyed("port"),
        ("ServiceAccount", ["secrets"]) => Keyed("name"),
        _ => Atomic,
    }
}

fn pod_spec(path: &[&str]) -> ListStrategy {
    use ListStrategy::{Atomic, Keyed};
    match path {
        [
            "containers"
            | "initContainers"
            | "ephemeralContainers"
            | "volumes"
            | "imagePullSecrets"
            | "schedulingGates"
            | "resourceClaims",
        ] => Keyed("name"),
        ["hostAliases"] => Keyed("ip"),
        ["topologySpreadConstraints"] => Keyed("topologyKey"),
        [
            "containers" | "initContainers" | "ephemeralContainers",
            list,
        ] => match *list {
            "ports" => Keyed("containerPort"),
            "env" => Keyed("name"),
            "volumeMounts" => Keyed("mountPath"),
            "volumeDevices" => Keyed("devicePath"),
            _ => Atomic,
        },
        _ => Atomic,
    }
}
