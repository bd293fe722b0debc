//! pprof's profile.proto, gzipped: what `go tool pprof` reads.

use super::{Call, Place, Profile};
use flate2::{Compression, write::GzEncoder};
use prost::Message;
use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
    sync::Arc,
};

/// Messages of github.com/google/pprof/proto/profile.proto, the fields that netra has.
mod proto {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Profile {
        #[prost(message, repeated, tag = "1")]
        pub(super) sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        pub(super) sample: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(super) mapping: Vec<Mapping>,
        #[prost(message, repeated, tag = "4")]
        pub(super) location: Vec<Location>,
        #[prost(message, repeated, tag = "5")]
        pub(super) function: Vec<Function>,
        #[prost(string, repeated, tag = "6")]
        pub(super) string_table: Vec<String>,
        #[prost(int64, tag = "9")]
        pub(super) time_nanos: i64,
        #[prost(int64, tag = "10")]
        pub(super) duration_nanos: i64,
        #[prost(message, optional, tag = "11")]
        pub(super) period_type: Option<ValueType>,
        #[prost(int64, tag = "12")]
        pub(super) period: i64,
        #[prost(int64, repeated, tag = "13")]
        pub(super) comment: Vec<i64>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct ValueType {
        #[prost(int64, tag = "1")]
        pub(super) r#type: i64,
        #[prost(int64, tag = "2")]
        pub(super) unit: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sample {
        #[prost(uint64, repeated, tag = "1")]
        pub(super) location_id: Vec<u64>,
        #[prost(int64, repeated, tag = "2")]
        pub(super) value: Vec<i64>,
        #[prost(message, repeated, tag = "3")]
        pub(super) label: Vec<Label>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Label {
        #[prost(int64, tag = "1")]
        pub(super) key: i64,
        #[prost(int64, tag = "2")]
        pub(super) str: i64,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Mapping {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(uint64, tag = "2")]
        pub(super) memory_start: u64,
        #[prost(uint64, tag = "3")]
        pub(super) memory_limit: u64,
        #[prost(int64, tag = "5")]
        pub(super) filename: i64,
        #[prost(bool, tag = "7")]
        pub(super) has_functions: bool,
        #[prost(bool, tag = "8")]
        pub(super) has_filenames: bool,
        #[prost(bool, tag = "9")]
        pub(super) has_line_numbers: bool,
        #[prost(bool, tag = "10")]
        pub(super) has_inline_frames: bool,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Location {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(uint64, tag = "2")]
        pub(super) mapping_id: u64,
        #[prost(uint64, tag = "3")]
        pub(super) address: u64,
        #[prost(message, repeated, tag = "4")]
        pub(super) line: Vec<Line>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Line {
        #[prost(uint64, tag = "1")]
        pub(super) function_id: u64,
        #[prost(int64, tag = "2")]
        pub(super) line: i64,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Function {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(int64, tag = "2")]
        pub(super) name: i64,
        #[prost(int64, tag = "3")]
        pub(super) system_name: i64,
        #[prost(int64, tag = "4")]
        pub(super) filename: i64,
    }
}

impl Profile {
    /// As gzipped protobuf.
    ///
    /// # Errors
    /// None in memory, as far as gzip goes.
    pub fn to_pprof(&self) -> io::Result<Vec<u8>> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&self.message().encode_to_vec())?;
        gzip.finish()
    }

    fn message(&self) -> proto::Profile {
        let mut tables = Tables::default();
        let strings = &mut tables.strings;
        strings.put("");
        let value_type = |strings: &mut Strings, (kind, unit): (&str, &str)| proto::ValueType {
            r#type: strings.put(kind),
            unit: strings.put(unit),
        };
        let sample_type = self.values.iter().map(|it| value_type(strings, *it)).collect();
        let period_type = self.period.map(|(kind, unit, _)| value_type(strings, (kind, unit)));
        // Everything is symbolised already: without a mapping that says so, pprof would try again.
        let mapping = proto::Mapping {
            id: 1,
            memory_limit: u64::MAX,
            filename: strings.put("netra"),
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
            ..proto::Mapping::default()
        };
        let comment = self.comments.iter().map(|comment| strings.put(comment)).collect();
        let sample = self.rows.iter().map(|row| tables.sample(row)).collect();
        proto::Profile {
            sample_type,
            sample,
            mapping: vec![mapping],
            location: tables.locations,
            function: tables.functions,
            string_table: tables.strings.table,
            time_nanos: self.time_unix_ns,
            duration_nanos: self.duration_ns,
            period_type,
            period: self.period.map_or(0, |(_, _, period)| period),
            comment,
        }
    }
}

/// What samples refer to by number. Numbers begin at 1, those of strings at 0.
#[derive(Default)]
struct Tables {
    strings: Strings,
    functions: Vec<proto::Function>,
    function_ids: HashMap<(i64, i64), u64>,
    locations: Vec<proto::Location>,
    location_ids: HashMap<Arc<Place>, u64>,
}

#[derive(Default)]
struct Strings {
    table: Vec<String>,
    ids: HashMap<String, i64>,
}

impl Strings {
    fn put(&mut self, text: &str) -> i64 {
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let id = i64::try_from(self.table.len()).unwrap_or(0);
        self.table.push(text.to_owned());
        self.ids.insert(text.to_owned(), id);
        id
    }
}

impl Tables {
    fn sample(&mut self, row: &super::Row) -> proto::Sample {
        let location_id = row.stack.iter().map(|place| self.location(place)).collect();
        // pprof refuses a sample that has one label twice.
        let mut seen = HashSet::new();
        let labels = row.labels.iter().filter(|(key, _)| seen.insert(*key));
        let label = labels
            .map(|(key, value)| proto::Label {
                key: self.strings.put(key),
                str: self.strings.put(value),
            })
            .collect();
        proto::Sample { location_id, value: row.values.clone(), label }
    }

    fn location(&mut self, place: &Arc<Place>) -> u64 {
        if let Some(id) = self.location_ids.get(place) {
            return *id;
        }
        let line = place.calls.iter().map(|call| self.line(call)).collect();
        let id = self.locations.len() as u64 + 1;
        let address = place.address;
        self.locations.push(proto::Location { id, mapping_id: 1, address, line });
        self.location_ids.insert(Arc::clone(place), id);
        id
    }

    fn line(&mut self, call: &Call) -> proto::Line {
        let (name, filename) = (self.strings.put(&call.function), self.strings.put(&call.file));
        let next = self.functions.len() as u64 + 1;
        let function_id = *self.function_ids.entry((name, filename)).or_insert(next);
        if function_id == next {
            let id = function_id;
            self.functions.push(proto::Function { id, name, system_name: name, filename });
        }
        proto::Line { function_id, line: call.line.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn what_is_written_can_be_read_again() {
        let bytes = super::super::example().to_pprof().unwrap();
        let mut raw = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut raw).unwrap();
        let read = proto::Profile::decode(&raw[..]).unwrap();
        assert_eq!(read.sample.len(), 2);
        assert_eq!(read.sample[0].value, [3, 30_000_000]);
        assert_eq!(read.location.len(), 3);
        let text = |id: i64| read.string_table[usize::try_from(id).unwrap()].as_str();
        let names: Vec<_> = read.function.iter().map(|function| text(function.name)).collect();
        assert_eq!(names, ["leaf", "inlined_into<T>", "main", "other;odd"]);
        assert_eq!(read.sample[0].location_id, [1, 2]);
        assert_eq!(read.sample[1].location_id, [3, 2]);
        assert_eq!(text(read.sample[0].label[0].str), "shard-0");
        assert_eq!(text(read.comment[0]), "a comment");
        assert_eq!(text(0), "");
    }
}
