//! The protobuf JSON mapping: files in, `--json` out.
//!
//! Fields are read by their JSON name (`outerVlan`) or their protobuf name (`outer_vlan`), an unknown field is an error.
//! 64-bit integers are written as strings and enums as names, as the mapping asks for.

use std::{fmt, io};

use prost_reflect::{DeserializeOptions, DynamicMessage, ReflectMessage, SerializeOptions, prost::Message};

/// Text that is not the JSON of a message, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// Where the text came from, as a user knows it: the file's name.
    pub origin: String,
    /// Line, from 1.
    pub line: usize,
    /// Octet in the line, from 1; 0 is the end of the line before.
    pub column: usize,
    /// Field, from the top: `vifs[2].mtu`; empty is the whole message.
    pub field: String,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.origin, self.line, self.column)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for JsonError {}

/// Are fields written that have their default value (0, "", empty list)?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defaults {
    /// Yes: a counter that is 0 is there, what a script reads is stable.
    Written,
    /// No: what a person edits is short.
    Skipped,
}

/// Reads a message. `origin` is the name of the file, for the error.
///
/// # Errors
/// [`JsonError`] for text that is not JSON, a field that the message does not have, one that comes twice, and a value
/// that does not fit.
pub fn parse<M: Message + ReflectMessage + Default>(text: &str, origin: &str) -> Result<M, JsonError> {
    let descriptor = M::default().descriptor();
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    let mut reader = serde_json::Deserializer::from_str(text);
    let message = DynamicMessage::deserialize_with_options(descriptor, &mut reader, &options)
        .and_then(|message| reader.end().map(|()| message))
        .map_err(|error| located(text, origin, &error))?;
    // The reader takes the last of two; whatever the first one said would be lost without a word.
    if let Some(end) = walk(text.as_bytes()).repeated {
        return Err(at(text, origin, end, "comes twice in this object, keep one of them".to_owned()));
    }
    message.transcode_to().map_err(|error| JsonError {
        origin: origin.to_owned(),
        line: 1,
        column: 1,
        field: String::new(),
        problem: error.to_string(),
    })
}

/// Writes a message, indented, with a newline at its end.
///
/// # Errors
/// Those of the writer.
pub fn write<M: ReflectMessage>(message: &M, defaults: Defaults, mut out: impl io::Write) -> io::Result<()> {
    let options = SerializeOptions::new().skip_default_fields(defaults == Defaults::Skipped);
    let mut writer = serde_json::Serializer::pretty(&mut out);
    message.transcode_to_dynamic().serialize_with_options(&mut writer, &options)?;
    out.write_all(b"\n")
}

/// The text that [`write()`] writes.
///
/// # Errors
/// None that is known: memory takes everything.
pub fn to_string<M: ReflectMessage>(message: &M, defaults: Defaults) -> io::Result<String> {
    let mut out = Vec::new();
    write(message, defaults, &mut out)?;
    String::from_utf8(out).map_err(io::Error::other)
}

fn located(text: &str, origin: &str, error: &serde_json::Error) -> JsonError {
    let (line, column) = (error.line(), error.column());
    // serde_json appends the position, which is told in front.
    let full = error.to_string();
    let problem = full.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&full);
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let end = (start + column).min(text.len());
    let field = field_at(text.as_bytes().get(..end).unwrap_or_default());
    JsonError { origin: origin.to_owned(), line, column, field, problem: problem.to_owned() }
}

/// An error about what ends at octet `end` of the text.
fn at(text: &str, origin: &str, end: usize, problem: String) -> JsonError {
    let read = text.as_bytes().get(..end).unwrap_or_default();
    let line = 1 + read.iter().filter(|&&octet| octet == b'\n').count();
    let column = read.iter().rev().take_while(|&&octet| octet != b'\n').count();
    JsonError { origin: origin.to_owned(), line, column, field: field_at(read), problem }
}

enum Level {
    /// The keys so far, the one under way last.
    Object {
        keys: Vec<String>,
        key_next: bool,
    },
    Array(usize),
}

struct Walk {
    /// The objects and lists that the text has opened and not closed.
    levels: Vec<Level>,
    /// Octets up to the end of the first key that its object has had before, in either spelling.
    repeated: Option<usize>,
}

fn walk(read: &[u8]) -> Walk {
    let mut levels: Vec<Level> = Vec::new();
    let mut repeated = None;
    let mut octets = read.iter().copied();
    while let Some(octet) = octets.next() {
        match octet {
            b'{' => levels.push(Level::Object { keys: Vec::new(), key_next: true }),
            b'[' => levels.push(Level::Array(0)),
            b'}' | b']' => {
                levels.pop();
            }
            b',' => match levels.last_mut() {
                Some(Level::Object { key_next, .. }) => *key_next = true,
                Some(Level::Array(index)) => *index += 1,
                None => {}
            },
            b':' => {
                if let Some(Level::Object { key_next, .. }) = levels.last_mut() {
                    *key_next = false;
                }
            }
            b'"' => {
                let mut string = Vec::new();
                while let Some(octet) = octets.next() {
                    match octet {
                        b'"' => break,
                        b'\\' => string.extend(octets.next()),
                        _ => string.push(octet),
                    }
                }
                if let Some(Level::Object { keys, key_next: true }) = levels.last_mut() {
                    let key = String::from_utf8_lossy(&string).into_owned();
                    if repeated.is_none() && keys.iter().any(|earlier| same_field(earlier, &key)) {
                        repeated = Some(read.len() - octets.len());
                    }
                    keys.push(key);
                }
            }
            _ => {}
        }
    }
    Walk { levels, repeated }
}

/// `outer_vlan` and `outerVlan` are one field.
fn same_field(a: &str, b: &str) -> bool {
    fn letters(name: &str) -> impl Iterator<Item = u8> {
        name.bytes().filter(|&octet| octet != b'_').map(|octet| octet.to_ascii_lowercase())
    }
    letters(a).eq(letters(b))
}

/// Where one is in a JSON text of which `read` has been read: `vifs[2].mtu`.
fn field_at(read: &[u8]) -> String {
    let mut path = String::new();
    for level in &walk(read).levels {
        match level {
            Level::Object { keys, .. } => {
                let Some(key) = keys.last().filter(|key| !key.is_empty()) else { continue };
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Level::Array(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{Counters, ForwardingState, Nexthop, TunnelNexthop, VifInfo, nexthop};

    fn error(text: &str) -> JsonError {
        parse::<ForwardingState>(text, "state.json").expect_err("must be refused")
    }

    #[test]
    fn a_state_is_read_with_either_spelling_of_a_field() {
        for key in ["outerVlan", "outer_vlan"] {
            let text = format!(r#"{{"generation": "7", "vifs": [{{"id": 1, "{key}": {{"vid": 302}}}}]}}"#);
            let state: ForwardingState = parse(&text, "state.json").unwrap();
            assert_eq!(state.generation, 7);
            assert_eq!(state.vifs[0].outer_vlan.as_ref().unwrap().vid, 302);
        }
    }

    #[test]
    fn an_unknown_field_is_named_with_file_line_and_path() {
        let error = error("{\n \"vifs\": [\n  {\"id\": 1},\n  {\"id\": 2, \"colour\": 3}\n ]\n}");
        assert_eq!((error.line, error.field.as_str()), (4, "vifs[1].colour"), "{error}");
        assert!(error.to_string().starts_with("state.json:4:"), "{error}");
        assert!(error.problem.contains("colour"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_with_its_path() {
        assert_eq!(error(r#"{"vifs": [{"id": 1}, {"mtu": "large"}]}"#).field, "vifs[1].mtu");
        assert_eq!(error(r#"{"vifs": [{"flags": {"policy": 1}}]}"#).field, "vifs[0].flags.policy");
        assert_eq!(error(r#"{"routes": [{"policyLabels": ["1:45", 6]}]}"#).field, "routes[0].policyLabels[1]");
        assert_eq!(error(r#"{"vifs": [{"type": "PHYSICAAL"}]}"#).field, "vifs[0].type");
        assert_eq!(error(r#"{"vifs": [{"id": -1}]}"#).field, "vifs[0].id");
    }

    #[test]
    fn a_field_that_comes_twice_is_refused_in_either_spelling() {
        let twice = error("{\"vifs\": [{\"id\": 1}],\n \"generation\": 2, \"vifs\": []}");
        assert_eq!((twice.line, twice.column, twice.field.as_str()), (2, 24, "vifs"), "{twice}");
        assert!(twice.problem.contains("twice"), "{twice}");
        assert_eq!(error(r#"{"vifs": [{"id": 1}, {"encMss": 1, "enc_mss": 2}]}"#).field, "vifs[1].enc_mss");
        assert_eq!(error(r#"{"vrfs": [{"id": 1, "name": "a", "id": 2}]}"#).field, "vrfs[0].id");
        let apart = r#"{"vifs": [{"id": 1, "name": "id"}, {"id": 2}], "vrfs": [{"id": 1}]}"#;
        assert!(parse::<ForwardingState>(apart, "state.json").is_ok());
    }

    #[test]
    fn text_after_the_message_and_half_a_message_are_refused() {
        assert!(error("{} {}").problem.contains("trailing"));
        assert!(error(r#"{"vifs": ["#).problem.contains("EOF"));
        assert!(error("").problem.contains("EOF"));
    }

    #[test]
    fn counters_of_zero_are_written_for_scripts_and_left_out_for_people() {
        let info = VifInfo { counters: Some(Counters::default()), ..VifInfo::default() };
        assert!(to_string(&info, Defaults::Written).unwrap().contains(r#""rxPackets": "0""#));
        assert!(!to_string(&info, Defaults::Skipped).unwrap().contains("rxPackets"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let tunnel = TunnelNexthop { r#type: 1, sip: "10.101.10.39".into(), direct_nexthop: 532, ..Default::default() };
        let nexthop = Nexthop { id: 489, vrf: 8, kind: Some(nexthop::Kind::Tunnel(tunnel)), ..Default::default() };
        for defaults in [Defaults::Written, Defaults::Skipped] {
            let text = to_string(&nexthop, defaults).unwrap();
            assert!(text.contains("MPLS_O_UDP"), "{text}");
            assert_eq!(parse::<Nexthop>(&text, "nexthop.json").unwrap(), nexthop);
        }
    }
}
