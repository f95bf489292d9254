//! A server of its own for each test, a kube client and kubectl for it.

// Each suite is a crate of its own and uses a part of this.
#![allow(dead_code, unreachable_pub)]

use std::fmt::Debug;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use apiserver::{Config, Handle, Server};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api as Kind, ApiResource, DynamicObject, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Longer than anything here takes on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(30);

pub struct Api {
    pub dir: tempfile::TempDir,
    pub handle: Handle,
}

impl Api {
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut config = Config::local(dir.path());
        change(&mut config);
        let handle = Server::start(config).await.expect("the server starts");
        Self { dir, handle }
    }

    pub async fn client(&self) -> Client {
        client(&self.handle.kubeconfig).await
    }

    pub fn kubectl(&self) -> Kubectl {
        Kubectl {
            kubeconfig: self.handle.kubeconfig.clone(),
            home: self.dir.path().to_owned(),
        }
    }
}

pub async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("the kubeconfig reads");
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let config = config.expect("the kubeconfig is complete");
    Client::try_from(config).expect("a client")
}

/// Runs the real kubectl.
pub struct Kubectl {
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new("kubectl");
        // Quoted words hold the JSON and templates some commands take.
        let words = split_words(line);
        command.args(words).arg("--request-timeout=20s");
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .kill_on_drop(true);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub async fn run(&self, line: &str, stdin: Option<&str>) -> Result<String, String> {
        let mut command = self.command(line);
        if stdin.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                panic!("kubectl is not installed: these tests need kubectl 1.28 or newer in PATH")
            }
            Err(error) => panic!("cannot run kubectl: {error}"),
        };
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(stdin.unwrap_or_default().as_bytes())
                .await
                .expect("kubectl reads");
        }
        let output = tokio::time::timeout(LIMIT, child.wait_with_output());
        let output = output
            .await
            .unwrap_or_else(|_| panic!("kubectl {line} hangs"))
            .expect("kubectl ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("kubectl prints UTF-8");
        let (out, err) = (text(output.stdout), text(output.stderr));
        if output.status.success() {
            Ok(out + &err)
        } else {
            Err(out + &err)
        }
    }

    /// The output of a command that succeeds.
    pub async fn ok(&self, line: &str) -> String {
        self.run(line, None)
            .await
            .unwrap_or_else(|error| panic!("kubectl {line}: {error}"))
    }

    /// The output of a command that fails.
    pub async fn fails(&self, line: &str) -> String {
        self.run(line, None).await.expect_err(line)
    }

    pub async fn apply(&self, objects: &Value) -> Result<String, String> {
        self.run("apply -f -", Some(&objects.to_string())).await
    }
}

fn split_words(line: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            _ => words.last_mut().expect("never empty").push(c),
        }
    }
    words
}

/// Polls until `check` holds.
pub async fn eventually<T: Debug>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "registry.invalid/c:1"}]},
    })
}

/// A definition of `widgets.test.margay.io` with a status subresource and a rule.
pub fn widget_definition(scope: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.test.margay.io"},
        "spec": {
            "group": "test.margay.io", "scope": scope,
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [
                    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
                    {"name": "Ready", "type": "string", "jsonPath": ".status.ready"},
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "description": "A widget, for tests.",
                    "required": ["spec"],
                    "properties": {
                        "spec": {
                            "type": "object",
                            "description": "What is wanted.",
                            "required": ["size"],
                            "properties": {
                                "size": {"type": "integer", "minimum": 1, "maximum": 100, "description": "How big."},
                                "colour": {"type": "string", "default": "blue"},
                                "cidr": {
                                    "type": "string",
                                    "x-kubernetes-validations": [
                                        {"rule": "isCIDR(self)", "message": "must be a CIDR such as 10.0.0.0/8"},
                                        {"rule": "self == oldSelf", "message": "may not be changed"},
                                    ],
                                },
                            },
                        },
                        "status": {"type": "object", "properties": {"ready": {"type": "string"}}},
                    },
                }},
            }],
        },
    })
}

pub fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "test.margay.io/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

pub fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

pub fn config_map(name: &str) -> ConfigMap {
    object(json!({"metadata": {"name": name}, "data": {"a": "1"}}))
}

pub fn code(result: Result<impl Debug, kube::Error>) -> (u16, String) {
    match result.unwrap_err() {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("not an answer of the API: {other}"),
    }
}

pub fn definitions(client: &Client) -> Kind<DynamicObject> {
    let gvk = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    Kind::all_with(client.clone(), &ApiResource::from_gvk(&gvk))
}

pub fn widget_kind() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("test.margay.io", "v1", "Widget"))
}

pub async fn widgets(client: &Client) -> Kind<DynamicObject> {
    let definition = object(widget_definition("Cluster"));
    definitions(client)
        .create(&PostParams::default(), &definition)
        .await
        .unwrap();
    Kind::all_with(client.clone(), &widget_kind())
}
