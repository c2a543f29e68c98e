//! Reading of a specification from the left to the right, and what is said if it goes wrong.

/// What is wrong with a specification, at which byte, and what was expected there.
#[derive(PartialEq, Eq, Debug)]
pub struct Wrong {
    pub at: usize,
    pub message: String,
    /// A complete sentence, which begins with "Expected".
    pub expected: String,
    pub hint: Option<&'static str>,
}

pub type Read<T> = Result<T, Wrong>;

pub fn wrong<T>(at: usize, message: impl Into<String>, expected: impl Into<String>) -> Read<T> {
    Err(Wrong {
        at,
        message: message.into(),
        expected: expected.into(),
        hint: None,
    })
}

pub fn with_hint<T>(read: Read<T>, hint: &'static str) -> Read<T> {
    read.map_err(|wrong| Wrong {
        hint: Some(hint),
        ..wrong
    })
}

/// Text that is read from the left to the right.
pub struct Cursor<'a> {
    pub text: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    pub fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Whether the next byte is `byte`, a letter in either case, which then is taken.
    pub fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek().is_some_and(|next| next.eq_ignore_ascii_case(&byte));
        self.at += usize::from(is_next);
        is_next
    }

    pub fn skip_spaces(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Whether there is nothing more of the field.
    pub fn is_field_over(&self) -> bool {
        self.peek().is_none_or(|byte| byte.is_ascii_whitespace())
    }

    /// Takes digits: the number, and how many digits it has. One that is too large is the largest one.
    pub fn number(&mut self) -> Option<(u32, usize)> {
        let begin = self.at;
        let mut number = 0u32;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
            self.at += 1;
        }
        (self.at > begin).then_some((number, self.at - begin))
    }

    /// Takes one of the names, in upper or lower case: its number among them.
    pub fn name(&mut self, names: &[&str]) -> Option<u32> {
        let rest = self.text.get(self.at..)?;
        let found = names.iter().position(|name| {
            rest.get(..name.len())
                .is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
        })?;
        self.at += names.get(found)?.len();
        Some(found as u32)
    }

    /// What comes next, for a message.
    pub fn next(&self) -> String {
        match self.peek() {
            None => "end of the text".to_owned(),
            Some(byte) if byte.is_ascii_whitespace() => "end of the field".to_owned(),
            Some(byte) if byte.is_ascii_graphic() => format!("\"{}\"", byte as char),
            Some(_) => "character".to_owned(),
        }
    }

    /// The error for what comes next.
    pub fn unexpected<T>(&self, expected: impl Into<String>) -> Read<T> {
        wrong(self.at, format!("unexpected {}", self.next()), expected)
    }
}
