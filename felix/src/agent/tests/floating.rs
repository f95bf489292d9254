//! Floating addresses across lives of felix.

use api::v1::felix_message;

use super::*;

const FLOATING: &str = "192.0.2.77";

fn origins(rig: &mut Rig) -> Vec<(String, bool)> {
    let messages = std::mem::take(&mut rig.to_bgpd).into_iter();
    let origins = messages.filter_map(|message| match message.body {
        Some(felix_message::Body::Origin(origin)) => Some((origin.prefix, origin.withdrawn)),
        _ => None,
    });
    origins.filter(|it| it.0.starts_with(FLOATING)).collect()
}

#[test]
fn an_address_of_an_earlier_life_is_announced_until_it_is_known_who_has_it() {
    let mut rig = Rig::routed(&[], &[], &[FLOATING.parse().unwrap()]);
    rig.give(Input::BgpdConnected);
    let prefix = format!("{FLOATING}/32");
    assert_eq!(origins(&mut rig), [(prefix.clone(), false)]);
    // Nobody asks for it any more.
    rig.sync();
    assert_eq!(origins(&mut rig), [(prefix, true)]);
    rig.give(Input::BgpdLost);
    rig.give(Input::BgpdConnected);
    assert_eq!(origins(&mut rig), []);
}
