//! A kernel without rules that log. There is none of that kind here, so felix itself asks this one for an expression that it
//! has not: the kernel's answer is its own.

use std::process::Command;

use felix::nft::build;
use felix::nft::epoch::{Epoch, Options};
use felix::nft::json::Document;

use crate::ns::Namespace;

/// Every expression `log` of what a process sends becomes one that no kernel knows.
const SHIM: &str = r#"
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
ssize_t sendto(int fd, const void *sent, size_t length, int flags, const struct sockaddr *to, socklen_t size) {
  char *bytes = (char *)sent;
  for (size_t at = 0; at + 8 <= length; at++)
    if (memcmp(bytes + at, "\x08\x00\x01\x00log", 8) == 0) memcpy(bytes + at + 4, "lug", 3);
  return syscall(SYS_sendto, fd, bytes, length, flags, to, size);
}
"#;

#[test]
fn a_kernel_that_refuses_rules_that_log_gets_all_others() {
    let dir = tempfile::tempdir().expect("directory");
    let (source, shim) = (dir.path().join("shim.c"), dir.path().join("shim.so"));
    std::fs::write(&source, SHIM).expect("source");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&shim);
    let built = compiler.arg(&source).status().expect("cc");
    assert!(built.success());
    let namespace = Namespace::new();
    let quiet = Options {
        quiet: true,
        ..Options::default()
    };
    let wanted = Document::of(&build::table(quiet, Epoch::FIRST));
    let (felix, at) = (env!("CARGO_BIN_EXE_margay-felix"), dir.path().display());
    // The rules come first. Without an API it goes no further, which is said.
    let life = format!(
        "LD_PRELOAD={} KUBECONFIG={at}/none {felix} --node-name n --state-dir {at}/state --run-dir {at}/run 2>&1 || true",
        shim.display(),
    );
    for first in [true, false] {
        let said = namespace.sh(&life);
        assert!(said.contains("finding the Kubernetes API"), "{said}");
        assert_eq!(
            said.contains("tried again without logging"),
            first,
            "{said}"
        );
        let there = namespace.sh("nft -jn list table inet margay");
        let there = Document::parse(&there).expect("nft's JSON");
        assert_eq!(wanted.differences(&there), [""; 0]);
    }
}
