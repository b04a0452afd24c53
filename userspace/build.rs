//! In release builds, has the linker lay side by side what runs in a daemon that is up: the functions that
//! `hot-functions.txt` lists, which `scripts/hot-functions` makes and explains.

use std::{env::var, fmt::Write as _, fs, io};

fn main() -> io::Result<()> {
    const LIST: &str = "hot-functions.txt";
    println!("cargo::rerun-if-changed={LIST}");
    if let (Ok("release"), Ok(out)) = (var("PROFILE").as_deref(), var("OUT_DIR")) {
        let script = format!("{out}/hot-functions.ld");
        fs::write(&script, linker_script(&fs::read_to_string(LIST)?))?;
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{script}");
    }
    Ok(())
}

/// Sections by the names of their functions, in the list's order. A name tells functions with other types apart as little as
/// it does hashes, so those of the crate they were compiled in are meant. LLVM marks what it thinks cold.
fn linker_script(list: &str) -> String {
    let mut script = "SECTIONS {\n  .text.hot : ALIGN(65536) {\n".to_owned();
    for (crate_name, function) in list.lines().filter_map(|line| line.split_once(' ')) {
        let files = match crate_name {
            "-" => "*".to_owned(),
            _ => format!("*.{crate_name}.*-cgu.*"),
        };
        // Writing to a string can't fail.
        let _ = writeln!(script, "    {files}(.text.{function} .text.unlikely.{function})");
    }
    script + "  }\n}\nINSERT BEFORE .text;\n"
}
