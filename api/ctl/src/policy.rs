//! `margayctl policy`: asks felix on this node, or felix's library about files.

use anyhow::Context as _;
use api::client::{Daemon, Error};
use api::v1;
use felix::offline::Cluster;
use felix::policy::model::protocol;

use crate::args::policy::{Explain, Policy};
use crate::args::{Global, Output};
use crate::query::{Answer, felix, print};
use crate::table::Screen;
use crate::{change, counters, events, explain, files, view};

/// Exit code when the flow that was asked about is denied.
const DENIED: u8 = 3;

pub(crate) async fn run(
    global: &Global,
    command: &Policy,
    screen: Screen,
) -> anyhow::Result<Answer> {
    match command {
        Policy::List => {
            let answer = felix(global)
                .await?
                .list_policies(v1::ListPoliciesRequest {})
                .await
                .map_err(Error::call(Daemon::Felix))?
                .into_inner();
            let wide = global.output == Output::Wide;
            print(global, &answer, || {
                view::policies(&answer.policies, wide, screen)
            })
        }
        Policy::Explain(flow) => {
            let request = request(flow)?;
            let answer = match flow.files.files.as_slice() {
                [] => felix(global)
                    .await?
                    .explain_policy(request)
                    .await
                    .map_err(Error::call(Daemon::Felix))?
                    .into_inner(),
                files => Cluster::load(files::read(files)?)
                    .explain(&request)
                    .context("the files do not say")?,
            };
            let mut printed = print(global, &answer, || explain::explanation(&answer, screen))?;
            printed.exit = if answer.allowed { 0 } else { DENIED };
            Ok(printed)
        }
        Policy::WhatIf {
            files,
            delete,
            against,
            limit,
        } => {
            let objects = files::read(files)?;
            let request = v1::WhatIfRequest {
                objects: objects.iter().map(|it| it.object.to_string()).collect(),
                deleted: delete.clone(),
                limit: *limit,
            };
            let answer = match against.as_slice() {
                [] => felix(global)
                    .await?
                    .what_if(request)
                    .await
                    .map_err(Error::call(Daemon::Felix))?
                    .into_inner(),
                files => Cluster::load(files::read(files)?)
                    .what_if(&request)
                    .map_err(anyhow::Error::msg)?,
            };
            let mut printed = print(global, &answer, || change::flips(&answer, screen))?;
            printed.exit = if answer.lost_pairs == 0 { 0 } else { DENIED };
            Ok(printed)
        }
        Policy::Events { pod } => {
            let pod = pod.as_deref().unwrap_or_default();
            events::print(global, pod, screen).await?;
            Ok(String::new().into())
        }
        Policy::Counters { zero } => {
            let mut answer = felix(global)
                .await?
                .list_rule_counters(v1::ListRuleCountersRequest {})
                .await
                .map_err(Error::call(Daemon::Felix))?
                .into_inner();
            if *zero {
                counters::only_zero(&mut answer);
            }
            print(global, &answer, || counters::counters(&answer, screen))
        }
        Policy::Render { node, files } => {
            let json = matches!(global.output, Output::Json | Output::Yaml);
            let answer = match (node, files.files.as_slice()) {
                (_, []) => felix(global)
                    .await?
                    .render_table(v1::RenderTableRequest { json })
                    .await
                    .map_err(Error::call(Daemon::Felix))?
                    .into_inner(),
                (Some(node), files) => Cluster::load(files::read(files)?)
                    .picture(node)
                    .map_err(anyhow::Error::msg)?
                    .render(json)?,
                (None, _) => anyhow::bail!("--node is needed: a table is that of one node"),
            };
            match json {
                true => {
                    let document: serde_json::Value = serde_json::from_str(&answer.document)?;
                    print(global, &document, String::new)
                }
                false => Ok(change::table(&answer).into()),
            }
        }
        Policy::Unused { files } => {
            let answer = match files.files.as_slice() {
                [] => felix(global)
                    .await?
                    .list_unused(v1::ListUnusedRequest {})
                    .await
                    .map_err(Error::call(Daemon::Felix))?
                    .into_inner(),
                files => Cluster::load(files::read(files)?).unused(),
            };
            print(global, &answer, || change::unused(&answer, screen))
        }
    }
}

fn request(flow: &Explain) -> anyhow::Result<v1::ExplainPolicyRequest> {
    let (mut port, mut port_name) = (0, String::new());
    match (flow.protocol, &flow.port, flow.icmp) {
        (protocol::ICMP | protocol::ICMP6, None, icmp) => {
            // Both families ask with a type of their own; felix knows which.
            port = u32::from(icmp.unwrap_or(ECHO_REQUEST));
        }
        (protocol::ICMP | protocol::ICMP6, Some(_), _) => {
            anyhow::bail!("ICMP has no ports: say --icmp TYPE/CODE")
        }
        (_, _, Some(_)) => anyhow::bail!("--icmp needs --protocol icmp"),
        (_, Some(text), None) => match text.parse::<u16>() {
            Ok(number) => port = u32::from(number),
            Err(_) => port_name.clone_from(text),
        },
        (protocol::TCP | protocol::UDP | protocol::SCTP | protocol::UDP_LITE, None, None) => {
            anyhow::bail!("--port is needed: verdicts differ by port")
        }
        (_, None, None) => {}
    }
    let end = |text: &str| match text.contains('/') || text.parse::<std::net::IpAddr>().is_ok() {
        true => text.to_owned(),
        false => format!("{}/{text}", flow.namespace),
    };
    Ok(v1::ExplainPolicyRequest {
        from: end(&flow.from),
        to: end(&flow.to),
        protocol: u32::from(flow.protocol),
        port,
        port_name,
        source_port: flow.source_port.map(u32::from).unwrap_or_default(),
        interface: flow.interface.clone().unwrap_or_default(),
    })
}

/// Type 8, code 0.
const ECHO_REQUEST: u16 = 0x0800;
