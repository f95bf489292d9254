//! Says where the leader is, and with which certificate: the ConfigMap that felix watches.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use api::pinned::Identity;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client};

use super::{NAME, PATIENCE};
use crate::args::Args;

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// Done when it is said.
pub(super) async fn publish(client: Client, object: ConfigMap) {
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    loop {
        match tokio::time::timeout(PATIENCE, put(&api, &object)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::warn!(%error, "telling felix where the controller is"),
            Err(_) => tracing::warn!("telling felix where the controller is: no answer"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn put(api: &Api<ConfigMap>, object: &ConfigMap) -> Result<(), kube::Error> {
    let patch = Patch::Merge(object);
    match api.patch(NAME, &PatchParams::default(), &patch).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            api.create(&PostParams::default(), object).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}

/// What is said.
pub(super) fn object(args: &Args, identity: &Identity) -> ConfigMap {
    let port = args.listen.port();
    let addresses = args.advertise.iter();
    let addresses = addresses.map(|it| SocketAddr::new(*it, port).to_string());
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([
            ("certificate".to_owned(), identity.certificate.clone()),
            (
                "addresses".to_owned(),
                addresses.collect::<Vec<_>>().join(","),
            ),
        ])),
        ..ConfigMap::default()
    }
}
