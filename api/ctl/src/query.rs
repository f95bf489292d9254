//! Asks the daemons and renders what they answer.

use std::io::IsTerminal as _;

use api::client::{self, Daemon, Error};
use api::v1;
use serde::Serialize;

use crate::args::{Bgp, Cli, Command, Global, Ipam, Output};
use crate::bgp;
use crate::table::Screen;
use crate::{neighbor, policy, view};

/// What to print.
pub(crate) struct Answer {
    pub(crate) text: String,
    /// Exit code: 0, or 1 when a daemon did not answer, as the text says.
    pub(crate) exit: u8,
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self { text, exit: 0 }
    }
}

/// Both daemons at once; `null` for the one that does not answer.
#[derive(Debug, Serialize)]
pub(crate) struct NodeAndSpeaker {
    pub(crate) felix: Option<v1::Status>,
    pub(crate) bgpd: Option<v1::Speaker>,
    /// What needs somebody, one sentence each.
    pub(crate) problems: Vec<String>,
}

pub(crate) async fn run(cli: &Cli) -> anyhow::Result<Answer> {
    let global = &cli.global;
    let screen = screen(global.output);
    let wide = global.output == Output::Wide;
    match &cli.command {
        Command::Status => status(global, screen).await,
        Command::Bgp(Bgp::Neighbors) => {
            let answer = neighbors(global).await?;
            print(global, &answer, || {
                view::neighbors(&answer.neighbors, wide, screen)
            })
        }
        Command::Bgp(Bgp::Neighbor { neighbor }) => {
            let answer = neighbors(global).await?;
            let mut all = answer.neighbors.into_iter();
            let Some(found) = all.find(|it| it.address == *neighbor || it.name == *neighbor) else {
                anyhow::bail!(
                    "no neighbour has the address or name {neighbor:?}: `margayctl bgp neighbors` lists them"
                );
            };
            print(global, &found, || neighbor::show(&found, screen))
        }
        Command::Bgp(Bgp::Bfd) => {
            let answer = bgpd(global)
                .await?
                .list_bfd_sessions(v1::ListBfdSessionsRequest {})
                .await
                .map_err(Error::call(Daemon::Bgpd))?
                .into_inner();
            print(global, &answer, || view::bfd(&answer, wide, screen))
        }
        Command::Bgp(Bgp::Routes {
            prefix,
            neighbor,
            longer,
            shorter,
            origin_as,
            community,
        }) => {
            let matching = match (longer, shorter) {
                (true, _) => v1::PrefixMatch::Longer,
                (false, true) => v1::PrefixMatch::Shorter,
                (false, false) => v1::PrefixMatch::Exact,
            };
            let request = v1::ListRoutesRequest {
                prefix: prefix.clone().unwrap_or_default(),
                neighbor: neighbor.clone().unwrap_or_default(),
                r#match: matching.into(),
                origin_as: origin_as.unwrap_or_default(),
                community: community.clone().unwrap_or_default(),
                ..Default::default()
            };
            let answer = whole(bgpd(global).await?, async |bgpd, after| {
                let request = v1::ListRoutesRequest {
                    after,
                    ..request.clone()
                };
                bgpd.list_routes(request).await
            })
            .await?;
            print(global, &answer, || {
                view::routes(&answer.routes, wide, screen)
            })
        }
        Command::Bgp(Bgp::Advertised { neighbor }) => {
            let answer = whole(bgpd(global).await?, async |bgpd, after| {
                let request = v1::ListAdvertisedRequest {
                    neighbor: neighbor.clone(),
                    after,
                    ..Default::default()
                };
                bgpd.list_advertised(request).await
            })
            .await?;
            print(global, &answer, || {
                bgp::advertised(&answer.routes, neighbor, screen)
            })
        }
        Command::Bgp(Bgp::Explain { prefix, peer }) => {
            let request = v1::ExplainRequest {
                prefix: prefix.clone(),
                neighbor: peer.clone().unwrap_or_default(),
            };
            let answer = bgpd(global)
                .await?
                .explain(request)
                .await
                .map_err(Error::call(Daemon::Bgpd))?
                .into_inner();
            print(global, &answer, || bgp::explanation(&answer, screen))
        }
        Command::Bgp(Bgp::Drain {
            everything,
            force,
            peer,
            undo,
            show,
        }) => {
            let request = v1::DrainRequest {
                neighbor: peer.clone().unwrap_or_default(),
                everything: *everything,
                force: *force,
                undo: *undo,
                show: *show,
            };
            let answer = bgpd(global)
                .await?
                .drain(request)
                .await
                .map_err(Error::call(Daemon::Bgpd))?
                .into_inner();
            print(global, &answer, || bgp::drains(&answer.drains))
        }
        Command::Ipam(Ipam::Show) => {
            let answer = felix(global)
                .await?
                .list_blocks(v1::ListBlocksRequest {})
                .await
                .map_err(Error::call(Daemon::Felix))?
                .into_inner();
            print(global, &answer, || {
                view::blocks(&answer.blocks, wide, screen)
            })
        }
        Command::Endpoints => {
            let answer = felix(global)
                .await?
                .list_endpoints(v1::ListEndpointsRequest {})
                .await
                .map_err(Error::call(Daemon::Felix))?
                .into_inner();
            print(global, &answer, || {
                view::endpoints(&answer.endpoints, wide, screen)
            })
        }
        Command::Policy(command) => policy::run(global, command, screen).await,
    }
}

/// `status` prints what it gets from either daemon, and fails when one is away.
async fn status(global: &Global, screen: Screen) -> anyhow::Result<Answer> {
    let felix = async {
        felix(global)
            .await?
            .get_status(v1::GetStatusRequest {})
            .await
            .map_err(Error::call(Daemon::Felix))
            .map(tonic::Response::into_inner)
    };
    let bgpd = async {
        bgpd(global)
            .await?
            .get_speaker(v1::GetSpeakerRequest {})
            .await
            .map_err(Error::call(Daemon::Bgpd))
            .map(tonic::Response::into_inner)
    };
    let (felix, bgpd) = tokio::join!(felix, bgpd);
    let away: Vec<String> = [felix.as_ref().err(), bgpd.as_ref().err()]
        .into_iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    let mut both = NodeAndSpeaker {
        felix: felix.ok(),
        bgpd: bgpd.ok(),
        problems: away.clone(),
    };
    if let Some(felix) = &both.felix {
        both.problems.extend(felix.problems.iter().cloned());
    }
    if let Some(bgpd) = &both.bgpd
        && !bgpd.config_error.is_empty()
    {
        both.problems.push(format!(
            "bgpd runs on its last good configuration: {}",
            bgpd.config_error
        ));
    }
    let mut answer = print(global, &both, || view::status(&both, screen))?;
    answer.exit = u8::from(!away.is_empty());
    Ok(answer)
}

pub(crate) async fn felix(
    global: &Global,
) -> Result<v1::node_status_client::NodeStatusClient<tonic::transport::Channel>, Error> {
    let path = global
        .node_socket
        .clone()
        .unwrap_or_else(|| global.run_dir.join(api::paths::FELIX_SOCKET));
    client::felix(&path, global.timeout).await
}

type Bgpd = v1::bgp_status_client::BgpStatusClient<tonic::transport::Channel>;

/// All parts of a long answer.
async fn whole(
    mut bgpd: Bgpd,
    ask: impl AsyncFn(&mut Bgpd, String) -> tonic::Result<tonic::Response<v1::ListRoutesResponse>>,
) -> Result<v1::ListRoutesResponse, Error> {
    let mut all = v1::ListRoutesResponse::default();
    let mut after = String::new();
    loop {
        let answer = ask(&mut bgpd, after)
            .await
            .map_err(Error::call(Daemon::Bgpd))?;
        let part = answer.into_inner();
        all.routes.extend(part.routes);
        if part.next.is_empty() {
            return Ok(all);
        }
        after = part.next;
    }
}

async fn neighbors(global: &Global) -> Result<v1::ListNeighborsResponse, Error> {
    let answer = bgpd(global)
        .await?
        .list_neighbors(v1::ListNeighborsRequest {})
        .await
        .map_err(Error::call(Daemon::Bgpd))?;
    Ok(answer.into_inner())
}

async fn bgpd(global: &Global) -> Result<Bgpd, Error> {
    let path = global
        .bgpd_socket
        .clone()
        .unwrap_or_else(|| global.run_dir.join(api::paths::BGPD_SOCKET));
    client::bgpd(&path, global.timeout).await
}

pub(crate) fn print(
    global: &Global,
    answer: &impl Serialize,
    table: impl FnOnce() -> String,
) -> anyhow::Result<Answer> {
    Ok(match global.output {
        Output::Table | Output::Wide => table(),
        Output::Json => serde_json::to_string_pretty(answer)? + "\n",
        Output::Yaml => serde_saphyr::to_string(answer)?,
    }
    .into())
}

/// Cuts and colours only for a terminal.
fn screen(output: Output) -> Screen {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return Screen::default();
    }
    let width = rustix::termios::tcgetwinsize(&stdout)
        .ok()
        .map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0 && output != Output::Wide);
    Screen {
        width,
        colour: std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
    }
}
