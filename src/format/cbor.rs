//! Deterministic CBOR (RFC 8949, 4.2.1), the part of it that the format uses: integers, byte and text strings,
//! arrays, maps with ascending integer keys, and booleans. The decoder is strict, so that what it accepts
//! encodes back to the same bytes.

use crate::error::{Error, Result};

/// Deepest nesting that is decoded.
const MAX_DEPTH: u8 = 16;

/// Appends values to a buffer.
pub struct Encoder<'a>(pub &'a mut Vec<u8>);

impl Encoder<'_> {
    fn head(&mut self, major: u8, value: u64) {
        let major = major << 5;
        let bytes = value.to_be_bytes();
        match value {
            0..24 => self.0.push(major | bytes[7]),
            24..0x100 => self.0.extend_from_slice(&[major | 24, bytes[7]]),
            0x100..0x1_0000 => {
                self.0.push(major | 25);
                self.0.extend_from_slice(&bytes[6..]);
            }
            0x1_0000..0x1_0000_0000 => {
                self.0.push(major | 26);
                self.0.extend_from_slice(&bytes[4..]);
            }
            _ => {
                self.0.push(major | 27);
                self.0.extend_from_slice(&bytes);
            }
        }
    }

    /// An unsigned integer.
    pub fn uint(&mut self, value: u64) {
        self.head(0, value);
    }

    /// A signed integer.
    pub fn int(&mut self, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.head(0, value),
            Err(_) => self.head(1, !value.cast_unsigned()),
        }
    }

    /// A byte string.
    pub fn bytes(&mut self, value: &[u8]) {
        self.head(2, value.len() as u64);
        self.0.extend_from_slice(value);
    }

    /// The head of a byte string of `length` bytes, which follow.
    pub fn bytes_head(&mut self, length: usize) {
        self.head(2, length as u64);
    }

    /// A text string.
    pub fn text(&mut self, value: &str) {
        self.head(3, value.len() as u64);
        self.0.extend_from_slice(value.as_bytes());
    }

    /// The head of an array of `count` values, which follow.
    pub fn array(&mut self, count: usize) {
        self.head(4, count as u64);
    }

    /// A boolean.
    pub fn boolean(&mut self, value: bool) {
        self.0.push(0xf4 | u8::from(value));
    }

    /// Bytes that are one encoded value already.
    pub fn encoded(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }
}

/// A map whose entries are added in ascending order of their keys; counts them by itself.
pub struct MapEncoder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    count: u8,
}

impl<'a> MapEncoder<'a> {
    /// Begins a map; no map of the format has more than 255 entries.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.push(0xa0);
        Self { out, start, count: 0 }
    }

    /// Adds a key and returns the encoder for its value.
    pub fn key(&mut self, key: u64) -> Encoder<'_> {
        self.count += 1;
        let mut encoder = Encoder(self.out);
        encoder.uint(key);
        encoder
    }

    /// Adds the kept fields of later versions, and ends the map.
    pub fn finish(mut self, extra: &[(u64, Vec<u8>)]) {
        for (key, value) in extra {
            self.key(*key).encoded(value);
        }
        if self.count < 24 {
            self.out[self.start] = 0xa0 | self.count;
        } else {
            self.out[self.start] = 0xb8;
            self.out.insert(self.start + 1, self.count);
        }
    }
}

/// Reads values from bytes.
pub struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Decoder<'a> {
    /// A decoder of `bytes`; `what` names the structure in errors.
    #[must_use]
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, at: 0, what }
    }

    /// The error for something that is not as it must be.
    #[must_use]
    pub fn wrong(&self, why: &str) -> Error {
        Error::damaged(format!("decode {}: {why} at byte {}", self.what, self.at))
    }

    /// Position of the next value.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or_else(|| self.wrong("cut off"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn head(&mut self) -> Result<(u8, u64)> {
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 31);
        let width = match info {
            0..24 => return Ok((major, u64::from(info))),
            24..28 => 1usize << (info - 24),
            _ => return Err(self.wrong("an indefinite or reserved length")),
        };
        if major == 7 {
            return Err(self.wrong("a simple value other than false and true"));
        }
        let value = self.take(width)?.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        let least = match width {
            1 => 24,
            2 => 0x100,
            4 => 0x1_0000,
            _ => 0x1_0000_0000,
        };
        if value < least {
            return Err(self.wrong("an integer that is not in its shortest form"));
        }
        Ok((major, value))
    }

    fn expect(&mut self, major: u8, name: &str) -> Result<u64> {
        match self.head()? {
            (found, value) if found == major => Ok(value),
            _ => Err(self.wrong(&format!("no {name}"))),
        }
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// `Damaged`, as for all of these.
    pub fn uint(&mut self) -> Result<u64> {
        self.expect(0, "unsigned integer")
    }

    /// An unsigned integer of 32 bits.
    pub fn uint32(&mut self) -> Result<u32> {
        u32::try_from(self.uint()?).map_err(|_| self.wrong("an integer over 32 bits"))
    }

    /// An unsigned integer of 8 bits.
    pub fn uint8(&mut self) -> Result<u8> {
        u8::try_from(self.uint()?).map_err(|_| self.wrong("an integer over 8 bits"))
    }

    /// A signed integer of 64 bits.
    pub fn int(&mut self) -> Result<i64> {
        let (major, value) = self.head()?;
        let value = i64::try_from(value).map_err(|_| self.wrong("an integer over 64 bits"))?;
        match major {
            0 => Ok(value),
            1 => Ok(!value),
            _ => Err(self.wrong("no integer")),
        }
    }

    /// A byte string.
    pub fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.expect(2, "byte string")?;
        let length = usize::try_from(length).map_err(|_| self.wrong("cut off"))?;
        self.take(length)
    }

    /// A byte string of exactly `LEN` bytes.
    pub fn fixed<const LEN: usize>(&mut self) -> Result<[u8; LEN]> {
        let bytes = self.bytes()?;
        bytes.try_into().map_err(|_| self.wrong(&format!("a byte string that is not {LEN} bytes long")))
    }

    /// A text string.
    pub fn text(&mut self) -> Result<&'a str> {
        let length = self.expect(3, "text")?;
        let length = usize::try_from(length).map_err(|_| self.wrong("cut off"))?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.wrong("text that is not UTF-8"))
    }

    /// The head of an array; the count is no larger than the bytes left, each value taking at least one.
    pub fn array(&mut self) -> Result<usize> {
        let count = self.expect(4, "array")?;
        self.bounded(count)
    }

    /// A boolean.
    pub fn boolean(&mut self) -> Result<bool> {
        match self.head()? {
            (7, 20) => Ok(false),
            (7, 21) => Ok(true),
            _ => Err(self.wrong("no boolean")),
        }
    }

    /// `true`, the only value that an optional flag may have.
    pub fn flag(&mut self) -> Result<bool> {
        if self.boolean()? { Ok(true) } else { Err(self.wrong("a flag that is written although it is false")) }
    }

    fn bounded(&self, count: u64) -> Result<usize> {
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= self.bytes.len() - self.at)
            .ok_or_else(|| self.wrong("more values than bytes"))
    }

    /// True if the next value is an integer.
    #[must_use]
    pub fn at_integer(&self) -> bool {
        self.bytes.get(self.at).is_some_and(|first| first >> 5 <= 1)
    }

    /// Begins a map.
    pub fn map(&mut self) -> Result<MapDecoder> {
        let count = self.expect(5, "map")?;
        Ok(MapDecoder { left: self.bounded(count)?, last: None })
    }

    /// Takes one value of any kind, checked, and returns its bytes.
    pub fn any(&mut self) -> Result<&'a [u8]> {
        let start = self.at;
        self.skip(0)?;
        Ok(&self.bytes[start..self.at])
    }

    fn skip(&mut self, depth: u8) -> Result<()> {
        if depth >= MAX_DEPTH {
            return Err(self.wrong("nested too deeply"));
        }
        match self.bytes.get(self.at).map(|first| first >> 5) {
            Some(0 | 1) => self.int_any(),
            Some(2) => self.bytes().map(drop),
            Some(3) => self.text().map(drop),
            Some(4) => (0..self.array()?).try_for_each(|_| self.skip(depth + 1)),
            Some(5) => {
                let mut map = self.map()?;
                while map.key(self)?.is_some() {
                    self.skip(depth + 1)?;
                }
                Ok(())
            }
            Some(7) => self.boolean().map(drop),
            _ => Err(self.wrong("a value of a kind that is not used")),
        }
    }

    fn int_any(&mut self) -> Result<()> {
        self.head().map(drop)
    }

    /// Fails unless everything was read.
    pub fn end(&self) -> Result<()> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.wrong("bytes behind the end")) }
    }
}

/// A map that is being read.
pub struct MapDecoder {
    left: usize,
    last: Option<u64>,
}

impl MapDecoder {
    /// The next key, `None` at the end.
    ///
    /// # Errors
    /// `Damaged` if keys do not ascend.
    pub fn key(&mut self, decoder: &mut Decoder<'_>) -> Result<Option<u64>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let key = decoder.uint()?;
        if self.last.is_some_and(|last| last >= key) {
            return Err(decoder.wrong("map keys that do not ascend"));
        }
        self.last = Some(key);
        Ok(Some(key))
    }
}

/// A map whose fields are all known and read in order.
pub struct Fields<'d, 'a> {
    decoder: &'d mut Decoder<'a>,
    map: MapDecoder,
    key: Option<u64>,
}

impl<'d, 'a> Fields<'d, 'a> {
    /// Begins a map.
    ///
    /// # Errors
    /// `Damaged`, as for all of these.
    pub fn start(decoder: &'d mut Decoder<'a>) -> Result<Self> {
        let mut map = decoder.map()?;
        let key = map.key(decoder)?;
        Ok(Self { decoder, map, key })
    }

    /// The value of a field that must be there.
    pub fn required<T>(&mut self, key: u64, read: impl FnOnce(&mut Decoder<'a>) -> Result<T>) -> Result<T> {
        match self.optional(key, read)? {
            Some(value) => Ok(value),
            None => Err(self.decoder.wrong(&format!("field {key} is missing"))),
        }
    }

    /// The value of a field that may be left out.
    pub fn optional<T>(&mut self, key: u64, read: impl FnOnce(&mut Decoder<'a>) -> Result<T>) -> Result<Option<T>> {
        if self.key != Some(key) {
            return Ok(None);
        }
        let value = read(self.decoder)?;
        self.key = self.map.key(self.decoder)?;
        Ok(Some(value))
    }

    /// Fails if there are more fields.
    pub fn end(self) -> Result<()> {
        match self.key {
            None => Ok(()),
            Some(key) => Err(self.decoder.wrong(&format!("field {key} is not known, or out of place"))),
        }
    }
}

/// A text that is left out when it is empty.
///
/// # Errors
/// `Damaged` if it is written although it is empty.
pub fn non_empty_text(decoder: &mut Decoder<'_>) -> Result<String> {
    match decoder.text()? {
        "" => Err(decoder.wrong("an empty text that should have been left out")),
        text => Ok(text.to_owned()),
    }
}

/// Keeps the value of a key of a later version, or fails on a critical one that is not known.
///
/// # Errors
/// `Unsupported` for critical keys, `Damaged`.
pub fn unknown(key: u64, decoder: &mut Decoder<'_>, extra: &mut Vec<(u64, Vec<u8>)>) -> Result<()> {
    if key < 64 {
        let error = decoder.wrong(&format!("the critical field {key} is not known"));
        return Err(error.as_kind(crate::error::ErrorKind::Unsupported).with_hint("update lifeboat"));
    }
    if extra.len() >= 128 {
        return Err(decoder.wrong("too many fields"));
    }
    extra.push((key, decoder.any()?.to_vec()));
    Ok(())
}
