//! BIRD's control socket: one command, one answer.
//!
//! Every line of an answer starts with a four-digit code, followed by `-` if more lines come or a space on
//! the last; a continuation of the same code starts with a space. 0xxx and 1xxx are data, 8xxx and 9xxx errors.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Sends a command and returns the text of the answer.
pub fn ask(socket: &Path, command: &str) -> io::Result<String> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    read_answer(&mut reader)?; // the greeting
    writeln!(&stream, "{command}")?;
    read_answer(&mut reader)
}

fn read_answer(from: &mut impl BufRead) -> io::Result<String> {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end_matches('\n');
        if let Some(more) = line.strip_prefix(' ') {
            text.push_str(more);
            text.push('\n');
            continue;
        }
        let (code, rest) = line.split_at_checked(4).unwrap_or((line, ""));
        let content = rest.get(1..).unwrap_or_default();
        if code.starts_with(['8', '9']) {
            return Err(io::Error::other(content.to_owned()));
        }
        if !content.is_empty() {
            text.push_str(content);
            text.push('\n');
        }
        if rest.starts_with(' ') || rest.is_empty() {
            return Ok(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_stripped_of_their_codes() {
        let mut wire = "2002-Name Proto\n1002-n1_v4 BGP\n tor BGP\n0000 \nleft".as_bytes();
        assert_eq!(
            read_answer(&mut wire).unwrap(),
            "Name Proto\nn1_v4 BGP\ntor BGP\n"
        );
        assert_eq!(wire, b"left");
    }

    #[test]
    fn errors_are_errors() {
        let mut wire = "9001 syntax error\n".as_bytes();
        assert_eq!(
            read_answer(&mut wire).unwrap_err().to_string(),
            "syntax error"
        );
    }
}
