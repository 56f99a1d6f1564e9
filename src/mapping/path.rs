//! Paths to members of a record, as mappings write them: `actor.alternateId | actor.id`.

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The member of that name.
    Member(String),
    /// The element at that place, from 0.
    Index(usize),
    /// The first element that has what follows.
    Any,
    /// The first element whose member has that text.
    Where(String, String),
    /// What a string holds as JSON text; an object or an array stands for itself.
    Json,
    /// The text that an array of bytes is; the last step.
    Bytes,
}

/// Where a path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Record,
    /// The element of `each`.
    Element,
    /// What a pattern has found; the path is one name then.
    Pattern,
}

/// One alternative of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) start: Start,
    pub(super) steps: Vec<Step>,
    /// As it is written.
    pub(super) shown: String,
}

/// The alternatives that a text names.
///
/// # Errors
/// A sentence on what is not a path.
pub(super) fn parse_paths(text: &str) -> Result<Vec<Path>, String> {
    let mut parser = Parser { text, at: 0 };
    let mut paths = Vec::new();
    loop {
        paths.push(parser.path()?);
        parser.skip_spaces();
        match parser.peek() {
            None => return Ok(paths),
            Some('|') => parser.at += 1,
            Some(_) => return Err(parser.unexpected("'|' or the end")),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn path(&mut self) -> Result<Path, String> {
        self.skip_spaces();
        let begin = self.at;
        let start = match self.peek() {
            Some('@') => Start::Element,
            Some('$') => Start::Pattern,
            _ => Start::Record,
        };
        let mut steps = Vec::new();
        if start == Start::Element {
            self.at += 1;
            self.steps(&mut steps)?;
        } else {
            self.at += usize::from(start == Start::Pattern);
            steps.push(Step::Member(self.name()?));
            self.steps(&mut steps)?;
        }
        if start == Start::Pattern && steps.len() > 1 {
            return Err(format!(
                "in '{}': what a pattern finds has no members",
                self.text
            ));
        }
        let shown = self.text[begin..self.at].to_owned();
        Ok(Path {
            start,
            steps,
            shown,
        })
    }

    fn steps(&mut self, steps: &mut Vec<Step>) -> Result<(), String> {
        loop {
            match self.peek() {
                Some('.') => {
                    self.at += 1;
                    steps.push(Step::Member(self.name()?));
                }
                Some('[') => {
                    self.at += 1;
                    steps.push(self.selector()?);
                }
                Some(':') => {
                    let rest = &self.text[self.at..];
                    let (name, step) = if rest.starts_with(":bytes") {
                        (":bytes", Step::Bytes)
                    } else {
                        (":json", Step::Json)
                    };
                    if !rest.starts_with(name) {
                        return Err(self.unexpected("':json' or ':bytes'"));
                    }
                    self.at += name.len();
                    steps.push(step);
                }
                _ => return Ok(()),
            }
        }
    }

    /// What stands in brackets, whose first has been read.
    fn selector(&mut self) -> Result<Step, String> {
        let step = if self.peek() == Some('*') {
            self.at += 1;
            Step::Any
        } else {
            let name = self.name()?;
            if self.peek() == Some('=') {
                self.at += 1;
                Step::Where(name, self.name()?)
            } else {
                let index = name.parse();
                Step::Index(index.map_err(|_| self.unexpected("a number, '*' or NAME=TEXT"))?)
            }
        };
        if self.peek() != Some(']') {
            return Err(self.unexpected("']'"));
        }
        self.at += 1;
        Ok(step)
    }

    /// A name, in quotes if it has signs that paths are made of.
    fn name(&mut self) -> Result<String, String> {
        let rest = &self.text[self.at..];
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted
                .find('"')
                .ok_or_else(|| self.unexpected("a closing quote"))?;
            self.at += end + 2;
            return Ok(quoted[..end].to_owned());
        }
        let end = rest
            .find(|sign: char| ".[]:|=\"{} ".contains(sign))
            .unwrap_or(rest.len());
        if end == 0 {
            return Err(self.unexpected("a name"));
        }
        self.at += end;
        Ok(rest[..end].to_owned())
    }

    fn skip_spaces(&mut self) {
        while self.peek() == Some(' ') {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn unexpected(&self, wanted: &str) -> String {
        format!("in '{}': expected {wanted} at byte {}", self.text, self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read() {
        let member = |name: &str| Step::Member(name.to_owned());
        let check = |text: &str, expected: &[(Start, Vec<Step>)]| {
            let paths = parse_paths(text).expect("a path");
            let found: Vec<_> = paths.into_iter().map(|it| (it.start, it.steps)).collect();
            assert_eq!(found, expected, "for {text}");
        };
        check("a", &[(Start::Record, vec![member("a")])]);
        check(
            "a.b | @.c|$d",
            &[
                (Start::Record, vec![member("a"), member("b")]),
                (Start::Element, vec![member("c")]),
                (Start::Pattern, vec![member("d")]),
            ],
        );
        check(
            "\"id.orig_h\"[0].\"a b\"[*][Name=\"x y\"].v:json.w",
            &[(
                Start::Record,
                vec![
                    member("id.orig_h"),
                    Step::Index(0),
                    member("a b"),
                    Step::Any,
                    Step::Where("Name".to_owned(), "x y".to_owned()),
                    member("v"),
                    Step::Json,
                    member("w"),
                ],
            )],
        );
        check("@", &[(Start::Element, vec![])]);
        for wrong in [
            "", "a.", "a[", "a[x]", "a[x=", "a b", "a:jso", "$a.b", "a||b", "\"a",
        ] {
            assert!(parse_paths(wrong).is_err(), "for {wrong}");
        }
    }
}
