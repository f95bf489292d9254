//! Every set and map of the table.

use super::super::model::{Set, Type};

macro_rules! sets {
    ($($(#[$doc:meta])+ $constant:ident = $name:literal, [$($key:ident),+] $(, $flag:ident)*;)+) => {
        $($(#[$doc])+ pub static $constant: Set = {
            #[allow(unused_mut, reason = "not every set has flags")]
            let mut set = Set { name: $name, key: &[$(Type::$key),+], map: false, interval: false, addresses: false, dynamic: false, verdicts: false, counter: false };
            $(set.$flag = true;)*
            set
        };)+
        /// Every set and map of the table.
        pub static SETS: &[&Set] = &[$(&$constant),+];
    };
}

sets! {
    /// Interface and source of each local pod.
    WORKLOAD4 = "workload4", [IfName, Ip4];
    /// Interface and source of each local pod.
    WORKLOAD6 = "workload6", [IfName, Ip6];
    /// Sources which a pod's own link may use towards its neighbour, the node.
    LOCAL6 = "local6", [Ip6], interval;
    /// ICMPv6 types of neighbour discovery and multicast listeners.
    NEIGHBOUR = "neighbour", [Icmp6Type];
    /// Class of an address.
    PEER4 = "peer4", [Ip4], map;
    /// Class of an address.
    PEER6 = "peer6", [Ip6], map;
    /// Class of an interval of addresses.
    NET4 = "net4", [Ip4], map, interval;
    /// Class of an interval of addresses.
    NET6 = "net6", [Ip6], map, interval;
    /// Program of a subject towards a class, egress.
    PAIR_EGRESS = "pair_eg", [DevGroup, ClassId], map, counter;
    /// Program of a subject from a class, ingress.
    PAIR_INGRESS = "pair_in", [DevGroup, ClassId], map, counter;
    /// Program of a subject towards the rest, egress.
    DEFAULT_EGRESS = "default_eg", [DevGroup], map, counter;
    /// Program of a subject from the rest, ingress.
    DEFAULT_INGRESS = "default_in", [DevGroup], map, counter;
    /// Verdict of a program on a port.
    PORT = "port", [ClassId, Proto, Port], map, counter;
    /// Verdict of a program on an ICMP type and code.
    ICMP_CODE = "icmp_code", [ClassId, Proto, Port], map, counter;
    /// Verdict of a program without ranges and protocols on the rest.
    PROGRAM = "program", [ClassId], map, counter;
    /// Verdict of a program on a range of ports.
    PORT_RANGE = "port_range", [ClassId, Proto, Port], map, interval, counter;
    /// Verdict of a program on a protocol.
    PROTO = "proto", [ClassId, Proto], map, counter;
    /// Program of a refined program for a range of source ports.
    SOURCE = "source", [ClassId, Proto, Port], map, interval, counter;
    /// Program of a refined program for the rest.
    SOURCE_REST = "source_rest", [ClassId], map, counter;
    /// Program of an owned program for a range of own addresses.
    OWN4 = "own4", [ClassId, Ip4], map, interval, counter;
    /// Program of an owned program for a range of own addresses.
    OWN6 = "own6", [ClassId, Ip6], map, interval, counter;
    /// Program of an owned program for the rest.
    OWN_REST = "own_rest", [ClassId], map, counter;
    /// Program of a host interface and a class: opened to the node.
    HOST_PAIR_LOCAL_IN = "host_pair_local_in", [IfName, ClassId], map, counter;
    /// Program of a host interface and the rest: opened to the node.
    HOST_LOCAL_IN = "host_local_in", [IfName], map, counter;
    /// Program of all other host interfaces by class, 0 for the rest: opened to the node.
    HOST_ANY_LOCAL_IN = "host_any_local_in", [ClassId], map, counter;
    /// Program of a host interface and a class: opened by the node.
    HOST_PAIR_LOCAL_OUT = "host_pair_local_out", [IfName, ClassId], map, counter;
    /// Program of a host interface and the rest: opened by the node.
    HOST_LOCAL_OUT = "host_local_out", [IfName], map, counter;
    /// Program of all other host interfaces by class, 0 for the rest: opened by the node.
    HOST_ANY_LOCAL_OUT = "host_any_local_out", [ClassId], map, counter;
    /// Program of a host interface and a class: forwarded, coming in.
    HOST_PAIR_FORWARD_IN = "host_pair_forward_in", [IfName, ClassId], map, counter;
    /// Program of a host interface and the rest: forwarded, coming in.
    HOST_FORWARD_IN = "host_forward_in", [IfName], map, counter;
    /// Program of all other host interfaces by class, 0 for the rest: forwarded, coming in.
    HOST_ANY_FORWARD_IN = "host_any_forward_in", [ClassId], map, counter;
    /// Program of a host interface and a class: forwarded, going out.
    HOST_PAIR_FORWARD_OUT = "host_pair_forward_out", [IfName, ClassId], map, counter;
    /// Program of a host interface and the rest: forwarded, going out.
    HOST_FORWARD_OUT = "host_forward_out", [IfName], map, counter;
    /// Program of all other host interfaces by class, 0 for the rest: forwarded, going out.
    HOST_ANY_FORWARD_OUT = "host_any_forward_out", [ClassId], map, counter;
    /// Program of a host interface and a class: coming in, before the destination is translated.
    HOST_PAIR_PRE_DNAT = "host_pair_pre_dnat", [IfName, ClassId], map, counter;
    /// Program of a host interface and the rest: coming in, before the destination is translated.
    HOST_PRE_DNAT = "host_pre_dnat", [IfName], map, counter;
    /// Program of all other host interfaces by class, 0 for the rest: coming in, before the destination is translated.
    HOST_ANY_PRE_DNAT = "host_any_pre_dnat", [ClassId], map, counter;
    /// Program of a host interface and a class: packets that come in, before connections are tracked.
    HOST_PAIR_RAW_IN = "host_pair_raw_in", [IfName, ClassId], map, counter;
    /// Program of a host interface and the rest: packets that come in, before connections are tracked.
    HOST_RAW_IN = "host_raw_in", [IfName], map, counter;
    /// Program of all other host interfaces by class, 0 for the rest: packets that come in, before connections are tracked.
    HOST_ANY_RAW_IN = "host_any_raw_in", [ClassId], map, counter;
    /// Program of a host interface and a class: packets of the node, before connections are tracked.
    HOST_PAIR_RAW_OUT = "host_pair_raw_out", [IfName, ClassId], map, counter;
    /// Program of a host interface and the rest: packets of the node, before connections are tracked.
    HOST_RAW_OUT = "host_raw_out", [IfName], map, counter;
    /// Program of all other host interfaces by class, 0 for the rest: packets of the node, before connections are tracked.
    HOST_ANY_RAW_OUT = "host_any_raw_out", [ClassId], map, counter;
    /// Every protocol while flows of some host endpoint are under policy, otherwise none.
    HOST_GUARD = "host_guard", [Proto], interval;
    /// Every protocol while packets of some host endpoint are, before connections are tracked.
    RAW_GUARD = "raw_guard", [Proto], interval;
    /// Interfaces that are never host endpoints.
    LOOPBACK = "loopback", [IfName];
    /// Ports of the node that no policy of host endpoints closes, and to whom they are open.
    FAILSAFE_IN4 = "failsafe_in4", [Proto, Port, Ip4], interval;
    /// Ports of the node that no policy of host endpoints closes, and to whom they are open.
    FAILSAFE_IN6 = "failsafe_in6", [Proto, Port, Ip6], interval;
    /// Ports elsewhere that no policy of host endpoints closes to the node, and where.
    FAILSAFE_OUT4 = "failsafe_out4", [Proto, Port, Ip4], interval;
    /// Ports elsewhere that no policy of host endpoints closes to the node, and where.
    FAILSAFE_OUT6 = "failsafe_out6", [Proto, Port, Ip6], interval;
    /// Verdict of a program with ranges or protocols on the rest.
    PROGRAM_RANGED = "program_ranged", [ClassId], map, counter;
    /// Interface and sources of pods that may use more than their own.
    SOURCE4 = "source4", [IfName, Ip4], interval;
    /// Interface and sources of pods that may use more than their own.
    SOURCE6 = "source6", [IfName, Ip6], interval;
    /// Pools whose pods leave the cluster by the node's address.
    NAT_FROM4 = "nat_from4", [Ip4], interval;
    /// Pools whose pods leave the cluster by the node's address.
    NAT_FROM6 = "nat_from6", [Ip6], interval;
    /// Where they go by their own.
    NAT_NOT4 = "nat_not4", [Ip4], interval;
    /// Where they go by their own.
    NAT_NOT6 = "nat_not6", [Ip6], interval;
    /// The address they leave by, where it is not that of the interface.
    NAT_TO4 = "nat_to4", [Ip4], map, interval, addresses;
    /// The address they leave by, where it is not that of the interface.
    NAT_TO6 = "nat_to6", [Ip6], map, interval, addresses;
    /// Addresses of Services.
    SERVICE4 = "service4", [Ip4], interval;
    /// Addresses of Services.
    SERVICE6 = "service6", [Ip6], interval;
    /// Interfaces of pods with limits or a DSCP: each of their packets is looked at.
    LIMITED = "limited", [IfName];
    /// Packets that a pod sends.
    EGRESS_PACKETS = "egress_packets", [IfName], dynamic;
    /// Packets that a pod gets.
    INGRESS_PACKETS = "ingress_packets", [IfName], dynamic;
    /// Bytes that a pod sends.
    EGRESS_BYTES = "egress_bytes", [IfName], dynamic;
    /// Where connections that a pod opens are counted.
    EGRESS_CONNECTIONS = "egress_connections", [IfName], map, verdicts;
    /// Where connections that are opened to a pod are counted.
    INGRESS_CONNECTIONS = "ingress_connections", [IfName], map, verdicts;
    /// DSCP of what a pod sends out of the cluster.
    DSCP = "code_point", [IfName], map;
    /// Pools and nodes, while some pod has a DSCP.
    CLUSTER4 = "cluster4", [Ip4], interval;
    /// Pools and nodes, while some pod has a DSCP.
    CLUSTER6 = "cluster6", [Ip6], interval;
    /// Pods by their floating addresses.
    FLOATING4 = "floating4", [Ip4], map, addresses;
    /// Pods by their floating addresses.
    FLOATING6 = "floating6", [Ip6], map, addresses;
    /// The floating address by which a pod sees itself when it goes to itself by one.
    HAIRPIN4 = "hairpin4", [Ip4, Ip4], map, addresses;
    /// The floating address by which a pod sees itself when it goes to itself by one.
    HAIRPIN6 = "hairpin6", [Ip6, Ip6], map, addresses;
}

/// Sets and maps that tabulate what is wanted beside policy.
pub static TERMS: &[&Set] = &[
    &SOURCE4,
    &SOURCE6,
    &NAT_FROM4,
    &NAT_FROM6,
    &NAT_NOT4,
    &NAT_NOT6,
    &NAT_TO4,
    &NAT_TO6,
    &SERVICE4,
    &SERVICE6,
    &LIMITED,
    &EGRESS_PACKETS,
    &INGRESS_PACKETS,
    &EGRESS_BYTES,
    &EGRESS_CONNECTIONS,
    &INGRESS_CONNECTIONS,
    &DSCP,
    &CLUSTER4,
    &CLUSTER6,
    &FLOATING4,
    &FLOATING6,
    &HAIRPIN4,
    &HAIRPIN6,
];

/// Maps whose values are answers; values of the others that count are programs.
pub static ANSWERS: [&Set; 6] = [
    &PORT,
    &ICMP_CODE,
    &PROGRAM,
    &PORT_RANGE,
    &PROTO,
    &PROGRAM_RANGED,
];
