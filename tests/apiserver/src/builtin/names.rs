//! Which texts are names: RFC 1123 labels and subdomains, label keys and values, IANA service names.
//! Each function returns what is wrong, if anything.

/// An RFC 1123 label: at most 63 lower case letters, digits and dashes, no dash at the ends.
pub(super) fn dns_label(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let fine = !text.is_empty()
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    (!fine).then(|| {
        "a lowercase RFC 1123 label has lower case letters, digits and '-' only, and no '-' at its ends (e.g. \
         'my-name', '123-abc')"
            .to_owned()
    })
}

/// An RFC 1035 label: like [`dns_label`], but it begins with a letter.
pub(super) fn dns_1035_label(text: &str) -> Option<String> {
    dns_label(text).or_else(|| {
        (!text.starts_with(|c: char| c.is_ascii_lowercase()))
            .then(|| "a DNS-1035 label begins with a lower case letter (e.g. 'my-name')".to_owned())
    })
}

/// An RFC 1123 subdomain: labels joined by dots, at most 253 characters.
pub(super) fn dns_subdomain(text: &str) -> Option<String> {
    if text.len() > 253 {
        return Some("must be no more than 253 characters".to_owned());
    }
    let label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (!text.split('.').all(label)).then(|| {
        "a lowercase RFC 1123 subdomain has lower case letters, digits, '-' and '.' only, and begins and ends with a \
         letter or digit (e.g. 'example.com')"
            .to_owned()
    })
}

/// A name that can stand in a URL's path.
pub(super) fn path_segment(text: &str) -> Option<String> {
    match text {
        "." | ".." => Some(format!("may not be '{text}'")),
        _ if text.contains('/') => Some("may not contain '/'".to_owned()),
        _ if text.contains('%') => Some("may not contain '%'".to_owned()),
        _ => None,
    }
}

/// The part after the slash of a label's key, and every label value that is not empty.
fn label_part(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The key of a label or annotation, or a finalizer: an optional DNS prefix, a slash, a name.
pub(super) fn qualified(text: &str) -> Option<String> {
    let name = match text.split_once('/') {
        Some(("", _)) => return Some("prefix part must be non-empty".to_owned()),
        Some((prefix, name)) => {
            if let Some(problem) = dns_subdomain(prefix) {
                return Some(format!("prefix part {problem}"));
            }
            name
        }
        None => text,
    };
    if name.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 characters".to_owned());
    }
    (!label_part(name)).then(|| {
        "name part must have letters, digits, '-', '_' and '.' only, and begin and end with a letter or digit (e.g. \
         'MyName', 'my.name', '123-abc')"
            .to_owned()
    })
}

/// The value of a label.
pub(super) fn label_value(text: &str) -> Option<String> {
    if text.len() > 63 {
        return Some("must be no more than 63 characters".to_owned());
    }
    (!text.is_empty() && !label_part(text)).then(|| {
        "a valid label must be empty or have letters, digits, '-', '_' and '.' only, and begin and end with a letter \
         or digit (e.g. 'MyValue', 'my_value', '12345')"
            .to_owned()
    })
}

/// A service name of RFC 6335 section 5.1, as named ports have: lower case here.
pub(super) fn port_name(text: &str) -> Option<String> {
    let problem = if text.is_empty() || text.len() > 15 {
        "must be no more than 15 characters"
    } else if !text
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        "must contain only lower case letters, digits and '-'"
    } else if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        "must contain at least one letter (a-z)"
    } else if text.contains("--") {
        "must not contain consecutive hyphens"
    } else if text.starts_with('-') || text.ends_with('-') {
        "must not begin or end with a hyphen"
    } else {
        return None;
    };
    Some(problem.to_owned())
}

/// The key of a ConfigMap or Secret.
pub(super) fn data_key(text: &str) -> Option<String> {
    let fine = !text.is_empty()
        && text.len() <= 253
        && text != "."
        && !text.starts_with("..")
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    (!fine).then(|| {
        "a valid config key must have letters, digits, '-', '_' and '.' only (e.g. 'key.name', 'KEY_NAME')"
            .to_owned()
    })
}
