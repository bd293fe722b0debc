//! Names of addresses: of this program by its own debug information or symbol table, of the kernel
//! by /proc/kallsyms where it lets us.

use super::{Call, Place, elf, nearest::Nearest};
use addr2line::Loader;
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    sync::Arc,
};

/// What is mapped into this process, and the names in it, read when they are first asked for and
/// forgotten with this value.
pub struct Symbols {
    objects: Vec<Object>,
    /// Bytes that reading debug information may still take.
    room: u64,
    /// Of a program or library, debug information was not read: there was no room.
    is_cramped: bool,
    /// By the address, and whether a call returns to it. Stacks share them: the names of all calls of all
    /// stacks, each with its own, would be many times what the stacks are.
    known: HashMap<(u64, bool), Arc<Place>>,
    /// Addresses of the kernel that were asked for in advance, and their functions.
    kernel: Vec<(u64, Arc<Place>)>,
}

/// A mapped program or library.
struct Object {
    path: String,
    start: u64,
    end: u64,
    /// What the loader added to the addresses in the file.
    bias: u64,
    /// Bytes of names and debug information in the file. To read them takes no more than that (24 to 36 MB
    /// of the 48 MB of a development build).
    names_bytes: u64,
    loader: Option<Option<Loader>>,
    /// Where there is no loader: places in the file that were asked for in advance, and the functions
    /// there by the symbol table.
    listed: Vec<(u64, String)>,
}

impl std::fmt::Debug for Symbols {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Symbols").field("objects", &self.objects.len()).finish_non_exhaustive()
    }
}

impl Symbols {
    /// Of this process. Reading debug information takes no more than `room` bytes of memory: where that
    /// does not fit, functions have the names of the symbol table, if they were asked for in advance.
    pub fn within(room: u64) -> Self {
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let program = fs::read_link("/proc/self/exe").unwrap_or_default();
        let program = program.to_string_lossy();
        let objects = objects(&maps, &program);
        Self { objects, room, is_cramped: false, known: HashMap::new(), kernel: Vec::new() }
    }

    /// There was no room for some of the debug information.
    pub fn is_cramped(&self) -> bool {
        self.is_cramped
    }

    /// The functions at an address of this process. `is_call` says that it is where a call returns
    /// to: the call itself stands before it.
    pub fn user(&mut self, address: u64, is_call: bool) -> Arc<Place> {
        if let Some(place) = self.known.get(&(address, is_call)) {
            return Arc::clone(place);
        }
        let calls = self.look_up(probe(address, is_call));
        let place = Arc::new(Place { address, calls });
        self.known.insert((address, is_call), Arc::clone(&place));
        place
    }

    fn look_up(&mut self, probe: u64) -> Vec<Call> {
        let object = self.objects.iter_mut().find(|object| object.has(probe));
        let Some(object) = object else { return vec![unnamed(&format!("{probe:#x}"))] };
        object.load(&mut self.room, &mut self.is_cramped);
        object.name(probe)
    }

    /// Reads the names of these places, each of which is an address of this process and whether a call
    /// returns to it. The symbol table is read once for all of them, and not kept.
    pub fn read_user(&mut self, places: impl IntoIterator<Item = (u64, bool)>) {
        let mut by_object: HashMap<usize, Vec<u64>> = HashMap::new();
        for (address, is_call) in places {
            let probe = probe(address, is_call);
            if let Some(at) = self.objects.iter().position(|object| object.has(probe)) {
                by_object.entry(at).or_default().push(probe);
            }
        }
        for (at, probes) in by_object {
            let object = &mut self.objects[at];
            object.load(&mut self.room, &mut self.is_cramped);
            if object.loader.as_ref().is_none_or(Option::is_none) {
                object.list(&probes);
            }
        }
    }

    /// Reads the names of these addresses of the kernel.
    pub fn read_kernel(&mut self, addresses: impl IntoIterator<Item = u64>) {
        let nearest = Nearest::new(addresses);
        if nearest.is_empty() {
            return;
        }
        if let Ok(table) = File::open("/proc/kallsyms") {
            self.kernel = kernel_places(BufReader::new(table), nearest);
        }
    }

    /// The function at an address of the kernel, if that was read.
    pub fn kernel(&self, address: u64) -> Arc<Place> {
        match self.kernel.binary_search_by_key(&address, |(wanted, _)| *wanted) {
            Ok(at) => Arc::clone(&self.kernel[at].1),
            Err(_) => Arc::new(kernel_place(address, "")),
        }
    }
}

fn kernel_place(address: u64, name: &str) -> Place {
    let name = if name.is_empty() { "kernel" } else { name };
    Place { address, calls: vec![Call { function: format!("[k] {name}"), ..Call::default() }] }
}

/// Where a call stands that returns to this address: before it.
fn probe(address: u64, is_call: bool) -> u64 {
    address - u64::from(is_call && address > 0)
}

impl Object {
    fn has(&self, probe: u64) -> bool {
        (self.start..self.end).contains(&probe)
    }

    /// Reads debug information, unless it has been or there is no room for it.
    fn load(&mut self, room: &mut u64, is_cramped: &mut bool) {
        if self.loader.is_some() {
            return;
        }
        let rest = room.checked_sub(self.names_bytes);
        *is_cramped |= rest.is_none();
        self.loader = Some(rest.and_then(|rest| {
            *room = rest;
            Loader::new(&self.path).ok()
        }));
    }

    /// Reads the functions of these places from the symbol table.
    fn list(&mut self, probes: &[u64]) {
        let in_file = probes.iter().map(|probe| probe.wrapping_sub(self.bias));
        let functions = File::open(&self.path).and_then(|file| elf::functions(&file, in_file));
        self.listed = functions.unwrap_or_default();
    }

    fn listed(&self, in_file: u64) -> Option<&str> {
        let at = self.listed.binary_search_by_key(&in_file, |(at, _)| *at).ok()?;
        Some(self.listed[at].1.as_str()).filter(|name| !name.is_empty())
    }

    /// The functions at an address of this process.
    fn name(&self, probe: u64) -> Vec<Call> {
        let in_file = probe.wrapping_sub(self.bias);
        let loader = self.loader.as_ref().and_then(Option::as_ref);
        let mut calls = loader.map(|loader| frames(loader, in_file)).unwrap_or_default();
        let symbol = match loader {
            Some(loader) => loader.find_symbol(in_file),
            None => self.listed(in_file),
        };
        // Line tables alone know functions by their last name only, or not at all where nothing was
        // inlined; the one that the others were inlined into has its whole name in the symbol table.
        if let (Some(outer), Some(symbol)) = (calls.last_mut(), symbol)
            && !has_path(&outer.function)
        {
            outer.function = readable(&addr2line::demangle_auto(symbol.into(), None));
        }
        if calls.last().is_none_or(|outer| outer.function.is_empty()) {
            let place = calls.pop().unwrap_or_default();
            let name = self.path.rsplit('/').next().unwrap_or_default();
            let function = match symbol {
                Some(symbol) => readable(&addr2line::demangle_auto(symbol.into(), None)),
                None => format!("{name}+{in_file:#x}"),
            };
            calls.push(Call { function, ..place });
        }
        calls
    }
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
                names_bytes: File::open(readable).and_then(|it| elf::names_bytes(&it)).unwrap_or(0),
                loader: None,
                listed: Vec::new(),
            };
            found.push(object);
        }
    }
    found
}

/// An ELF file that runs where it was linked to (ET_EXEC).
fn is_fixed(path: &str) -> bool {
    let mut head = [0; 18];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && u16::from_le_bytes([head[16], head[17]]) == 2
}

/// The functions by the kernel's own table. Without privileges it says that all begin at zero.
fn kernel_places(mut table: impl BufRead, mut nearest: Nearest<String>) -> Vec<(u64, Arc<Place>)> {
    let mut line = String::new();
    while table.read_line(&mut line).is_ok_and(|len| len > 0) {
        if let Some((start, name)) = kernel_function(&line) {
            nearest.offer(start, || name.to_owned());
        }
        line.clear();
    }
    let place = |(address, name): (u64, Option<String>)| {
        (address, Arc::new(kernel_place(address, &name.unwrap_or_default())))
    };
    nearest.found().map(place).collect()
}

/// `ffffffff81000100 t tcp_sendmsg [module]`, of code.
fn kernel_function(line: &str) -> Option<(u64, &str)> {
    let mut fields = line.split_whitespace();
    let address = u64::from_str_radix(fields.next()?, 16).ok()?;
    let is_code = matches!(fields.next()?, "t" | "T" | "w" | "W");
    (is_code && address > 0).then_some((address, fields.next()?))
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
    fn without_room_functions_have_the_names_of_the_symbol_table() {
        let address = somebody as fn() -> u64 as usize as u64;
        let mut symbols = Symbols::within(1);
        symbols.read_user([(address, false), (address + 1, true), (8, false)]);
        for is_call in [false, true] {
            let place = symbols.user(address + u64::from(is_call), is_call);
            let [call] = &place.calls[..] else { panic!("{place:?}") };
            assert!(call.function.ends_with("symbols::tests::somebody"), "{call:?}");
            assert!(call.file.is_empty() && call.line == 0, "{call:?}");
        }
        assert!(symbols.is_cramped());
        // What nobody asked for in advance has an address.
        let place = symbols.user(address + 3, false);
        assert!(place.calls[0].function.starts_with("exe+0x"), "{place:?}");
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
        // Modules stand last, wherever they are.
        let text = "0000000000000000 A fixed\nffffffff81000000 T start\n\
                    ffffffff81000180 D data\nffffffff81000200 t last\n\
                    ffffffff81000100 t tcp_sendmsg\t[tcp]\n";
        let base = 0xffff_ffff_8100_0000;
        let wanted = vec![8, base, base + 0xff, base + 0x100, base + 0x1ff, base + 0x1000];
        let names = ["kernel", "start", "start", "tcp_sendmsg", "tcp_sendmsg", "last"];
        let mut symbols = Symbols::within(0);
        symbols.kernel = kernel_places(text.as_bytes(), Nearest::new(wanted.clone()));
        for (address, name) in wanted.into_iter().zip(names) {
            let called = symbols.kernel(address).calls[0].function.clone();
            assert_eq!(called, format!("[k] {name}"), "{address:#x}");
        }
        assert_eq!(symbols.kernel(base + 1).calls[0].function, "[k] kernel", "not asked for");
        symbols.kernel =
            kernel_places("0000000000000000 T hidden\n".as_bytes(), Nearest::new([base]));
        assert_eq!(symbols.kernel(base).calls[0].function, "[k] kernel");
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
