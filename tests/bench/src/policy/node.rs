//! felix's engine and its half of the kernel, in a namespace, without the daemon around them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use felix::driver::enforce::Enforcer;
use felix::driver::netlink::Netlink;
use felix::nft::diff;
use felix::nft::epoch::Options;
use felix::policy::Engine;
use nix::time::{ClockId, clock_gettime};

/// What one change cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// felix's own work, from what it is told to the plan, on a core.
    pub(crate) compute: Duration,
    /// From there until the kernel has it, on the clock.
    pub(crate) commit: Duration,
    /// Elements that changed.
    pub(crate) changes: usize,
}

/// Engine and kernel of the namespace this thread is in.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    enforcer: Enforcer,
    netlink: Netlink,
}

impl Node {
    /// With the fixed rules, and nothing else.
    pub(crate) fn new() -> Result<Self> {
        let (enforcer, _) = Enforcer::open()?;
        Ok(Self {
            engine: Engine::new(),
            enforcer,
            netlink: Netlink::open().context("opening rtnetlink")?,
        })
    }

    /// Makes the fixed rules as an operator would have them.
    pub(crate) fn choose(&mut self, options: Options) -> Result<()> {
        self.enforcer.ensure_table(options)?;
        Ok(())
    }

    /// Tells the engine something and brings the kernel in step with it, as felix does.
    pub(crate) fn change(&mut self, tell: impl FnOnce(&mut Engine) -> Result<()>) -> Result<Cost> {
        let start = on_core()?;
        tell(&mut self.engine)?;
        let compiled = self.engine.compile();
        let phases = diff::plan(&compiled.changes, self.engine.tables(), compiled.narrowing);
        let compute = on_core()?.saturating_sub(start);
        let start = Instant::now();
        self.enforcer.prepare(&phases)?;
        self.enforcer.commit(&phases, &mut self.netlink)?;
        let commit = start.elapsed();
        self.engine.applied(compiled.revision);
        Ok(Cost {
            compute,
            commit,
            changes: compiled.changes.len(),
        })
    }
}

/// What this thread has had of a core.
fn on_core() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}
