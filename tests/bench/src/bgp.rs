//! Routes through a speaker: loading a table, taking it back, one more route beside it.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::ground::{Ground, Namespace};
use crate::report::{Samples, Table};
use crate::routers::{
    MIDDLE, Middle, ORIGIN, RECEIVER, Router, middle_config, origin_config, receiver_config,
};
use crate::usage;

/// How often the single route goes in and out, each round.
const SINGLES: usize = 20;
/// What a speaker may still have to do when the last route has arrived.
const REST: Duration = Duration::from_millis(300);

/// What one of them needed.
#[derive(Debug, Default)]
struct Need {
    load: Samples,
    withdraw: Samples,
    single: Samples,
    /// Of one loading and one withdrawal, as milliseconds.
    cpu_load: Samples,
    cpu_withdraw: Samples,
    /// MiB.
    peak: f64,
}

/// Runs the benchmark with a table of `routes` and prints it.
pub(crate) fn run(ground: &Ground, routes: u32, rounds: u32) -> Result<()> {
    let config = origin_config(routes);
    let mut needs = [
        (Middle::Bgpd, Need::default()),
        (Middle::Bird, Need::default()),
        (Middle::Nothing, Need::default()),
    ];
    for _ in 0..rounds {
        for (middle, need) in &mut needs {
            round(ground, *middle, &config, routes, need)?;
        }
    }
    let mut table = Table::compared(
        &format!(
            "BGP, {routes} routes (/26, 64 to a set of attributes) from a BIRD to a BIRD through …, medians of {rounds}"
        ),
        &["margay-bgpd", "BIRD", "nothing"],
    );
    let figures = |figure: &dyn Fn(&Need) -> f64| needs.each_ref().map(|(_, need)| figure(need));
    table.row("all routes there, ms", &figures(&|n| n.load.median()));
    table.row(
        "all routes withdrawn, ms",
        &figures(&|n| n.withdraw.median()),
    );
    table.row(
        "one new route beside them, median ms",
        &figures(&|n| n.single.median()),
    );
    table.row("the same, p99 ms", &figures(&|n| n.single.p99()));
    // Nothing stands there that could use CPU or memory.
    let ran = |figure: &dyn Fn(&Need) -> f64| {
        let [bgpd, bird, _] = figures(figure);
        [bgpd, bird]
    };
    table.row("CPU to load, ms", &ran(&|n| n.cpu_load.median()));
    table.row("CPU to withdraw, ms", &ran(&|n| n.cpu_withdraw.median()));
    table.row("peak RSS, MiB", &ran(&|n| n.peak));
    table.print();
    Ok(())
}

/// One fresh set of routers.
fn round(
    ground: &Ground,
    middle: Middle,
    config: &str,
    routes: u32,
    need: &mut Need,
) -> Result<()> {
    let (left, between) = (ground.namespace("left")?, ground.namespace("between")?);
    let right = ground.namespace("right")?;
    left.cable("up0", &between, "left0")?;
    right.cable("up0", &between, "right0")?;
    let address = |namespace: &Namespace, device: &str, address: &str| {
        namespace.ip(&format!("addr add {address}/24 dev {device}"))
    };
    address(&left, "up0", ORIGIN.0)?;
    address(&between, "left0", MIDDLE.0)?;
    address(&between, "right0", MIDDLE.1)?;
    address(&right, "up0", RECEIVER.0)?;

    let origin = Router::bird(ground, "origin", &left, config)?;
    let (in_between, receiver) = if middle == Middle::Nothing {
        let config = receiver_config((MIDDLE.0, MIDDLE.2), ORIGIN);
        let receiver = Router::bird(ground, "receiver", &between, &config)?;
        (None, receiver)
    } else {
        let config = receiver_config(RECEIVER, (MIDDLE.1, MIDDLE.2));
        let receiver = Router::bird(ground, "receiver", &right, &config)?;
        let router = match middle {
            Middle::Bgpd => Router::bgpd(ground, &between)?,
            _ => Router::bird(ground, "middle", &between, &middle_config())?,
        };
        (Some(router), receiver)
    };
    origin.wait_established()?;
    receiver.wait_established()?;
    receiver.wait_routes(0, Duration::from_millis(20))?;

    let pid = in_between.as_ref().map(|router| router.pid);
    let pause = Duration::from_millis(5);
    let timed = |command: &str, expected: u32, pause: Duration| -> Result<Duration> {
        let start = Instant::now();
        origin.ask(command)?;
        Ok(receiver.wait_routes(expected, pause)? - start)
    };
    let mut idle = cpu(pid)?;
    need.load.add(timed("enable feed", routes, pause)?);
    thread::sleep(REST);
    need.cpu_load.add(cpu(pid)? - idle);
    for _ in 0..SINGLES {
        let pause = Duration::from_micros(200);
        need.single.add(timed("enable one", routes + 1, pause)?);
        timed("disable one", routes, pause)?;
    }
    idle = cpu(pid)?;
    need.withdraw.add(timed("disable feed", 0, pause)?);
    thread::sleep(REST);
    need.cpu_withdraw.add(cpu(pid)? - idle);
    let peak = pid.and_then(usage::peak_rss).unwrap_or(f64::NAN);
    need.peak = need.peak.max(peak);
    Ok(())
}

fn cpu(pid: Option<i32>) -> Result<Duration> {
    pid.map_or(Ok(Duration::ZERO), usage::cpu_of)
}
