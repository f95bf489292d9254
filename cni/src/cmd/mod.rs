//! The verbs.

mod add;
mod del;

use crate::client::Client;
use crate::conf::{self, Conf};
use crate::env::{Command, Invocation};
use crate::error::{CniError, Code};
use crate::frame::Request;

/// Serves one call of the runtime; returns what goes to standard output.
pub fn run(var: impl Fn(&str) -> Option<String>, stdin: &[u8]) -> Result<String, CniError> {
    let call = Invocation::parse(var)?;
    match call.command {
        Command::Add => add::add(&call, &Conf::parse_add(stdin)?),
        Command::Del => del::del(&call, &Conf::parse(stdin)?),
        Command::Version => Ok(version(stdin)),
        Command::Status => status(&Conf::parse(stdin)?),
    }
}

fn version(stdin: &[u8]) -> String {
    let answer = serde_json::json!({
        "cniVersion": conf::answer_version(stdin),
        "supportedVersions": conf::VERSIONS,
    });
    answer.to_string()
}

/// STATUS came with version 1.1.0. Whatever is wrong, the answer is code 50: ADD cannot be served.
fn status(conf: &Conf) -> Result<String, CniError> {
    let asked = Client::connect(&conf.socket).and_then(|mut felix| felix.call(&Request::Status));
    match asked {
        Ok(_) => Ok(String::new()),
        Err(error) => Err(CniError {
            code: Code::NotAvailable,
            ..error
        }),
    }
}
