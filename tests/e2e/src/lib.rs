//! What the end-to-end suites share: real daemons, real BIRD, real kubectl, in network namespaces (root). [`suite`] is
//! the lab of a test binary and what tests ask of it; [`fault`] a lab of one test, which breaks it.

pub mod fault;
mod readback;
pub mod suite;

/// What felix's status says is wrong, but for what the kernel of the machine lacks: without nfnetlink_log it says so for
/// ever, and nothing else depends on it.
#[must_use]
pub fn problems(felix: &serde_json::Value) -> Vec<String> {
    let told = felix["problems"].as_array().into_iter().flatten();
    let told = told.map(|problem| problem.as_str().unwrap_or_default().to_owned());
    told.filter(|problem| {
        !problem.starts_with("denied packets are not told of, everything else works")
    })
    .collect()
}
