//! Takes back what felix made on a node. Everything is tried; what cannot be done is said at the end.

use std::io;

use anyhow::{Context, bail};
use cni::key::HOST_PREFIX;

use super::netlink::Netlink;
use super::nft::Nft;
use super::state::{self, StateDir};
use super::{conflist, settings};
use crate::args::Args;
use crate::routes::diff::Op;

/// Removes the CNI configuration (first, so that no pod comes), then routes, nexthop objects, the table, and puts the
/// kernel's settings back. Refused while felix runs, and without `force` while pods have interfaces.
pub(super) fn uninstall(args: &Args, force: bool) -> anyhow::Result<()> {
    // Fails while another felix has the directory.
    let (_state, _) = StateDir::open(&args.state_dir).context("opening the state directory")?;
    let mut netlink = Netlink::open().context("opening rtnetlink")?;
    let links = netlink.links()?.into_values();
    let pods: Vec<String> = links
        .map(|link| link.name)
        .filter(|name| name.starts_with(HOST_PREFIX))
        .collect();
    if !pods.is_empty() && !force {
        bail!(
            "{} pods still have an interface on this node: drain it first, or give --force, which cuts them off",
            pods.len()
        );
    }
    let mut problems = Vec::new();
    let file = args.cni_conf_dir.join(conflist::FILE);
    match std::fs::remove_file(&file) {
        Ok(()) => println!("removed {}", file.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => problems.push(format!("remove {}: {error}", file.display())),
    }
    if let Err(error) = netlink.delete_links(&pods) {
        problems.push(format!("remove the interfaces of pods: {error}"));
    }
    match routes(&mut netlink) {
        Ok(count) => println!("removed {count} routes and nexthop objects"),
        Err(error) => problems.push(format!("{error:#}")),
    }
    match Nft::open()
        .map_err(anyhow::Error::from)
        .and_then(|mut nft| Ok(nft.remove_table()?))
    {
        Ok(true) => println!("removed the table inet margay"),
        Ok(false) => {}
        Err(error) => problems.push(format!("remove the table inet margay: {error}")),
    }
    let boot_id = state::boot_id(&args.boot_id_file)?;
    let (restored, failed) = settings::restore(&args.state_dir, &boot_id);
    for path in restored {
        println!("restored {}", path.display());
    }
    problems.extend(failed.iter().map(ToString::to_string));
    if !problems.is_empty() {
        bail!("not everything is taken back:\n  {}", problems.join("\n  "));
    }
    Ok(())
}

fn routes(netlink: &mut Netlink) -> anyhow::Result<usize> {
    let there = netlink.read().context("reading routes")?;
    let routes = there.routes.iter();
    let mut ops: Vec<Op> = routes
        .map(|(key, entry)| Op::DeleteRoute(*key, entry.protocol))
        .collect();
    ops.extend(there.nexthops.keys().map(|id| Op::DeleteNexthop(*id)));
    let applied = netlink.apply(&ops).context("removing routes")?;
    if let Some((op, refusal)) = applied.failed.first() {
        bail!("{op}: {refusal} ({} failed)", applied.failed.len());
    }
    Ok(applied.done)
}
