//! Tells what a JSON-RPC message is, and how a call ended, while the bytes pass by in chunks of any size. Keeps none.
//!
//! It follows strings and brackets and looks at a few keys of the two outer levels. It is no validator: nothing is said
//! before the brackets balance, and what is said of text that is not JSON means nothing.

mod id;
#[cfg(test)]
mod tests;

use memchr::memchr2;

use self::id::{Found as FoundId, IdScan};
use crate::jsonrpc::OwnedId;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With a response that breaks the protocol.
    Broken(Fault),
    /// A result.
    Ok,
    /// A JSON-RPC error; the code is 0 where it is no integer.
    RpcError { code: i64 },
    /// A result with `isError: true`.
    ToolError,
}

/// What is wrong with a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It has a result and an error.
    Both,
    /// It has no id, though it is no error.
    NoId,
    /// Its id is not the request's.
    OtherId,
    /// Its result is no object, as every result of MCP is.
    Result,
}

impl Fault {
    /// In words, of the backend that sent it.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Both => "its answer has both a result and an error",
            Self::NoId => "its answer has no `id`",
            Self::OtherId => "its answer has another `id` than the request",
            Self::Result => "its result is not an object",
        }
    }

    /// Whether it keeps a client from knowing the answer for its own.
    pub(crate) fn is_of_id(self) -> bool {
        matches!(self, Self::NoId | Self::OtherId)
    }
}

/// What a message is, judged by the first key that tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An array.
    Batch,
    /// A request or a notification: `method`.
    Call,
    /// Too early to tell, or no message.
    Other,
    /// `result` or `error`.
    Response,
}

/// All that is remembered between two chunks.
#[derive(Debug)]
pub(crate) struct Scan {
    kind: Kind,
    /// Whether the message has ended, and nothing but space has followed.
    complete: bool,
    lexeme: Lexeme,
    /// Open brackets.
    depth: usize,
    /// Whether the second level is an object.
    inner_object: bool,
    /// Whether a string would be a key of the two outer levels.
    at_key: bool,
    /// The key or the scalar at hand, if it is of the two outer levels.
    token: Token,
    outer: Outer,
    inner: Inner,
    id: IdScan,
    found: Found,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum Lexeme {
    /// What follows a backslash.
    Escape,
    /// Nothing: this is not JSON.
    Lost,
    /// Brackets, commas, colons, space, numbers and literals.
    Plain,
    String,
    /// What follows `\u` in a key: how many digits are to come, and their value so far.
    Unicode {
        left: u8,
        value: u32,
    },
}

/// The current key of the outermost object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outer {
    Error,
    Id,
    Other,
    Result,
}

/// The current key of the object within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inner {
    Code,
    IsError,
    Other,
}

/// Where a key repeats, the last one counts, as it does for most readers.
#[derive(Debug)]
struct Found {
    result: bool,
    result_is_null: bool,
    result_is_object: bool,
    is_error: bool,
    error: bool,
    error_is_null: bool,
    code: i64,
}

impl Scan {
    pub(crate) const fn new() -> Self {
        Self::of(None)
    }

    /// Of an answer to request `id`, if it is to be one.
    pub(crate) const fn of(id: Option<OwnedId>) -> Self {
        Self {
            kind: Kind::Other,
            complete: false,
            lexeme: Lexeme::Plain,
            depth: 0,
            inner_object: false,
            at_key: false,
            token: Token::new(),
            outer: Outer::Other,
            inner: Inner::Other,
            id: IdScan::new(id),
            found: Found {
                result: false,
                result_is_null: false,
                result_is_object: false,
                is_error: false,
                error: false,
                error_is_null: false,
                code: 0,
            },
        }
    }

    /// Begins anew with the next message. Returns what was found in this one.
    pub(crate) fn take(&mut self) -> Self {
        let next = Self::of(self.id.take_expected());
        std::mem::replace(self, next)
    }

    /// Takes the next bytes of the message.
    pub(crate) fn push(&mut self, mut chunk: &[u8]) {
        while let Some((&byte, rest)) = chunk.split_first() {
            chunk = match self.lexeme {
                Lexeme::Lost => return,
                Lexeme::String => self.string(chunk),
                Lexeme::Escape | Lexeme::Plain | Lexeme::Unicode { .. } => {
                    self.byte(byte);
                    rest
                }
            };
        }
    }

    /// Never changes again once it is not [`Kind::Other`].
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether this is known to be a response.
    pub(crate) fn is_response(&self) -> bool {
        self.kind == Kind::Response
    }

    /// Of a response, once it is complete.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        (self.complete && self.is_response()).then(|| match self.fault() {
            Some(fault) => Outcome::Broken(fault),
            None => self.found.outcome(),
        })
    }

    /// A `null` beside the other key counts as absent: some peers print every field they have.
    fn fault(&self) -> Option<Fault> {
        let found = &self.found;
        let is_error = found.error && !(found.error_is_null && found.result);
        match self.id.found() {
            FoundId::Other => return Some(Fault::OtherId),
            // Of an error about a message whose id could not be read.
            FoundId::None if !is_error => return Some(Fault::NoId),
            FoundId::None | FoundId::Own => {}
        }
        match is_error {
            true => (found.result && !found.result_is_null).then_some(Fault::Both),
            false => (!found.result_is_object).then_some(Fault::Result),
        }
    }

    fn byte(&mut self, byte: u8) {
        match self.lexeme {
            Lexeme::Escape => self.escape(byte),
            Lexeme::Plain => self.plain(byte),
            Lexeme::Unicode { left, value } => self.unicode(byte, left, value),
            Lexeme::Lost | Lexeme::String => {}
        }
    }

    fn plain(&mut self, byte: u8) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {}
            b'{' | b'[' if self.depth > 0 || !self.complete => self.open(byte == b'{'),
            _ if self.depth == 0 => self.lose(),
            b'}' | b']' => self.close(byte == b'}'),
            b',' => self.comma(),
            b':' => self.colon(),
            b'"' => self.quote(),
            _ => self.scalar(byte),
        }
    }

    /// Passes over what of a string is in `chunk` and returns the rest.
    fn string<'c>(&mut self, chunk: &'c [u8]) -> &'c [u8] {
        let (text, rest) = chunk.split_at(memchr2(b'"', b'\\', chunk).unwrap_or(chunk.len()));
        if self.at_key {
            text.iter().for_each(|&byte| self.token.push(byte));
        } else if self.in_id() {
            self.id.text(text);
        }
        let Some((&byte, rest)) = rest.split_first() else { return rest };
        if byte != b'"' && self.in_id() {
            self.id.escaped();
        }
        self.lexeme = if byte == b'"' { Lexeme::Plain } else { Lexeme::Escape };
        rest
    }

    /// Outside keys nobody asks what was escaped.
    fn escape(&mut self, byte: u8) {
        self.lexeme = match byte {
            b'u' if self.at_key => Lexeme::Unicode { left: 4, value: 0 },
            _ => Lexeme::String,
        };
        if self.at_key && byte != b'u' {
            self.token.push(unescaped(byte));
        }
    }

    fn unicode(&mut self, byte: u8, left: u8, value: u32) {
        let Some(digit) = char::from(byte).to_digit(16) else { return self.lose() };
        let value = value << 4 | digit;
        if left > 1 {
            self.lexeme = Lexeme::Unicode { left: left - 1, value };
        } else {
            self.lexeme = Lexeme::String;
            self.token.push(u8::try_from(value).unwrap_or(u8::MAX));
        }
    }

    fn open(&mut self, object: bool) {
        self.depth += 1;
        match self.depth {
            1 if !object => self.kind = Kind::Batch,
            2 => {
                (self.inner_object, self.inner) = (object, Inner::Other);
                self.found.result_is_object |= object && self.outer == Outer::Result;
            }
            _ => {}
        }
        self.at_key = self.in_object();
        self.token.clear();
    }

    fn close(&mut self, object: bool) {
        self.settle();
        if self.depth <= 2 && self.in_object() != object {
            return self.lose();
        }
        self.depth -= 1;
        self.at_key = false;
        self.complete = self.depth == 0;
    }

    fn comma(&mut self) {
        self.settle();
        self.at_key = self.in_object();
    }

    fn quote(&mut self) {
        self.lexeme = Lexeme::String;
        if self.at_key {
            self.token.clear();
        } else if self.in_id() {
            self.id.begins();
        }
    }

    /// The key is read; what follows is its value.
    fn colon(&mut self) {
        if self.at_key {
            match self.depth {
                1 => self.outer_key(),
                _ => self.inner_key(),
            }
        }
        self.at_key = false;
        self.token.clear();
    }

    fn outer_key(&mut self) {
        let (outer, kind) = match self.token.bytes() {
            b"error" => (Outer::Error, Kind::Response),
            b"id" => (Outer::Id, Kind::Other),
            b"method" => (Outer::Other, Kind::Call),
            b"result" => (Outer::Result, Kind::Response),
            _ => (Outer::Other, Kind::Other),
        };
        self.outer = outer;
        if self.kind == Kind::Other {
            self.kind = kind;
        }
        match outer {
            Outer::Error => (self.found.error, self.found.error_is_null, self.found.code) = (true, false, 0),
            Outer::Id => self.id.clear(),
            Outer::Other => {}
            Outer::Result => {
                self.found.result = true;
                (self.found.result_is_null, self.found.result_is_object, self.found.is_error) = (false, false, false);
            }
        }
    }

    fn inner_key(&mut self) {
        self.inner = match (self.outer, self.token.bytes()) {
            (Outer::Error, b"code") => Inner::Code,
            (Outer::Result, b"isError") => Inner::IsError,
            _ => Inner::Other,
        };
    }

    /// A byte of a number or a literal.
    fn scalar(&mut self, byte: u8) {
        if self.depth <= 2 {
            self.token.push(byte);
        }
    }

    /// A value has ended. Only scalars leave a token.
    fn settle(&mut self) {
        match (self.depth, self.outer, self.inner) {
            (1, Outer::Error, _) => self.found.error_is_null = self.token.bytes() == b"null",
            (1, Outer::Id, _) => self.id.ends(self.token.text()),
            (1, Outer::Result, _) => self.found.result_is_null = self.token.bytes() == b"null",
            (2, _, Inner::Code) => self.found.code = self.token.integer().unwrap_or(0),
            (2, _, Inner::IsError) => self.found.is_error = self.token.bytes() == b"true",
            _ => {}
        }
        self.token.clear();
    }

    /// Whether a string would be the id.
    fn in_id(&self) -> bool {
        self.outer == Outer::Id && self.depth == 1
    }

    /// Whether the level at hand is an object that is looked into.
    fn in_object(&self) -> bool {
        match self.depth {
            1 => self.kind != Kind::Batch,
            2 => self.inner_object,
            _ => false,
        }
    }

    fn lose(&mut self) {
        self.lexeme = Lexeme::Lost;
        self.complete = false;
    }
}

impl Found {
    /// A `null` error beside a result is no error: some peers print every field they have.
    const fn outcome(&self) -> Outcome {
        if self.error && !(self.error_is_null && self.result) {
            Outcome::RpcError { code: self.code }
        } else if self.is_error {
            Outcome::ToolError
        } else {
            Outcome::Ok
        }
    }
}

/// What a simple escape stands for. Keys that matter have none, so any other byte does.
const fn unescaped(byte: u8) -> u8 {
    match byte {
        b'"' | b'\\' | b'/' => byte,
        _ => u8::MAX,
    }
}

/// A short text; one that is too long is equal to nothing.
#[derive(Debug)]
struct Token {
    bytes: [u8; Self::ROOM],
    length: usize,
}

impl Token {
    /// An `i64` is 20 bytes at most.
    const ROOM: usize = 20;

    const fn new() -> Self {
        Self { bytes: [0; Self::ROOM], length: 0 }
    }

    const fn clear(&mut self) {
        self.length = 0;
    }

    fn push(&mut self, byte: u8) {
        if let Some(room) = self.bytes.get_mut(self.length) {
            *room = byte;
        }
        self.length = self.length.saturating_add(1);
    }

    /// Empty if too long.
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Nothing if too long.
    fn text(&self) -> Option<&str> {
        (self.length <= Self::ROOM).then(|| std::str::from_utf8(self.bytes()).ok()).flatten()
    }

    fn integer(&self) -> Option<i64> {
        self.text()?.parse().ok()
    }
}
