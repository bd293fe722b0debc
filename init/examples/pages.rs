//! Writes netra-init(8) and its completions into a folder, for packages: the program itself stays
//! small without them.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap_complete::{Shell, generate};

fn main() -> io::Result<()> {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return Err(io::Error::other("usage: pages FOLDER"));
    };
    fs::create_dir_all(&folder)?;
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes);
    let mut page = Vec::new();
    clap_mangen::Man::new(netra_init::cli::command())
        .section("8")
        .manual("netra")
        .render(&mut page)?;
    write("netra-init.8", &page)?;
    for (shell, name) in [
        (Shell::Bash, "netra-init.bash"),
        (Shell::Zsh, "_netra-init"),
        (Shell::Fish, "netra-init.fish"),
    ] {
        let mut script = Vec::new();
        generate(shell, &mut netra_init::cli::command(), "netra-init", &mut script);
        write(name, &script)?;
    }
    Ok(())
}
