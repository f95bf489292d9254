//! felix's end of the contract.

use std::path::Path;

use api::v1;
use api::v1::bgpd_message::Body as Told;
use api::v1::felix_message::Body as Say;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::PATIENCE;

/// felix's end of a stream.
pub(crate) struct Felix {
    to: mpsc::Sender<v1::FelixMessage>,
    from: tonic::Streaming<v1::BgpdMessage>,
    generation: u64,
}

impl Felix {
    /// Connects and says nothing.
    pub(crate) async fn silent(socket: &Path) -> Self {
        let channel = api::local::connect(socket, None).await.unwrap();
        let (to, messages) = mpsc::channel(16);
        let mut client = v1::dataplane_client::DataplaneClient::new(channel);
        let from = client
            .sync(ReceiverStream::new(messages))
            .await
            .unwrap()
            .into_inner();
        Self {
            to,
            from,
            generation: 0,
        }
    }

    /// Connects and says what comes first.
    pub(crate) async fn connect(socket: &Path) -> Self {
        let mut this = Self::silent(socket).await;
        this.hello(1).await;
        let report = v1::DataplaneReport {
            boot_id: "b".into(),
            ..Default::default()
        };
        this.say(Say::Dataplane(report)).await;
        this
    }

    /// The same after a restart of the speaker through which all its routes stayed in the kernel.
    pub(crate) async fn connect_preserved(socket: &Path) -> Self {
        let mut this = Self::silent(socket).await;
        this.hello(1).await;
        let report = v1::DataplaneReport {
            boot_id: "b".into(),
            preserved_ipv4: true,
            preserved_ipv6: true,
        };
        this.say(Say::Dataplane(report)).await;
        this
    }

    pub(crate) async fn hello(&mut self, version: u32) {
        self.say(Say::Hello(v1::Hello {
            version,
            instance: "test".into(),
        }))
        .await;
    }

    /// Listens until the stream ends; why it did.
    pub(crate) async fn ended(&mut self) -> tonic::Status {
        let listening = async {
            loop {
                match self.from.next().await {
                    Some(Ok(_)) => {}
                    Some(Err(status)) => return status,
                    None => return tonic::Status::ok("ended"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, listening)
            .await
            .expect("the stream goes on")
    }

    pub(crate) async fn say(&mut self, body: Say) {
        self.to
            .send(v1::FelixMessage { body: Some(body) })
            .await
            .unwrap();
    }

    pub(crate) async fn origin(&mut self, prefix: &str) {
        self.generation += 1;
        let origin = v1::OriginUpdate {
            generation: self.generation,
            prefix: prefix.into(),
            kind: v1::OriginKind::Block.into(),
            withdrawn: false,
            idle: false,
        };
        self.say(Say::Origin(origin)).await;
    }

    pub(crate) async fn end_of_snapshot(&mut self) {
        self.generation += 1;
        let generation = self.generation;
        self.say(Say::EndOfSnapshot(v1::EndOfSnapshot { generation }))
            .await;
    }

    /// Listens until `enough` says so.
    pub(crate) async fn hear<T>(
        &mut self,
        what: &str,
        mut enough: impl FnMut(Told) -> Option<T>,
    ) -> T {
        let listening = async {
            loop {
                let body = self.from.next().await.expect(what).unwrap().body.unwrap();
                if let Some(found) = enough(body) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, listening)
            .await
            .unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    pub(crate) async fn acked(&mut self) {
        let generation = self.generation;
        self.hear("an acknowledgement", |body| match body {
            Told::Ack(ack) if ack.generation >= generation => {
                assert_eq!(ack.error, "");
                Some(())
            }
            _ => None,
        })
        .await;
    }
}

/// Waits until the speaker behind the socket answers.
pub(crate) fn wait_for_speaker(socket: &Path) {
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut bgpd = api::client::bgpd(socket, PATIENCE).await.ok()?;
            bgpd.get_speaker(v1::GetSpeakerRequest {}).await.ok()
        })
    };
    // The caller may be in a runtime already.
    std::thread::scope(|scope| {
        scope.spawn(|| super::wait_for("bgpd to answer", ask));
    });
}
