//! Names of addresses: of this program by its own debug information or symbol table, of the kernel
//! by /proc/kallsyms where it lets us.

use super::{Call, Place};
use addr2line::Loader;
use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
};

/// What is mapped into this process, and the names in it, read when they are first asked for and
/// forgotten with this value.
pub struct Symbols {
    objects: Vec<Object>,
    /// Bytes that reading names may still take.
    room: u64,
    /// Of a program or library, nothing was read: there was no room.
    is_cramped: bool,
    known: HashMap<u64, Vec<Call>>,
    kernel: Option<Vec<(u64, String)>>,
}

/// A mapped program or library.
struct Object {
    path: String,
    start: u64,
    end: u64,
    /// What the loader added to the addresses in the file.
    bias: u64,
    /// Bytes of the file that are not mapped: names and debug information. To read them takes no
    /// more than that (36 MB of the 45 MB of a development build).
    names_bytes: u64,
    loader: Option<Option<Loader>>,
}

impl std::fmt::Debug for Symbols {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Symbols").field("objects", &self.objects.len()).finish_non_exhaustive()
    }
}

impl Symbols {
    /// Of this process. Reading them takes no more than `room` bytes of memory: what does not fit
    /// has addresses for names.
    pub fn within(room: u64) -> Self {
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let program = fs::read_link("/proc/self/exe").unwrap_or_default();
        let program = program.to_string_lossy();
        let objects = objects(&maps, &program);
        Self { objects, room, is_cramped: false, known: HashMap::new(), kernel: None }
    }

    /// There was no room for some of the names that were asked for.
    pub fn is_cramped(&self) -> bool {
        self.is_cramped
    }

    /// The functions at an address of this process. `is_call` says that it is where a call returns
    /// to: the call itself stands before it.
    pub fn user(&mut self, address: u64, is_call: bool) -> Place {
        let probe = address - u64::from(is_call && address > 0);
        if let Some(calls) = self.known.get(&probe) {
            return Place { address, calls: calls.clone() };
        }
        let calls = self.look_up(probe);
        self.known.insert(probe, calls.clone());
        Place { address, calls }
    }

    fn look_up(&mut self, probe: u64) -> Vec<Call> {
        let Self { objects, room, is_cramped, .. } = self;
        let object = objects.iter_mut().find(|object| (object.start..object.end).contains(&probe));
        let Some(object) = object else { return vec![unnamed(&format!("{probe:#x}"))] };
        let in_file = probe.wrapping_sub(object.bias);
        let (path, names_bytes) = (&object.path, object.names_bytes);
        let loader = object.loader.get_or_insert_with(|| {
            let Some(rest) = room.checked_sub(names_bytes) else {
                *is_cramped = true;
                return None;
            };
            *room = rest;
            Loader::new(path).ok()
        });
        named(path, loader.as_ref(), in_file)
    }

    /// The function at an address of the kernel.
    pub fn kernel(&mut self, address: u64) -> Place {
        let table = self.kernel.get_or_insert_with(|| {
            kernel_table(&fs::read_to_string("/proc/kallsyms").unwrap_or_default())
        });
        let at = table.partition_point(|(start, _)| *start <= address);
        let name = at.checked_sub(1).and_then(|at| table.get(at)).map(|(_, name)| name.as_str());
        let function = format!("[k] {}", name.unwrap_or("kernel"));
        Place { address, calls: vec![Call { function, ..Call::default() }] }
    }
}

/// The functions at an address in the file.
fn named(path: &str, loader: Option<&Loader>, in_file: u64) -> Vec<Call> {
    let mut calls = loader.map(|loader| frames(loader, in_file)).unwrap_or_default();
    let symbol = loader.and_then(|loader| loader.find_symbol(in_file));
    // Line tables alone know functions by their last name only, or not at all where nothing was
    // inlined; the one that the others were inlined into has its whole name in the symbol table.
    if let (Some(outer), Some(symbol)) = (calls.last_mut(), symbol)
        && !has_path(&outer.function)
    {
        outer.function = readable(&addr2line::demangle_auto(symbol.into(), None));
    }
    if calls.last().is_none_or(|outer| outer.function.is_empty()) {
        let place = calls.pop().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        let function = match symbol {
            Some(symbol) => readable(&addr2line::demangle_auto(symbol.into(), None)),
            None => format!("{name}+{in_file:#x}"),
        };
        calls.push(Call { function, ..place });
    }
    calls
}

/// Types in angle brackets have paths of their own.
fn has_path(name: &str) -> bool {
    name.split('<').next().is_some_and(|name| name.contains("::"))
}

fn unnamed(name: &str) -> Call {
    Call { function: readable(name), ..Call::default() }
}

/// All functions at an address, inlined ones first.
fn frames(loader: &Loader, in_file: u64) -> Vec<Call> {
    let mut calls = Vec::new();
    let Ok(mut frames) = loader.find_frames(in_file) else { return calls };
    while let Ok(Some(frame)) = frames.next() {
        let name = frame.function.as_ref().and_then(|function| function.demangle().ok());
        let location = frame.location.as_ref();
        if name.is_none() && location.is_none() {
            continue;
        }
        calls.push(Call {
            // Line tables alone name no function that nothing was inlined into.
            function: name.map(|name| readable(&name)).unwrap_or_default(),
            file: location.and_then(|it| it.file).unwrap_or_default().to_owned(),
            line: location.and_then(|it| it.line).unwrap_or_default(),
        });
    }
    calls
}

/// A name for people. pprof leaves out what stands in angle brackets, so `<T as Trait>::method`
/// becomes `T::method`.
fn readable(name: &str) -> String {
    let name = without_hash(name);
    let Some(inner) = name.strip_prefix('<') else { return name.to_owned() };
    let mut depth = 1;
    let end = inner.bytes().enumerate().find_map(|(at, byte)| {
        match byte {
            b'<' => depth += 1,
            // Not the arrow of a function's type.
            b'>' if at == 0 || inner.as_bytes()[at - 1] != b'-' => depth -= 1,
            _ => {}
        }
        (depth == 0).then_some(at)
    });
    let Some(end) = end else { return name.to_owned() };
    let own = inner[..end].split(" as ").next().unwrap_or_default();
    format!(
        "{}{}",
        own.trim_start_matches(['&', '*']).trim_start_matches("mut "),
        &inner[end + 1..]
    )
}

/// Rust's names end with a hash that tells crates apart and people nothing.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            name
        }
        _ => name,
    }
}

/// The executable mappings of files. The first mapping of a file tells where it was loaded.
fn objects(maps: &str, program: &str) -> Vec<Object> {
    let mut bases: HashMap<&str, u64> = HashMap::new();
    let mut mapped: HashMap<&str, u64> = HashMap::new();
    let mut found = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(mode), Some(offset)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Some(path) = fields.nth(2).filter(|path| path.starts_with('/')) else { continue };
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let Some((Some(start), Some(end))) = range.split_once('-').map(|(a, b)| (hex(a), hex(b)))
        else {
            continue;
        };
        *mapped.entry(path).or_default() += end.saturating_sub(start);
        let base = *bases.entry(path).or_insert(start - hex(offset).unwrap_or(0).min(start));
        if mode.contains('x') {
            // The program may have been replaced since it was started, or hidden by a namespace.
            let readable = if path == program { "/proc/self/exe" } else { path };
            let bias = if is_fixed(readable) { 0 } else { base };
            let object = Object {
                path: readable.to_owned(),
                start,
                end,
                bias,
                names_bytes: fs::metadata(readable).map_or(0, |file| file.len()),
                loader: None,
            };
            found.push((path, object));
        }
    }
    let less_mapped = |(path, object): (&str, Object)| Object {
        names_bytes: object.names_bytes.saturating_sub(mapped[path]),
        ..object
    };
    found.into_iter().map(less_mapped).collect()
}

/// An ELF file that runs where it was linked to (ET_EXEC).
fn is_fixed(path: &str) -> bool {
    let mut head = [0; 18];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && u16::from_le_bytes([head[16], head[17]]) == 2
}

/// Functions by their address. Without privileges the kernel says that all are at zero.
fn kernel_table(text: &str) -> Vec<(u64, String)> {
    let mut table: Vec<(u64, String)> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let address = u64::from_str_radix(fields.next()?, 16).ok()?;
            let kind = fields.next()?;
            let is_code = matches!(kind, "t" | "T" | "w" | "W");
            (is_code && address > 0).then_some((address, fields.next()?.to_owned()))
        })
        .collect();
    table.sort_unstable();
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn somebody() -> u64 {
        std::hint::black_box(41) + 1
    }

    #[test]
    fn own_functions_have_their_names() {
        let mut symbols = Symbols::within(u64::MAX);
        let address = somebody as fn() -> u64 as usize as u64;
        let place = symbols.user(address, false);
        let call = place.calls.last().unwrap();
        assert!(call.function.ends_with("symbols::tests::somebody"), "{call:?}");
        assert!(call.file.ends_with("symbols.rs") && call.line > 0, "{call:?}");
        assert_eq!(somebody(), 42);
        assert_eq!(symbols.user(8, false).calls[0].function, "0x8");
    }

    #[test]
    fn names_that_there_is_no_room_for_are_addresses() {
        let address = somebody as fn() -> u64 as usize as u64;
        let mut symbols = Symbols::within(1);
        let place = symbols.user(address, false);
        let [call] = &place.calls[..] else { panic!("{place:?}") };
        assert!(call.function.starts_with("exe+0x") && call.line == 0, "{call:?}");
        assert!(symbols.is_cramped());
        let mut symbols = Symbols::within(1 << 30);
        assert!(!symbols.user(address, false).calls[0].file.is_empty() && !symbols.is_cramped());
        assert!(symbols.room < 1 << 30);
    }

    #[inline(never)]
    fn somebody_with<T: Default>() -> T {
        std::hint::black_box(T::default())
    }

    #[test]
    fn generic_functions_have_their_whole_names() {
        let address = somebody_with::<std::time::Duration> as fn() -> _ as usize as u64;
        let place = Symbols::within(u64::MAX).user(address, false);
        let call = place.calls.last().unwrap();
        assert!(call.function.contains("symbols::tests::somebody_with"), "{call:?}");
        assert_eq!(somebody_with::<std::time::Duration>(), std::time::Duration::ZERO);
    }

    #[test]
    fn the_kernels_names_are_found_by_what_stands_before() {
        let text = "0000000000000000 A fixed\nffffffff81000000 T start\n\
                    ffffffff81000100 t tcp_sendmsg\nffffffff81000180 D data\n";
        let table = kernel_table(text);
        assert_eq!(table.len(), 2);
        let mut symbols = Symbols {
            objects: vec![],
            room: 0,
            is_cramped: false,
            known: HashMap::new(),
            kernel: Some(table),
        };
        assert_eq!(symbols.kernel(0xffff_ffff_8100_01ff).calls[0].function, "[k] tcp_sendmsg");
        symbols.kernel = Some(Vec::new());
        assert_eq!(symbols.kernel(0xffff_ffff_8100_01ff).calls[0].function, "[k] kernel");
    }

    #[test]
    fn hashes_go_and_names_stay() {
        for (name, shown) in [
            ("<a::B as c::D>::e", "a::B::e"),
            ("<a::B<C> as d::E<F>>::g::h0123456789abcdef", "a::B<C>::g"),
            ("<&mut T>::x", "T::x"),
            ("a::b<T>::c", "a::b<T>::c"),
            ("<broken", "<broken"),
        ] {
            assert_eq!(readable(name), shown);
        }
        assert_eq!(without_hash("a::b::h0123456789abcdef"), "a::b");
        assert_eq!(without_hash("a::hello"), "a::hello");
    }
}
