//! Errors as the CNI specification wants them: JSON on standard output.

use serde::{Deserialize, Serialize};

/// An error of the plugin, with its code of CNI SPEC 1.1.0, section 5 "Error".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{msg}: {details}")]
pub struct CniError {
    /// What kind of error it is.
    pub code: Code,
    /// One short sentence.
    pub msg: String,
    /// What was seen, and what to do.
    pub details: String,
}

/// Codes: 1–99 are the specification's, from 100 ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u32", from = "u32")]
pub enum Code {
    /// 1: the configuration's version is not ours.
    IncompatibleVersion,
    /// 3: the container (its namespace) is not there.
    UnknownContainer,
    /// 4: a CNI_ environment variable is missing or bad.
    BadEnvironment,
    /// 5: input or output failed.
    Io,
    /// 6: something could not be decoded.
    Decode,
    /// 7: the configuration is bad.
    BadConfiguration,
    /// 11: not now; try again.
    TryAgain,
    /// 50: the plugin cannot serve ADD now.
    NotAvailable,
    /// 100: the kernel refused.
    Kernel,
    /// 101: no address is free.
    NoAddress,
    /// Any other.
    Other(u32),
}

impl CniError {
    /// An error of `code` with its sentence and details.
    pub fn new(code: Code, msg: impl Into<String>, details: impl ToString) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: details.to_string(),
        }
    }

    /// The JSON document for standard output, in the version the caller speaks.
    pub fn to_json(&self, cni_version: &str) -> String {
        serde_json::json!({
            "cniVersion": cni_version,
            "code": self.code,
            "msg": self.msg,
            "details": self.details,
        })
        .to_string()
    }
}

const CODES: [(u32, Code); 10] = [
    (1, Code::IncompatibleVersion),
    (3, Code::UnknownContainer),
    (4, Code::BadEnvironment),
    (5, Code::Io),
    (6, Code::Decode),
    (7, Code::BadConfiguration),
    (11, Code::TryAgain),
    (50, Code::NotAvailable),
    (100, Code::Kernel),
    (101, Code::NoAddress),
];

impl From<Code> for u32 {
    fn from(code: Code) -> Self {
        if let Code::Other(number) = code {
            return number;
        }
        CODES
            .iter()
            .find(|(_, c)| *c == code)
            .map_or(999, |(n, _)| *n)
    }
}

impl From<u32> for Code {
    fn from(number: u32) -> Self {
        CODES
            .iter()
            .find(|(n, _)| *n == number)
            .map_or(Self::Other(number), |(_, c)| *c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_map_both_ways() {
        for (number, code) in CODES {
            assert_eq!(u32::from(code), number);
            assert_eq!(Code::from(number), code);
        }
        assert_eq!(u32::from(Code::from(77)), 77);
    }

    #[test]
    fn json_has_the_fields_of_the_specification() {
        let error = CniError::new(
            Code::BadEnvironment,
            "CNI_IFNAME is not set",
            "the runtime sets it",
        );
        assert_eq!(
            error.to_json("1.0.0"),
            r#"{"cniVersion":"1.0.0","code":4,"msg":"CNI_IFNAME is not set","details":"the runtime sets it"}"#
        );
    }
}
