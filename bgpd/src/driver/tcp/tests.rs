use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Both ends of a connection: ours is carried, the peer's is plain.
async fn pair() -> (Connections, mpsc::Receiver<Event>, ConnId, TcpStream) {
    let (events, inbox) = mpsc::channel(64);
    let mut connections = Connections::new(events, Arc::default());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (ours, peer) = tokio::join!(
        TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    let from = Ipv4Addr::LOCALHOST.into();
    let conn = connections
        .accept(ours.unwrap(), from, None, false)
        .unwrap();
    (connections, inbox, conn, peer.unwrap().0)
}

fn dial(remote: SocketAddr) -> Dial {
    Dial {
        address: None,
        port: None,
        remote,
        hops: Hops { ttl: 255, least: 0 },
        key: None,
    }
}

#[tokio::test]
async fn what_was_given_is_sent_before_the_close_although_the_peer_still_talks() {
    let (mut connections, mut inbox, conn, mut peer) = pair().await;
    peer.write_all(&[7; 1000]).await.unwrap();
    assert!(matches!(inbox.recv().await, Some(Event::Bytes(..))));
    peer.write_all(&[7; 100_000]).await.unwrap();
    for number in 0..100_u8 {
        connections.send(conn, Bytes::from(vec![number; 100]));
    }
    connections.close(conn);
    let mut heard = Vec::new();
    peer.read_to_end(&mut heard)
        .await
        .expect("an orderly end, not a reset");
    assert_eq!(heard.len(), 10_000);
    assert_eq!((heard[0], heard[9_999]), (0, 99));
    assert!(!connections.has(conn), "nothing more is heard of it");
}

#[tokio::test]
async fn a_peer_that_does_not_read_cannot_hold_a_closed_connection() {
    let (mut connections, _inbox, conn, peer) = pair().await;
    connections.send(conn, Bytes::from(vec![0; 32 << 20]));
    connections.close(conn);
    // Read nothing for longer than the connection may linger: the rest never comes.
    tokio::time::sleep(LINGER * 2).await;
    let mut peer = peer;
    let mut heard = Vec::new();
    let _ = peer.read_to_end(&mut heard).await;
    assert!(heard.len() < 32 << 20, "{} bytes", heard.len());
}

#[tokio::test]
async fn the_speaker_hears_how_much_was_taken_and_of_the_end() {
    let (mut connections, mut inbox, conn, mut peer) = pair().await;
    let all: usize = 1 << 24;
    // More than the kernel takes at once: some is said at once, the rest as it is taken.
    for _ in 0..16 {
        connections.send(conn, Bytes::from(vec![7; all / 16]));
    }
    let mut sent: usize = connections.flush().iter().map(|(_, bytes)| bytes).sum();
    let hearing = tokio::spawn(async move {
        let mut heard = vec![0; all];
        peer.read_exact(&mut heard).await.unwrap();
        assert!(heard.iter().all(|byte| *byte == 7));
        peer
    });
    while sent < all {
        match inbox.recv().await {
            Some(Event::Tcp(from, TcpEvent::Sent(bytes))) => {
                assert_eq!(from, conn);
                sent += bytes;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent, all);
    let mut peer = hearing.await.unwrap();
    connections.send(conn, Bytes::from_static(b"open"));
    let at_once = connections.flush();
    let mut heard = [0; 4];
    peer.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"open");
    // The writer may not have come to wait again.
    if at_once.is_empty() {
        match inbox.recv().await {
            Some(Event::Tcp(from, TcpEvent::Sent(4))) => assert_eq!(from, conn),
            other => panic!("{other:?}"),
        }
    } else {
        assert_eq!(at_once, [(conn, 4)]);
    }
    drop(peer);
    match inbox.recv().await {
        Some(Event::Tcp(_, TcpEvent::Closed { reason })) => assert_eq!(reason, ""),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_peer_cannot_fill_the_channel() {
    let (_connections, mut inbox, _conn, mut peer) = pair().await;
    let talking = tokio::spawn(async move {
        let _ = peer.write_all(&vec![1; 8 << 20]).await;
        peer
    });
    let mut held = Vec::new();
    for _ in 0..READ_AHEAD {
        held.push(inbox.recv().await.expect("a chunk"));
    }
    let more = tokio::time::timeout(Duration::from_millis(200), inbox.recv()).await;
    assert!(
        more.is_err(),
        "a chunk beyond the connection's turn: {more:?}"
    );
    held.clear();
    assert!(matches!(inbox.recv().await, Some(Event::Bytes(..))));
    talking.abort();
}

#[tokio::test]
async fn a_refused_connection_is_reported_and_an_unwanted_one_is_not() {
    let (events, mut inbox) = mpsc::channel(64);
    let mut connections = Connections::new(events, Arc::default());
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    connections.connect(ConnId::Out(1), dial(nobody), None);
    let Some(Event::Tcp(conn, event)) = inbox.recv().await else {
        panic!("no event");
    };
    assert!(matches!(event, TcpEvent::ConnectFailed { .. }), "{event:?}");
    assert!(connections.admit(conn, &event));
    assert!(!connections.admit(conn, &event), "it is over");

    connections.connect(ConnId::Out(2), dial(nobody), None);
    connections.close(ConnId::Out(2));
    assert!(!connections.admit(ConnId::Out(2), &event));
}

#[tokio::test]
async fn where_a_key_is_asked_for_an_unsigned_connection_is_refused() {
    use crate::config::{Config, Peer, PeerKey};
    let mut config = Config::new(65001, Ipv4Addr::new(192, 0, 2, 1));
    let password = || Some(Password("secret".to_owned()));
    let mut known = Peer::new(Ipv4Addr::LOCALHOST.into(), 65002);
    known.options.password = password();
    let mut unnumbered = Peer::new("fe80::1".parse().unwrap(), 0);
    unnumbered.key = PeerKey::Interface("eth0".to_owned());
    unnumbered.options.password = password();
    config.peers = vec![known, unnumbered];
    let keys = Arc::new(Keys::default());
    keys.configure(&config);
    let (events, _inbox) = mpsc::channel(64);
    let mut connections = Connections::new(events, keys);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let stranger: IpAddr = "fe80::bad".parse().unwrap();
    for (remote, interface, wanted) in [
        (Ipv4Addr::LOCALHOST.into(), None, false),
        (stranger, Some("eth0".to_owned()), false),
        (stranger, Some("eth1".to_owned()), true),
    ] {
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let accepted = connections.accept(stream.unwrap(), remote, interface.clone(), false);
        assert_eq!(accepted.is_ok(), wanted, "{remote} on {interface:?}");
    }
}
