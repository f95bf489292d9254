//! DEL: always succeeds, however often it is called and whether or not felix is there.

use crate::client::Client;
use crate::conf::Conf;
use crate::env::Invocation;
use crate::error::{CniError, Code};
use crate::frame::Request;
use crate::key::AttachmentKey;
use crate::link::Netlink;
use crate::spool;

pub(super) fn del(call: &Invocation, conf: &Conf) -> Result<String, CniError> {
    let key = AttachmentKey {
        network: conf.name.clone(),
        container_id: call.container_id.clone(),
        interface: call.interface.clone(),
    };
    detach(&key, conf).map(|()| String::new())
}

/// Has felix take the attachment away. Without felix, the interface goes at once and the rest waits in the spool; only a
/// spool that cannot be written is an error, so that the runtime asks again.
pub(super) fn detach(key: &AttachmentKey, conf: &Conf) -> Result<(), CniError> {
    let asked = Client::connect(&conf.socket)
        .and_then(|mut felix| felix.call(&Request::Del { key: key.clone() }));
    if asked.is_ok() {
        return Ok(());
    }
    spool::leave(&conf.spool_dir, key).map_err(|error| {
        let details = format!("{}: {error}; felix is away too", conf.spool_dir.display());
        CniError::new(Code::TryAgain, "the DEL cannot be left for felix", details)
    })?;
    // With the interface still there, felix finishes when it takes the spool's file.
    let _ = Netlink::open().and_then(|mut here| here.delete(&key.host_interface()));
    Ok(())
}
