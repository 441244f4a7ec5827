//! Server-sent events, parsed by hand from whatever pieces the network delivers.
//!
//! Follows the stream format of the HTML standard ("Server-sent events", section 9.2.6) as far as a
//! page needs it: `event` and `data` fields, comments, all three line ends, a byte order mark.
//! `id` and `retry` are ignored, since a page asks for an update plan after every reconnect.

use shared_model::manifest::ANNOUNCEMENT_BYTES_MAX;

/// Largest event accepted, in bytes: an announcement and its field name.
pub const EVENT_BYTES_MAX: usize = ANNOUNCEMENT_BYTES_MAX + 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Why a stream was refused. The stream must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a server-sent event is larger than {EVENT_BYTES_MAX} bytes")]
pub struct EventTooLarge;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseEvent {
    /// Its name; `message` where the stream gives none.
    pub name: String,
    /// Its lines of data, joined by line feeds.
    pub data: Vec<u8>,
}

/// What arrived of the current line and event.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    ended_by_return: bool,
    is_past_first_line: bool,
}

impl SseParser {
    /// Takes the next bytes and returns the events they complete.
    ///
    /// # Errors
    /// An event grew beyond [`EVENT_BYTES_MAX`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, EventTooLarge> {
        let mut events = Vec::new();
        for byte in bytes {
            let follows_return = std::mem::take(&mut self.ended_by_return);
            match byte {
                b'\n' if follows_return => {} // second half of a CR LF that ended the line already
                b'\n' | b'\r' => {
                    self.ended_by_return = *byte == b'\r';
                    events.extend(self.end_line());
                }
                _ => {
                    if self.line.len() + self.data.len() >= EVENT_BYTES_MAX {
                        return Err(EventTooLarge);
                    }
                    self.line.push(*byte);
                }
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<SseEvent> {
        let mut line = std::mem::take(&mut self.line);
        if !std::mem::replace(&mut self.is_past_first_line, true)
            && line.starts_with(BYTE_ORDER_MARK)
        {
            line.drain(..BYTE_ORDER_MARK.len());
        }
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = split_field(&line);
        match field {
            b"event" => self.name = value.to_vec(),
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value);
                self.has_data = true;
            }
            _ => {} // comments have an empty field name; the standard ignores unknown fields
        }
        None
    }

    fn end_event(&mut self) -> Option<SseEvent> {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        let name = if name.is_empty() {
            "message".to_owned()
        } else {
            String::from_utf8_lossy(&name).into_owned()
        };
        Some(SseEvent { name, data })
    }
}

/// `field: value`, where one space after the colon does not belong to the value.
fn split_field(line: &[u8]) -> (&[u8], &[u8]) {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else {
        return (line, b"");
    };
    let (field, rest) = line.split_at(colon);
    let value = &rest[1..]; // the colon itself
    (field, value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> SseEvent {
        SseEvent {
            name: name.to_owned(),
            data: data.as_bytes().to_vec(),
        }
    }

    fn parse(pieces: &[&[u8]]) -> Vec<SseEvent> {
        let mut parser = SseParser::default();
        pieces
            .iter()
            .flat_map(|piece| parser.push(piece).expect("small"))
            .collect()
    }

    #[test]
    fn split_at_every_byte_gives_the_same_events() {
        let stream = "\u{feff}: hello\nretry: 5\n\nevent: version\r\ndata: {\"a\": 1}\r\n\r\ndata:x\rdata: y\r\rid: 7\nevent: empty\n\ndata: last ü\n\n";
        let expected = vec![
            event("version", "{\"a\": 1}"),
            event("message", "x\ny"),
            event("message", "last ü"),
        ];
        assert_eq!(parse(&[stream.as_bytes()]), expected);
        for cut in 0..=stream.len() {
            let (head, tail) = stream.as_bytes().split_at(cut);
            assert_eq!(parse(&[head, tail]), expected, "cut at byte {cut}");
        }
        let single: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(parse(&single), expected);
    }

    #[test]
    fn an_unfinished_event_is_not_given_out() {
        assert_eq!(parse(&[b"event: version\ndata: 1\n"]), vec![]);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = SseParser::default();
        let piece = vec![b'x'; EVENT_BYTES_MAX];
        assert_eq!(parser.push(&piece), Ok(vec![]));
        assert_eq!(parser.push(b"x"), Err(EventTooLarge));
        let mut parser = SseParser::default();
        let line = [
            b"data: ".as_slice(),
            &vec![b'x'; EVENT_BYTES_MAX / 2],
            b"\n",
        ]
        .concat();
        assert!(parser.push(&line).is_ok());
        assert_eq!(
            parser.push(&line),
            Err(EventTooLarge),
            "many lines of one event count together"
        );
    }
}
