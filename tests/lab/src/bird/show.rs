//! What BIRD prints for `show protocols` and `show route`, as data.

use serde::Serialize;

/// A BGP session as a ToR sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Session {
    /// BIRD's name of it: `n1_v4`.
    pub name: String,
    /// Whether it is Established.
    pub established: bool,
    /// BIRD's words: `Established`, `Active        Socket: Connection refused` …
    pub info: String,
}

/// A route in a ToR's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// `10.244.0.0/26`.
    pub prefix: String,
    /// The protocol it was learnt from: `n1_v4`.
    pub from: String,
    /// Whether it is the best for the prefix.
    pub best: bool,
    /// AS it was originated in; `None` for those that are not of BGP.
    pub origin_as: Option<u32>,
    /// Next hops: `172.30.1.11 on rack`.
    pub via: Vec<String>,
}

/// The BGP sessions in the answer to `show protocols`.
pub fn sessions(text: &str) -> Vec<Session> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            (words.next()? == "BGP").then_some(())?;
            let (_table, _state, _date) = (words.next()?, words.next()?, words.next()?);
            let info: Vec<&str> = words.filter(|w| !is_time(w)).collect();
            Some(Session {
                name: name.to_owned(),
                established: info.first() == Some(&"Established"),
                info: info.join(" "),
            })
        })
        .collect()
}

/// `show protocols` prints the time in one or two words, by `timeformat`.
fn is_time(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit()) && word.contains(':')
}

/// The routes in the answer to `show route`.
pub fn routes(text: &str) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for line in text.lines() {
        if let Some(route) = route_line(line, routes.last()) {
            routes.push(route);
        } else if let (Some(via), Some(route)) = (next_hop(line), routes.last_mut()) {
            route.via.push(via);
        }
    }
    routes
}

/// `10.244.0.0/26  unicast [n1_v4 10:00:00.123] * (100) [AS4200000001i]`; further routes to the same prefix
/// have blanks in its place.
fn route_line(line: &str, previous: Option<&Route>) -> Option<Route> {
    let (before, rest) = line.split_once('[')?;
    let mut words = before.split_whitespace().rev();
    let _kind = words.next()?;
    let prefix = match words.next() {
        Some(prefix) => prefix.to_owned(),
        None => previous?.prefix.clone(),
    };
    let (source, flags) = rest.split_once(']')?;
    let origin_as = flags.split_once("[AS").and_then(|(_, path)| {
        let digits = path.find(|c: char| !c.is_ascii_digit())?;
        path.get(..digits)?.parse().ok()
    });
    Some(Route {
        prefix,
        from: source.split_whitespace().next()?.to_owned(),
        best: flags.split('(').next()?.contains('*'),
        origin_as,
        via: Vec::new(),
    })
}

/// `\tvia 172.30.1.11 on rack`, or `\tdev rack` for a connected one.
fn next_hop(line: &str) -> Option<String> {
    let line = line.trim_start();
    let hop = line
        .strip_prefix("via ")
        .or_else(|| line.strip_prefix("dev "))?;
    Some(hop.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_read_up_and_down() {
        let text = "\
Name       Proto      Table      State  Since         Info
device1    Device     ---        up     06:50:11.003  \n\
n1_v4      BGP        ---        up     06:50:12.100  Established   
n1_v6      BGP        ---        start  06:50:11.003  Active        Socket: Connection refused
tor_b_v4   BGP        ---        start  2026-11-22 06:50:11  Connect       \n";
        let read = sessions(text);
        let seen: Vec<_> = read
            .iter()
            .map(|s| (s.name.as_str(), s.established, s.info.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("n1_v4", true, "Established"),
                ("n1_v6", false, "Active Socket: Connection refused"),
                ("tor_b_v4", false, "Connect"),
            ]
        );
    }

    #[test]
    fn routes_are_read_with_all_their_paths() {
        let text = "\
Table master4:
10.244.0.0/26        unicast [n1_v4 06:50:12.100] * (100) [AS4200000001i]
\tvia 172.30.1.11 on rack
                     unicast [tor_b_v4 06:50:12.100] (100) [AS4200000003i]
\tvia 172.30.0.1 on uplink weight 1
\tvia 172.30.0.3 on uplink2 weight 1
172.30.1.0/24        unicast [direct1 06:50:11.003] * (240)
\tdev rack
";
        let read = routes(text);
        assert_eq!(read.len(), 3);
        assert_eq!(read[0].prefix, "10.244.0.0/26");
        assert_eq!(
            (read[0].best, read[0].origin_as),
            (true, Some(4_200_000_001))
        );
        assert_eq!(read[0].via, ["172.30.1.11 on rack"]);
        assert_eq!(read[1].prefix, "10.244.0.0/26");
        assert_eq!((read[1].best, read[1].from.as_str()), (false, "tor_b_v4"));
        assert_eq!(read[1].via.len(), 2);
        assert_eq!((read[2].origin_as, read[2].via[0].as_str()), (None, "rack"));
    }
}
