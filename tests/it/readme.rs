//! The README's recipes run as they are printed, and print what is printed there.
//!
//! A `console` block is a recipe: its commands begin with `$ `, and what follows them is their output. Every recipe runs in
//! an empty folder that has the repository's `demo`. A comment in the line before a block says what is not seen on the
//! page: `<!-- first: COMMAND -->` runs before it, `<!-- slow -->` says that it takes long, and `<!-- not run: REASON -->`
//! why a recipe cannot run here.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use regex::Regex;

/// The recipes that need what the tree does not have: two need Llama-2-7b's settings, one a model from the hub, and one is
/// another program's.
const NOT_RUN: usize = 4;

/// The recipes that take long in a build without optimisation: a sensitivity, and GPTQ.
const SLOW: usize = 2;

/// A command of a recipe.
#[derive(Debug)]
struct Step {
    line: usize,
    command: String,
    /// The lines that it prints, as the README has them.
    output: Vec<String>,
}

/// The commands of a block.
type Recipe = Vec<Step>;

/// The recipes of a page: the quick ones, the slow ones, and the number of those that are marked as not run.
fn recipes(page: &str) -> (Vec<Recipe>, Vec<Recipe>, usize) {
    let (mut all, mut slow_ones, mut not_run, mut first) = (Vec::new(), Vec::new(), 0, Vec::new());
    let mut lines = page.lines().enumerate();
    let (mut skipped, mut slow) = (false, false);
    while let Some((at, line)) = lines.next() {
        if let Some(command) = line.strip_prefix("<!-- first: ").and_then(|l| l.strip_suffix(" -->")) {
            first.push(Step { line: at + 1, command: command.into(), output: Vec::new() });
        } else if let Some(reason) = line.strip_prefix("<!-- not run: ") {
            assert!(reason.len() > 10, "line {}: {reason}", at + 1);
            skipped = true;
        } else if line == "<!-- slow -->" {
            slow = true;
        } else if line == "```console" {
            let mut steps = std::mem::take(&mut first);
            for (at, line) in lines.by_ref().take_while(|(_, line)| *line != "```") {
                match (line.strip_prefix("$ "), steps.last_mut()) {
                    (Some(command), _) => {
                        steps.push(Step { line: at + 1, command: command.into(), output: Vec::new() });
                    }
                    (None, Some(step)) if step.command.ends_with('\\') => {
                        step.command += &format!("\n{line}");
                    }
                    (None, Some(step)) => step.output.push(line.into()),
                    (None, None) => panic!("line {}: a recipe begins with a command", at + 1),
                }
            }
            match (skipped, slow) {
                (true, _) => not_run += 1,
                (_, true) => slow_ones.push(steps),
                _ => all.push(steps),
            }
            (skipped, slow) = (false, false);
        } else {
            assert!(first.is_empty() && !skipped && !slow, "line {at}: the comment belongs to a recipe");
        }
    }
    (all, slow_ones, not_run)
}

/// Output in which runs of whitespace are one space, and times and speeds are left out: lines of the README are wrapped,
/// and tables narrower where rows are left out.
fn plain(text: &str) -> String {
    let times = Regex::new(r"\b\d+\.\d s\b").unwrap();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    times.replace_all(&text, "TIME s").into_owned()
}

/// Runs a recipe in a folder of its own; says what is wrong about it.
fn follow(recipe: &[Step]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::os::unix::fs::symlink(root.join("demo"), folder.path().join("demo")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_ggufkit")).parent().unwrap();
    let path = std::env::join_paths(
        std::iter::once(program.to_path_buf())
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )
    .unwrap();
    for step in recipe {
        let out = Command::new("sh")
            .args(["-c", &format!("exec 2>&1\n{}", step.command)])
            .current_dir(folder.path())
            .env("PATH", &path)
            .env_remove("GGUFKIT_ISA")
            .output()
            .unwrap();
        let (printed, place) =
            (String::from_utf8_lossy(&out.stdout), format!("line {}: {}", step.line, step.command));
        let refused = step.output.first().is_some_and(|line| line.starts_with("ggufkit: "));
        if out.status.success() == refused {
            return Err(format!("{place}\nends with {}:\n{printed}", out.status));
        }
        let found = plain(&printed);
        for part in step.output.split(|line| line == "...") {
            if !found.contains(&plain(&part.join("\n"))) {
                return Err(format!("{place}\ndoes not print\n{}\nbut\n{printed}", part.join("\n")));
            }
        }
    }
    Ok(())
}

/// The recipes of the README.
fn readme() -> (Vec<Recipe>, Vec<Recipe>, usize) {
    recipes(&std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap())
}

/// Runs recipes, several at a time.
fn follow_all(recipes: Vec<Recipe>) {
    let (queue, wrong) = (Mutex::new(VecDeque::from(recipes)), Mutex::new(Vec::new()));
    let next = || queue.lock().unwrap().pop_front();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(recipe) = next() {
                    let problem = follow(&recipe).err();
                    wrong.lock().unwrap().extend(problem);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_recipe_runs_and_prints_what_it_says() {
    let (quick, slow, not_run) = readme();
    assert_eq!((slow.len(), not_run), (SLOW, NOT_RUN), "recipes that are marked as slow, and as not run");
    assert!(quick.len() >= 14, "{} recipes", quick.len());
    follow_all(quick);
}

#[test]
#[ignore = "takes long"]
fn every_slow_recipe_runs_and_prints_what_it_says() {
    follow_all(readme().1);
}

#[test]
fn a_recipe_that_rots_is_found() {
    let page = |command: &str, output: &str| format!("# x\n```console\n$ {command}\n{output}```\n");
    let wrong = |page: &str| recipes(page).0.iter().find_map(|recipe| follow(recipe).err());
    assert!(wrong(&page("ggufkit inspect demo/model/nothing", "")).unwrap().contains("line 3"));
    assert!(wrong(&page("ggufkit inspect demo/tiny.bin", "ggufkit: is refused\n")).is_some());
    assert!(
        wrong(&page("ggufkit inspect demo/tiny.bin", "...\nanother line\n...\n"))
            .unwrap()
            .contains("another")
    );
    assert_eq!(wrong(&page("ggufkit inspect demo/tiny.bin", "...\n")), None);
    let (all, slow, not_run) = recipes("<!-- not run: another program -->\n```console\n$ no\n```\n");
    assert_eq!((all.len(), slow.len(), not_run), (0, 0, 1));
}
