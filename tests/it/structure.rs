//! The structure of the source: modules import in one direction, and only some of them know architectures by name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The Rust files under a folder, with paths relative to it. Test modules are left out.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if ["tests", "testing", "snapshots"].contains(&&*name) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let lines = without_tests(&text).lines().map(|l| l.split("//").next().unwrap_or(l));
                found.push((path.strip_prefix(folder).unwrap().into(), lines.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    assert!(found.len() > 50, "there is source in {}", folder.display());
    found
}

/// Source without its unit tests, which are the last thing in a file; `mod tests;` names another file.
fn without_tests(text: &str) -> &str {
    for mark in
        ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\npub(crate) mod tests {", "#[cfg(test)]\npub mod tests {"]
    {
        if let Some((code, _)) = text.split_once(mark) {
            return code;
        }
    }
    text
}

/// The first names of all paths that begin with `crate::`, those in braces too.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let word = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => {
                found.insert(word(rest));
            }
            Some(list) => {
                let (mut depth, mut first) = (1, true);
                for (i, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        ',' if depth == 1 => first = true,
                        c if first && !c.is_whitespace() => {
                            found.insert(word(&list[i..]));
                            first = false;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
        }
    }
    found
}

/// Which modules at the top of the library import which.
fn edges() -> BTreeMap<String, BTreeSet<String>> {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, code) in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let first = path.iter().next().unwrap().to_string_lossy();
        let module = first.trim_end_matches(".rs").to_string();
        if ["lib", "main", "cli"].contains(&&*module) {
            continue; // the library's list of modules, and the binary
        }
        edges.entry(module).or_default().extend(imports(&code));
    }
    let modules: BTreeSet<String> = edges.keys().cloned().collect();
    for (module, to) in &mut edges {
        to.retain(|m| modules.contains(m) && m != module);
    }
    edges
}

/// The layer of each module in the table of docs/design.md.
fn layers() -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/design.md")).unwrap();
    let mut layers = BTreeMap::new();
    for row in text.lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        if let Some(layer) = cells.get(1).and_then(|cell| cell.parse().ok()) {
            for module in cells[2].split(", ").map(|m| m.trim_matches('`')) {
                layers.insert(module.to_string(), layer);
            }
        }
    }
    layers
}

#[test]
fn modules_import_from_layers_below_their_own() {
    let (edges, layers) = (edges(), layers());
    // Imports behind `mod tests;` at the top of a file are seen too.
    assert!(edges["pipeline"].contains("plan") && edges["plan"].contains("machine"), "imports are found");
    assert!(
        edges["plan"].contains("source") && edges["sensitivity"].contains("calibrate"),
        "imports are found"
    );
    let modules: Vec<&String> = edges.keys().filter(|m| !layers.contains_key(*m)).collect();
    assert!(modules.is_empty(), "without a layer in docs/design.md: {modules:?}");
    for (module, imports) in &edges {
        for import in imports {
            assert!(
                layers[import] < layers[module],
                "{module} imports {import}, which is not in a layer below"
            );
        }
    }
}

#[test]
fn modules_import_in_one_direction() {
    let mut edges = edges();
    // Modules that import nothing that is left are taken away, until none are.
    loop {
        let leaves: Vec<String> =
            edges.iter().filter(|(_, to)| to.is_empty()).map(|(m, _)| m.clone()).collect();
        if leaves.is_empty() {
            break;
        }
        for leaf in &leaves {
            edges.remove(leaf);
            for to in edges.values_mut() {
                to.remove(leaf);
            }
        }
    }
    assert!(edges.is_empty(), "these import each other in circles: {edges:#?}");
}

/// What a run reads it does not write over: `disk::RunFiles` knows all files of a run, if all are opened there.
#[test]
fn files_are_opened_in_one_place() {
    let ways = [
        "fs::read(",
        "read_to_string(",
        "File::open(",
        "InFile::open(",
        "File::create(",
        "File::options(",
        "fs::write(",
        "NewFile::create(",
        "fs::copy(",
    ];
    // With the reason.
    let others = [
        ("disk.rs", "the place"),
        ("disk/run.rs", "the place"),
        ("disk/output.rs", "the place"),
        ("disk/set.rs", "locks a folder"),
        ("disk/content.rs", "looks at what is to be replaced, which is no input"),
        ("source/instead.rs", "looks at what is no input, for messages"),
        ("open/pieces.rs", "likewise"),
        ("checkpoint/mod.rs", "small files of a checkpoint: `open` notes what is in `Source::beside`"),
        ("checkpoint/vocab/files.rs", "likewise"),
        ("checkpoint/card/mod.rs", "likewise"),
        ("calibrate/state.rs", "a folder of its own"),
        ("runner/bench.rs", "what the system says of the process"),
        ("cli/demo.rs", "files that it has made itself"),
    ];
    let mut found = Vec::new();
    for (path, code) in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = path.to_string_lossy().replace('\\', "/");
        if !others.iter().any(|(other, _)| *other == text) {
            let opens =
                |line: &&str| ways.iter().any(|way| line.contains(way)) && !line.contains("run.read(");
            found.extend(code.lines().filter(opens).map(|line| format!("{text}: {}", line.trim())));
        }
    }
    assert!(found.is_empty(), "to be opened with `RunFiles`: {found:#?}");
}

/// Architectures are known by name where they are described (`arch`) and where checkpoints say theirs (`checkpoint`).
/// Elsewhere a name may stand as data of a row (`machine/list.rs`) or as the default of a format that has only one.
#[test]
fn only_some_modules_compare_names_of_architectures() {
    let names = ["llama", "mistral", "qwen2", "qwen3", "qwen3moe", "bitnet", "bitnet-25", "bitnet-b1.58"];
    let mut found = Vec::new();
    for (path, code) in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = path.to_string_lossy().replace('\\', "/");
        if text.starts_with("arch/") || text.starts_with("checkpoint/") {
            continue;
        }
        for line in code.lines() {
            let named = names.iter().any(|n| line.contains(&format!("\"{n}\"")));
            let compares = line.contains("==")
                || line.contains("!=")
                || line.contains("=>")
                || line.contains("matches!");
            if named && compares {
                found.push(format!("{text}: {}", line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
