//! While the API cannot be asked which node this is: the routes that lead to it.

use api::v1::FelixMessage;
use tokio::sync::mpsc;

use super::bgp::{self, Event};
use super::kernel::Kernel;
use crate::agent::early::Early;
use crate::agent::input::Input;

/// Enters BGP's routes into the kernel until `answer` is there. Returns it, with what the kernel reported meanwhile and the
/// agent has to know.
pub(super) async fn until<T>(
    answer: impl Future<Output = T>,
    socket: std::path::PathBuf,
    mut early: Early,
    kernel: &mut Kernel,
    changes: &mut mpsc::Receiver<Input>,
) -> (T, Vec<Input>) {
    let mut answer = std::pin::pin!(answer);
    let (to_bgp, mut from_bgp) = mpsc::channel(bgp::WINDOW);
    let stream = tokio::spawn(bgp::run(socket, to_bgp));
    // As long as it is held, the stream is open.
    let mut open = None;
    let mut missed = Vec::new();
    let mut reread = false;
    let answer = loop {
        let mut changed = tokio::select! {
            biased;
            answer = &mut answer => break answer,
            Some(input) = changes.recv() => {
                let routes = matches!(input, Input::RoutesChanged);
                reread |= routes;
                if !routes {
                    missed.push(input);
                }
                routes
            }
            Some(event) = from_bgp.recv() => take(&mut early, event, &mut open).await,
        };
        // A burst becomes one change of the kernel.
        while let Ok(event) = from_bgp.try_recv() {
            changed |= take(&mut early, event, &mut open).await;
        }
        if !changed {
            continue;
        }
        let wants = early.wants();
        match tokio::task::block_in_place(|| kernel.route_early(wants, reread)) {
            Ok(routed) => {
                reread = routed.problem.is_some();
                if let Some(problem) = routed.problem {
                    tracing::warn!(problem, "the kernel refuses early routes");
                }
            }
            Err(error) => {
                reread = true;
                tracing::warn!(error = format!("{error:#}"), "entering early routes");
            }
        }
    };
    stream.abort();
    (answer, missed)
}

async fn take(
    early: &mut Early,
    event: Event,
    open: &mut Option<mpsc::Sender<FelixMessage>>,
) -> bool {
    match event {
        Event::Connected(to_bgpd) => {
            tracing::info!("connected to bgpd, to reach the API by its routes");
            for message in early.connect() {
                if to_bgpd.send(message).await.is_err() {
                    break;
                }
            }
            *open = Some(to_bgpd);
            false
        }
        Event::Message(message) => early.take(message),
        Event::Lost(_) => {
            early.disconnect();
            *open = None;
            false
        }
    }
}
