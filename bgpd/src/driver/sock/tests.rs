use super::*;

/// How far a peer may be when nobody limits it.
const ANY: Hops = Hops { ttl: 255, least: 0 };

fn listener(family: Family, port: u16, edit: impl FnOnce(&Socket)) -> (TcpListener, SocketAddr) {
    let socket = bind(family, port).unwrap();
    edit(&socket);
    let listener = listen(socket).unwrap();
    let mut address = listener.local_addr().unwrap();
    address.set_ip(match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    });
    (listener, address)
}

fn dial(remote: SocketAddr) -> Dial {
    Dial {
        address: None,
        port: None,
        remote,
        hops: ANY,
        key: None,
    }
}

/// Whether a connection comes about; the kernel says nothing about segments that it drops.
async fn connects(dial: Dial, listener: &TcpListener) -> bool {
    let both = async { tokio::try_join!(connect(dial), listener.accept()) };
    let patience = std::time::Duration::from_millis(300);
    matches!(tokio::time::timeout(patience, both).await, Ok(Ok(_)))
}

#[tokio::test]
async fn both_families_listen_on_one_port_and_mark_their_packets() {
    let (v4, to) = listener(Family::V4, 0, |_| ());
    let (v6, six) = listener(Family::V6, to.port(), |_| ());

    let local = IpAddr::from([127, 0, 0, 2]);
    let from = Dial {
        address: Some(local),
        ..dial(to)
    };
    let out = connect(from).await.unwrap();
    assert_eq!(out.local_addr().unwrap().ip(), local);
    assert!(out.nodelay().unwrap());
    assert_eq!(socket2::SockRef::from(&out).tos_v4().unwrap(), CS6);
    let (accepted, from) = v4.accept().await.unwrap();
    assert_eq!(from.ip(), local);
    assert_eq!(socket2::SockRef::from(&accepted).tos_v4().unwrap(), CS6);
    assert_eq!(socket2::SockRef::from(&accepted).ttl_v4().unwrap(), 255);

    let (out, accepted) = tokio::join!(connect(dial(six)), v6.accept());
    assert_eq!(
        out.unwrap().local_addr().unwrap(),
        accepted.unwrap().1,
        "the IPv6 listener took it"
    );
}

#[tokio::test]
async fn a_source_port_can_be_used_again_at_once() {
    let (listener, to) = listener(Family::V4, 0, |_| ());
    let spare = bind(Family::V4, 0).unwrap();
    let port = spare.local_addr().unwrap().as_socket().unwrap().port();
    drop(spare);
    for _ in 0..2 {
        let from = Dial {
            address: Some([127, 0, 0, 3].into()),
            port: Some(port),
            ..dial(to)
        };
        let out = connect(from).await.unwrap();
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from.to_string(), format!("127.0.0.3:{port}"));
        drop(out);
    }
}

#[tokio::test]
async fn the_ttl_of_the_syn_tells_how_far_the_peer_is() {
    for family in Family::ALL {
        let (listener, to) = listener(family, 0, |_| ());
        for ttl in [255, 1] {
            let near = Dial {
                hops: Hops { ttl, least: 0 },
                ..dial(to)
            };
            let (_out, accepted) = tokio::join!(connect(near), listener.accept());
            assert_eq!(syn_ttl(&accepted.unwrap().0), Some(ttl));
        }
        let far = Dial {
            hops: Hops {
                ttl: 255,
                least: 255,
            },
            ..dial(to)
        };
        assert!(connects(far, &listener).await, "the answer has TTL 255");
    }
}

#[tokio::test]
async fn only_who_has_the_key_connects() {
    let ranges = [
        (Family::V4, "127.0.0.0/8", "127.0.0.1/32"),
        (Family::V6, "::/64", "::1/128"),
    ];
    for (family, range, host) in ranges {
        let (listener, to) = listener(family, 0, |socket| {
            set_key(socket, range.parse().unwrap(), Some(b"range")).unwrap();
        });
        let with = |key: Option<&[u8]>| Dial {
            key: key.map(<[u8]>::to_vec),
            ..dial(to)
        };
        assert!(connects(with(Some(b"range")), &listener).await, "{family}");
        assert!(!connects(with(Some(b"other")), &listener).await, "{family}");
        assert!(!connects(with(None), &listener).await, "{family}");
        let host: Cidr = host.parse().unwrap();
        set_key(&listener, host, Some(b"own")).unwrap();
        assert!(connects(with(Some(b"own")), &listener).await, "{family}");
        assert!(!connects(with(Some(b"range")), &listener).await, "{family}");
        for gone in [host, range.parse().unwrap(), range.parse().unwrap()] {
            set_key(&listener, gone, None).unwrap();
        }
        assert!(connects(with(None), &listener).await, "{family}");
    }
    let socket = bind(Family::V4, 0).unwrap();
    let long = vec![b'x'; KEY_MAX + 1];
    assert!(set_key(&socket, "192.0.2.1/32".parse().unwrap(), Some(&long)).is_err());
}
