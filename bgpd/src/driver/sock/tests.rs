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
            let signed = false;
            assert_eq!(syn(&accepted.unwrap().0), Some(Syn { ttl, signed }));
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

#[test]
fn a_signature_is_found_among_the_options_of_a_syn() {
    // Every header length that its four bits can say, with the option at each place, cut at each place.
    let syn = |version: u8, options: &[u8]| {
        let mut packet = match version {
            4 => vec![
                0x45, 0, 0, 0, 0, 0, 0, 0, 254, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
            ],
            _ => {
                let mut packet = vec![0x60, 0, 0, 0, 0, 0, 6, 254];
                packet.extend([0_u8; 32]);
                packet
            }
        };
        let mut tcp = [0_u8; 20];
        tcp[12] = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
        packet.extend(tcp);
        packet.extend(options);
        packet
    };
    let mut md5 = vec![1, 1, 19, 18];
    md5.extend([7; 16]);
    let mut after_mss = vec![2, 4, 5, 180];
    after_mss.extend(&md5);
    let mut after_end = vec![0, 0, 0, 0];
    after_end.extend(&md5);
    for version in [4, 6] {
        let read = |options: &[u8]| read_syn(&syn(version, options)).unwrap();
        assert_eq!(
            read(&[]),
            Syn {
                ttl: 254,
                signed: false
            }
        );
        assert_eq!(
            read(&md5),
            Syn {
                ttl: 254,
                signed: true
            }
        );
        assert!(read(&after_mss).signed);
        assert!(!read(&after_end).signed, "nothing follows the end");
        assert!(!read(&[2, 0, 19, 18]).signed, "an option of no length");
        let whole = syn(version, &after_mss);
        for length in 0..whole.len() {
            // Whatever is missing, nothing is read beyond it.
            let _ = read_syn(&whole[..length]);
        }
    }
    assert_eq!(read_syn(&[0x10; 60]), None);
}
