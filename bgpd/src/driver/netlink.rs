//! What the kernel knows that next hops depend on: interfaces, own addresses, routes that are not ours.
//!
//! Reads only, so it needs no capability. The monitor is opened before the dump, so nothing is missed between the two;
//! what notifications do not tell reliably is read again, and the difference is passed on.

use std::time::Duration;

use anyhow::Context as _;
use crds::net::Family;
use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedReceiver;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{AsyncSocket as _, SocketAddr};
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::Event;
use super::view::{self, Effect, View};
use crate::nexthop::Change;

/// Kernel memory for notifications that wait to be read, bytes.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Wait after a failure, and between readings that notifications ask for.
const RETRY: Duration = Duration::from_secs(1);
const SETTLE: Duration = Duration::from_millis(20);

/// Everything is read again this often, against notifications that were never sent.
const RESYNC: Duration = Duration::from_secs(300);

type Messages = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// Follows the kernel for as long as the program runs. The first reading goes to `first`, if it is still waited for.
pub(crate) async fn follow(first: oneshot::Sender<Vec<Change>>, events: mpsc::Sender<Event>) {
    let mut view = View::default();
    let mut first = Some(first);
    loop {
        match watch(&mut view, &mut first, &events).await {
            Ok(()) => return,
            Err(e) => warn!(
                error = format!("{e:#}"),
                "reading the kernel failed, starting over"
            ),
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Follows the kernel until something fails (error) or the program ends (ok).
async fn watch(
    view: &mut View,
    first: &mut Option<oneshot::Sender<Vec<Change>>>,
    events: &mpsc::Sender<Event>,
) -> anyhow::Result<()> {
    let (mut connection, _monitor, mut messages) = rtnetlink::new_multicast_connection(&[
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
        MulticastGroup::Neigh,
    ])
    .context("cannot open a netlink socket")?;
    if let Err(e) = connection
        .socket_mut()
        .socket_mut()
        .set_rx_buf_sz(RECEIVE_BUFFER)
    {
        debug!(error = %e, "the kernel's receive buffer stays as it is");
    }
    let monitor = AbortOnDrop(tokio::spawn(connection));
    let (connection, handle, _) =
        rtnetlink::new_connection_with_strict_check().context("cannot open a netlink socket")?;
    let requests = AbortOnDrop(tokio::spawn(connection));

    loop {
        let fresh = dump(&handle).await?;
        let mut changes = view::diff(view, &fresh);
        *view = fresh;
        if let Some(first) = first.take() {
            changes = first.send(changes).err().unwrap_or_default();
        }
        if !changes.is_empty() && events.send(Event::Kernel(changes)).await.is_err() {
            return Ok(());
        }
        loop {
            match tokio::time::timeout(RESYNC, next(&mut messages)).await {
                Err(_elapsed) => break,
                Ok(None) => anyhow::bail!("the monitor ended"),
                Ok(Some(Batch::Overrun)) => {
                    info!("notifications of the kernel were lost, reading all again");
                    break;
                }
                Ok(Some(Batch::Messages(batch))) => {
                    let before = view.clone();
                    let effects: Vec<Effect> =
                        batch.iter().map(|message| view.apply(message)).collect();
                    let changes = view::diff(&before, view);
                    if !changes.is_empty() && events.send(Event::Kernel(changes)).await.is_err() {
                        return Ok(());
                    }
                    if effects.contains(&Effect::ReadAgain) {
                        tokio::time::sleep(SETTLE).await;
                        break;
                    }
                }
            }
        }
        // Either task ends only with its socket.
        if monitor.0.is_finished() || requests.0.is_finished() {
            anyhow::bail!("a netlink socket was closed");
        }
    }
}

enum Batch {
    Messages(Vec<RouteNetlinkMessage>),
    Overrun,
}

/// All notifications that have arrived, at least one.
async fn next(messages: &mut Messages) -> Option<Batch> {
    let mut message = Some(messages.next().await?.0);
    let mut batch = Vec::new();
    while let Some(this) = message {
        match this.payload {
            NetlinkPayload::InnerMessage(inner) => batch.push(inner),
            NetlinkPayload::Overrun(_) => {
                // What waits in the channel is older than the dump to come.
                while messages.try_recv().is_ok() {}
                return Some(Batch::Overrun);
            }
            _ => {}
        }
        message = messages.try_recv().ok().map(|(message, _)| message);
    }
    Some(Batch::Messages(batch))
}

/// Reads everything.
async fn dump(handle: &Handle) -> anyhow::Result<View> {
    let mut view = View::default();
    let mut links = Box::pin(handle.link().get().execute());
    while let Some(link) = links.next().await {
        let link = link.context("cannot read the interfaces")?;
        view.apply(&RouteNetlinkMessage::NewLink(link));
    }
    let mut addresses = Box::pin(handle.address().get().execute());
    while let Some(address) = addresses.next().await {
        let address = address.context("cannot read the addresses")?;
        view.apply(&RouteNetlinkMessage::NewAddress(address));
    }
    let request = handle.neighbours().get();
    let request = request.set_address_family(AddressFamily::Inet6);
    let mut neighbours = Box::pin(request.execute());
    while let Some(neighbour) = neighbours.next().await {
        match neighbour {
            Ok(neighbour) => {
                view.apply(&RouteNetlinkMessage::NewNeighbour(neighbour));
            }
            Err(e) if absent(&e) => break,
            Err(e) => return Err(e).context("cannot read the neighbours"),
        }
    }
    for family in Family::ALL {
        let mut request = RouteMessage::default();
        request.header.address_family = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        // With the strict check the kernel sends this table only.
        request.header.table = view::MAIN_TABLE;
        let mut routes = Box::pin(handle.route().get(request).execute());
        while let Some(route) = routes.next().await {
            match route {
                Ok(route) => {
                    view.apply(&RouteNetlinkMessage::NewRoute(route));
                }
                Err(e) if absent(&e) => break,
                Err(e) => {
                    return Err(e).with_context(|| format!("cannot read the {family} routes"));
                }
            }
        }
    }
    Ok(view)
}

/// The kernel has no such family, or the table holds nothing yet.
fn absent(error: &rtnetlink::Error) -> bool {
    match error {
        rtnetlink::Error::NetlinkError(e) => {
            let code = -e.raw_code();
            code == libc::ENOENT || code == libc::EAFNOSUPPORT || code == libc::EOPNOTSUPP
        }
        _ => false,
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
