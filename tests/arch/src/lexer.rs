//! Telling Rust's code from its comments and strings.

/// The text with everything that is not code (comments, the contents of strings and characters) replaced by
/// blanks; lines stay where they are.
pub fn code(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let end = skip(&letters, at);
        match end {
            Some(end) => {
                out.extend(
                    letters[at..end]
                        .iter()
                        .map(|c| if *c == '\n' { '\n' } else { ' ' }),
                );
                at = end;
            }
            None => {
                out.push(letters[at]);
                at += 1;
            }
        }
    }
    out
}

/// Where the comment, string or character that begins here ends; `None` if code begins here.
fn skip(letters: &[char], at: usize) -> Option<usize> {
    let peek = |offset: usize| letters.get(at + offset).copied();
    let in_word = at > 0 && (letters[at - 1].is_alphanumeric() || letters[at - 1] == '_');
    match peek(0)? {
        '/' if peek(1) == Some('/') => Some(until(letters, at, '\n')),
        '/' if peek(1) == Some('*') => Some(block_comment(letters, at)),
        '"' => Some(string(letters, at)),
        'r' | 'b' | 'c' if !in_word => prefixed(letters, at),
        '\'' => character(letters, at),
        _ => None,
    }
}

fn until(letters: &[char], at: usize, end: char) -> usize {
    (at..letters.len())
        .find(|&i| letters[i] == end)
        .unwrap_or(letters.len())
}

fn block_comment(letters: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i + 1 < letters.len() {
        match (letters[i], letters[i + 1]) {
            ('/', '*') => {
                depth += 1;
                i += 2;
            }
            ('*', '/') => {
                depth -= 1;
                i += 2;
                if depth == 0 {
                    return i;
                }
            }
            _ => i += 1,
        }
    }
    letters.len()
}

fn string(letters: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while i < letters.len() {
        match letters[i] {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    letters.len()
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br"…"`, `b'…'`, `c"…"`; `None` for a plain word.
fn prefixed(letters: &[char], at: usize) -> Option<usize> {
    let mut i = at;
    let mut raw = false;
    while let Some(letter) = letters.get(i).filter(|c| matches!(c, 'r' | 'b' | 'c')) {
        raw |= *letter == 'r';
        i += 1;
        if i - at > 2 {
            return None;
        }
    }
    let hashes = letters[i..].iter().take_while(|c| **c == '#').count();
    match letters.get(i + hashes)? {
        '"' if raw => {
            let closing: String = format!("\"{}", "#".repeat(hashes));
            let closing: Vec<char> = closing.chars().collect();
            let start = i + hashes + 1;
            (start..letters.len())
                .find(|&j| letters[j..].starts_with(&closing))
                .map(|j| j + closing.len())
                .or(Some(letters.len()))
        }
        '"' if hashes == 0 => Some(string(letters, i)),
        '\'' if hashes == 0 && letters[at] == 'b' => character(letters, i),
        _ => None,
    }
}

/// A character; `None` for a lifetime.
fn character(letters: &[char], at: usize) -> Option<usize> {
    match letters.get(at + 1)? {
        '\\' => Some((until(letters, at + 3, '\'') + 1).min(letters.len())),
        _ if letters.get(at + 2) == Some(&'\'') => Some(at + 3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left() {
        for (text, want) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x \" y", 1)"#, "f(        , 1)"),
            (r###"f(r#"x " y"#)"###, "f(          )"),
            ("f(b\"x\", br\"y\")", "f(    ,      )"),
            (
                "let c = 'x'; fn f<'a>(b: &'a str)",
                "let c =    ; fn f<'a>(b: &'a str)",
            ),
            (r"let c = '\''; d", "let c =     ; d"),
            (r"let c = '\u{1F600}'; d", "let c =            ; d"),
            ("number(bar) rb", "number(bar) rb"),
            ("\"a\nb\" c", "  \n   c"),
            ("\"open", "     "),
        ] {
            let got = code(text);
            assert_eq!(got, want, "{text}");
        }
    }
}
