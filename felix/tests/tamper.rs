//! Others who change the table `inet margay`, or a pod's interface, are noticed; felix' own changes and other tables
//! are not.

mod ns;

use std::process::Command;
use std::time::Duration;

use felix::driver::netlink::Netlink;
use felix::driver::nft::Nft;
use felix::driver::tamper::Monitor;
use felix::nft::diff;
use felix::policy::tables::Tables;
use ns::Namespace;

fn sh(script: &str) {
    let status = Command::new("sh")
        .args(["-ec", script])
        .status()
        .expect("sh");
    assert!(status.success(), "{script}");
}

#[test]
fn only_what_others_do_to_our_table_is_reported() {
    Namespace::new().run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        runtime.block_on(async {
            let mut nft = Nft::open().expect("netlink");
            nft.ensure_table().expect("table");
            let mut monitor = Monitor::open(nft.port().expect("port")).expect("monitor");

            let mut wanted = Tables::default();
            let address = "10.1.0.1".parse().expect("address");
            wanted
                .workloads
                .insert(("mgy0000000000a1".into(), address), "a/web".into());
            let phases = diff::plan(&Tables::default().diff(&wanted), &wanted, true);
            nft.apply(&phases.add).expect("add");
            nft.apply(&phases.commit).expect("commit");
            sh("nft add table inet other");
            sh("nft add set inet other margay '{ type ipv4_addr; }'");
            sh("nft add table ip margay");
            let quiet = tokio::time::timeout(Duration::from_millis(200), monitor.next()).await;
            assert!(quiet.is_err(), "nobody touched the table: {quiet:?}");

            for change in [
                "nft flush set inet margay workload4",
                "nft flush chain inet margay forward",
                "nft flush table inet margay",
                "nft delete table inet margay",
            ] {
                sh(change);
                tokio::time::timeout(Duration::from_secs(5), monitor.next())
                    .await
                    .unwrap_or_else(|_| panic!("not noticed: {change}"))
                    .expect("monitor");
                while let Ok(more) = tokio::time::timeout(Duration::ZERO, monitor.next()).await {
                    more.expect("monitor");
                }
                nft.ensure_table().expect("table");
            }
        });
    });
}

#[test]
fn one_link_is_looked_up_by_its_name() {
    Namespace::new().run(|| {
        sh("ip link add mgy0 type veth peer name peer0; ip link set mgy0 group 7");
        let mut netlink = Netlink::open().expect("netlink");
        let link = netlink.link("mgy0").expect("netlink").expect("a link");
        assert_eq!((link.name.as_str(), link.group), ("mgy0", 7));
        assert_eq!(netlink.link("mgy1").expect("netlink"), None);
    });
}
