//! `lab status`: processes, sessions and routes as BIRD sees them, nodes, pods.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use crate::api::{self, NodeReady};
use crate::bird::show::{Route, Session};
use crate::command::{Lab, netns_exists};
use crate::options::Parts;
use crate::{pods, programs};

/// Everything there is to say about a lab.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// All processes run, all sessions are Established, all nodes are Ready.
    pub ok: bool,
    /// Where the lab is.
    pub dir: PathBuf,
    /// The admin kubeconfig; `None` without an API server.
    pub kubeconfig: Option<PathBuf>,
    /// Every process that should run.
    pub processes: Vec<ProcessStatus>,
    /// Every router.
    pub tors: Vec<TorStatus>,
    /// Nodes as the API knows them.
    pub nodes: Vec<NodeReady>,
    /// Attached pods, `namespace/pod` with their addresses.
    pub pods: Vec<PodStatus>,
    /// What could not be found out.
    pub problems: Vec<String>,
}

/// A process.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessStatus {
    /// `n1.felix`.
    pub name: String,
    /// `None` when it does not run.
    pub pid: Option<i32>,
}

/// What a ToR's BIRD says.
#[derive(Debug, Clone, Serialize)]
pub struct TorStatus {
    /// `tor-a`.
    pub name: String,
    /// BGP sessions.
    pub sessions: Vec<Session>,
    /// BGP routes.
    pub routes: Vec<Route>,
}

/// A pod's attachment.
#[derive(Debug, Clone, Serialize)]
pub struct PodStatus {
    /// `namespace/pod`.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// Its network namespace.
    pub netns: String,
}

pub(crate) fn of(lab: &Lab) -> Status {
    let mut problems = Vec::new();
    let processes: Vec<ProcessStatus> = programs::expected(&lab.plan, lab.state.parts)
        .into_iter()
        .map(|name| ProcessStatus {
            pid: lab
                .processes
                .record(&name)
                .filter(|r| r.alive())
                .map(|r| r.pid),
            name,
        })
        .collect();
    let mut tors = Vec::new();
    for name in lab.plan.routers() {
        match lab.sessions(name).and_then(|s| Ok((s, lab.routes(name)?))) {
            Ok((sessions, routes)) => tors.push(TorStatus {
                name: name.to_owned(),
                sessions,
                routes,
            }),
            Err(e) => problems.push(format!("{e:#}")),
        }
    }
    let everything = lab.state.parts == Parts::Everything;
    let served = lab.state.parts >= Parts::ControlPlane;
    let mut nodes = Vec::new();
    if served {
        let kubeconfig = lab.kubeconfig();
        match api::block_on(async { api::nodes(&api::client(&kubeconfig).await?).await }) {
            Ok(found) => nodes = found,
            Err(e) => problems.push(format!("{e:#}")),
        }
    }
    let places = lab
        .plan
        .nodes
        .iter()
        .map(|n| n.name.as_str())
        .chain(lab.plan.routers());
    for place in places.filter(|p| !netns_exists(&lab.plan, p)) {
        problems.push(format!("the namespace of {place} is gone"));
    }
    Status {
        ok: problems.is_empty()
            && processes.iter().all(|p| p.pid.is_some())
            && tors
                .iter()
                .flat_map(|t| &t.sessions)
                .all(|s| s.established || !everything)
            && nodes.iter().all(|n| n.ready || !everything),
        dir: lab.plan.dir.clone(),
        kubeconfig: served.then(|| lab.kubeconfig()),
        processes,
        tors,
        nodes,
        pods: pods::attached(&lab.plan)
            .into_iter()
            .map(|(name, s)| PodStatus {
                name,
                addresses: s.addresses,
                netns: s.netns,
            })
            .collect(),
        problems,
    }
}

impl Status {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "lab in {}: {}",
            self.dir.display(),
            if self.ok { "ok" } else { "NOT OK" }
        );
        if let Some(file) = &self.kubeconfig {
            let _ = writeln!(out, "kubeconfig {}", file.display());
        }
        for problem in &self.problems {
            let _ = writeln!(out, "problem: {problem}");
        }
        out.push('\n');
        let rows: Vec<[String; 2]> = self
            .processes
            .iter()
            .map(|p| {
                [
                    p.name.clone(),
                    p.pid.map_or_else(|| "down".into(), |pid| pid.to_string()),
                ]
            })
            .collect();
        out += &table(&["PROCESS", "PID"], &rows);
        for tor in &self.tors {
            out += &tor.text();
        }
        if self.kubeconfig.is_some() {
            let rows: Vec<[String; 2]> = self
                .nodes
                .iter()
                .map(|n| {
                    let state = n.reason.clone().unwrap_or_else(|| "Ready".to_owned());
                    [n.name.clone(), state]
                })
                .collect();
            out += &format!("\n{}", table(&["NODE", "STATE"], &rows));
            let rows: Vec<[String; 3]> = self
                .pods
                .iter()
                .map(|p| {
                    let addresses: Vec<String> =
                        p.addresses.iter().map(ToString::to_string).collect();
                    [p.name.clone(), addresses.join(" "), p.netns.clone()]
                })
                .collect();
            out += &format!("\n{}", table(&["POD", "ADDRESSES", "NETNS"], &rows));
        }
        out
    }
}

impl TorStatus {
    /// Sessions and routes for people.
    pub fn text(&self) -> String {
        let sessions: Vec<[String; 2]> = self
            .sessions
            .iter()
            .map(|s| [s.name.clone(), s.info.clone()])
            .collect();
        let routes: Vec<[String; 4]> = self
            .routes
            .iter()
            .map(|r| {
                [
                    if r.best { "*" } else { "" }.to_owned(),
                    r.prefix.clone(),
                    r.via.join(", "),
                    r.from.clone(),
                ]
            })
            .collect();
        format!(
            "\n{}\n{}\n{}",
            self.name,
            table(&["  SESSION", "STATE"], &indent(sessions)),
            table(&["  ", "ROUTE", "VIA", "FROM"], &indent(routes)),
        )
    }
}

fn indent<const N: usize>(mut rows: Vec<[String; N]>) -> Vec<[String; N]> {
    for row in &mut rows {
        row[0].insert_str(0, "  ");
    }
    rows
}

/// Columns as wide as their widest cell, two spaces between.
pub(crate) fn table<const N: usize>(head: &[&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    let head = head.map(str::to_owned);
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [
            ["a".to_owned(), "b".to_owned()],
            ["long".to_owned(), String::new()],
        ];
        assert_eq!(table(&["X", "Y"], &rows), "X     Y\na     b\nlong\n");
    }
}
