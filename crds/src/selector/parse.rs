use std::collections::BTreeSet;

use super::{Expr, Test};

/// Longest selector that is read, bytes.
pub const MAX_LENGTH: usize = 4096;

/// Deepest nesting of parentheses that is read.
pub const MAX_DEPTH: usize = 32;

/// Why and where a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("selector is wrong at character {position}: {problem}")]
pub struct SelectorError {
    /// Character (not byte) at which reading stopped, counted from 1.
    pub position: usize,
    /// Why.
    pub problem: Problem,
}

/// Why a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Something else must stand here.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What may stand here.
        expected: &'static str,
        /// What stands here.
        found: String,
    },
    /// The quote is not closed.
    #[error("the quote that opens here is not closed")]
    OpenQuote,
    /// More than [`MAX_LENGTH`] bytes.
    #[error("longer than {MAX_LENGTH} bytes: use fewer terms, or a label for the group")]
    TooLong,
    /// `global()` where labels are selected.
    #[error("global() stands alone, as the whole namespaceSelector of a rule")]
    Global,
    /// More than [`MAX_DEPTH`] levels of parentheses.
    #[error("more than {MAX_DEPTH} parentheses inside each other")]
    TooDeep,
}

/// Reads a whole selector. Recursion is bounded by [`MAX_DEPTH`], time by the length.
pub(super) fn selector(text: &str) -> Result<Expr, SelectorError> {
    let mut reader = Reader {
        text,
        at: 0,
        depth: 0,
    };
    if text.len() > MAX_LENGTH {
        return Err(reader.error(Problem::TooLong));
    }
    reader.space();
    if reader.rest().is_empty() {
        return Ok(Expr::All);
    }
    let expr = reader.or()?;
    if reader.rest().is_empty() {
        Ok(expr)
    } else {
        Err(reader.expected("&&, || or the end"))
    }
}

/// Always stands at the start of a token or at the end: every `eat` skips the white space behind it.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn or(&mut self) -> Result<Expr, SelectorError> {
        let mut parts = vec![self.and()?];
        while self.eat("||") {
            parts.push(self.and()?);
        }
        Ok(connect(parts, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, SelectorError> {
        let mut parts = vec![self.factor()?];
        while self.eat("&&") {
            parts.push(self.factor()?);
        }
        Ok(connect(parts, Expr::And))
    }

    fn factor(&mut self) -> Result<Expr, SelectorError> {
        let mut negated = false;
        while self.eat("!") {
            negated = !negated;
        }
        let inner = self.primary()?;
        Ok(if negated {
            Expr::Not(Box::new(inner))
        } else {
            inner
        })
    }

    fn primary(&mut self) -> Result<Expr, SelectorError> {
        if self.rest().starts_with('(') {
            return self.parentheses();
        }
        let start = self.at;
        let Some(key) = self.word() else {
            return Err(self.expected("a label, has(label), all(), ! or ("));
        };
        match key {
            "global" if self.rest().starts_with('(') => {
                self.at = start;
                Err(self.error(Problem::Global))
            }
            "all" if self.eat("(") => {
                self.need(")", ") after all(")?;
                Ok(Expr::All)
            }
            "has" if self.eat("(") => {
                let label = self
                    .word()
                    .ok_or_else(|| self.expected("a label inside has()"))?;
                self.need(")", ") after the label")?;
                Ok(Expr::Has(label.to_owned()))
            }
            _ => Ok(Expr::Test {
                key: key.to_owned(),
                test: self.test()?,
            }),
        }
    }

    fn parentheses(&mut self) -> Result<Expr, SelectorError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error(Problem::TooDeep));
        }
        self.depth += 1;
        self.need("(", "(")?;
        let inner = self.or()?;
        self.need(")", "), && or ||")?;
        self.depth -= 1;
        Ok(inner)
    }

    fn test(&mut self) -> Result<Test, SelectorError> {
        const TESTS: &str = "==, !=, in, not in, contains, starts with or ends with";
        if self.eat("==") {
            return Ok(Test::Equals(self.value()?));
        }
        if self.eat("!=") {
            return Ok(Test::Differs(self.value()?));
        }
        let start = self.at;
        match self.word() {
            Some("in") => Ok(Test::In(self.set()?)),
            Some("notin") => Ok(Test::NotIn(self.set()?)),
            Some("contains") => Ok(Test::Contains(self.value()?)),
            Some("not") => {
                self.need_word("in", "in after not")?;
                Ok(Test::NotIn(self.set()?))
            }
            Some("starts") => {
                self.need_word("with", "with after starts")?;
                Ok(Test::StartsWith(self.value()?))
            }
            Some("ends") => {
                self.need_word("with", "with after ends")?;
                Ok(Test::EndsWith(self.value()?))
            }
            _ => {
                self.at = start;
                Err(self.expected(TESTS))
            }
        }
    }

    fn set(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let mut values = BTreeSet::new();
        self.need("{", "{ and quoted values")?;
        while !self.eat("}") {
            values.insert(self.value()?);
            // A comma may end the list as well.
            if !self.eat(",") && !self.rest().starts_with('}') {
                return Err(self.expected(", or }"));
            }
        }
        Ok(values)
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        let Some(quote @ ('\'' | '"')) = self.rest().chars().next() else {
            return Err(self.expected("a value in quotes"));
        };
        let inner = &self.rest()[quote.len_utf8()..];
        let Some(end) = inner.find(quote) else {
            return Err(self.error(Problem::OpenQuote));
        };
        self.at += quote.len_utf8() + end + quote.len_utf8();
        self.space();
        Ok(inner[..end].to_owned())
    }

    /// A label's name or a keyword.
    fn word(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "_./-".contains(c)))
            .unwrap_or(rest.len());
        if end == 0 {
            return None;
        }
        self.at += end;
        self.space();
        Some(&rest[..end])
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
            self.space();
        }
        found
    }

    fn need(&mut self, token: &str, expected: &'static str) -> Result<(), SelectorError> {
        if self.eat(token) {
            Ok(())
        } else {
            Err(self.expected(expected))
        }
    }

    fn need_word(&mut self, word: &str, expected: &'static str) -> Result<(), SelectorError> {
        let start = self.at;
        if self.word() == Some(word) {
            return Ok(());
        }
        self.at = start;
        Err(self.expected(expected))
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        let found = match self.rest() {
            "" => "the end".to_owned(),
            rest => format!("{:?}", rest.chars().take(12).collect::<String>()),
        };
        self.error(Problem::Expected { expected, found })
    }

    fn error(&self, problem: Problem) -> SelectorError {
        SelectorError {
            position: self.text[..self.at].chars().count() + 1,
            problem,
        }
    }
}

fn connect(mut parts: Vec<Expr>, connective: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            connective(parts)
        }
        None => Expr::All,
    }
}
