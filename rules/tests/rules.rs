//! The rules of docs/ARCHITECTURE.md, checked against the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use separation_rules::cycles::cycles;
use separation_rules::documents::first_cells;
use separation_rules::imports::imports;
use separation_rules::size::functions;
use separation_rules::source::{CRATES, SourceFile, files_of, workspace};
use separation_rules::texts::texts;

/// The most lines of a function: a screen.
const MOST_LINES_OF_A_FUNCTION: usize = 70;

/// The most lines of a file.
const MOST_LINES_OF_A_FILE: usize = 600;

/// Crates whose texts users see.
const SHIPPED: [&str; 8] = [
    "contract",
    "daemon",
    "kafka",
    "separation",
    "worker",
    "operator",
    "local",
    "program",
];

/// Crates with a table of modules: the document that has it, and the text above it.
const MODULE_TABLES: [(&str, &str, &str); 5] = [
    ("separation", "docs/ARCHITECTURE.md", "Modules of `separation`"),
    ("worker", "docs/ARCHITECTURE.md", "Modules of the worker"),
    ("operator", "operator/src/lib.rs", "imports only from"),
    ("local", "local/src/lib.rs", "imports only from"),
    ("rules", "rules/src/lib.rs", "imports only from"),
];

/// Words that docs, help, conditions, events and logs do without, each with what is written in its place.
const REPLACED_WORDS: [(&str, &str); 16] = [
    ("anew", "again; recreated, restarted, fetched again"),
    ("nobody", "no member, no client: name the subject"),
    ("somebody", "another client, a user: name the subject"),
    ("deserve", "need"),
    ("deserves", "needs"),
    ("is told", "is notified"),
    ("are told", "are notified"),
    ("was told", "was notified"),
    ("were told", "were notified"),
    ("looks after", "manages, reconciles"),
    ("look after", "manage, reconcile"),
    ("asked back", "revoked"),
    ("put back", "requeued; restored"),
    ("lent keys", "temporary credentials"),
    ("another make", "another implementation"),
    ("odd offsets", "anomalies of offsets"),
];

fn source(directory: &str) -> Vec<SourceFile> {
    files_of(directory).expect("source of the crate")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = workspace().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files below a directory of the workspace, by the end of their names.
fn files_below(directory: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![workspace().join(directory)];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                open.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let path = path.strip_prefix(workspace()).expect("a path of the workspace");
                found.push(path.to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn no_file_imports_a_file_that_imports_it() {
    let mut found = Vec::new();
    for name in CRATES {
        let files = source(name);
        for group in cycles(&imports(&files)) {
            let paths: Vec<String> = group
                .iter()
                .map(|file| files[*file].path.display().to_string())
                .collect();
            found.push(paths.join(" <-> "));
        }
    }
    assert!(
        found.is_empty(),
        "files import one another:\n{}",
        found.join("\n")
    );
}

#[test]
fn functions_fit_a_screen() {
    let mut found = Vec::new();
    for file in CRATES.iter().flat_map(|name| source(name)) {
        let long = functions(&file)
            .into_iter()
            .filter(|function| function.lines > MOST_LINES_OF_A_FUNCTION);
        found.extend(long.map(|function| {
            format!(
                "{}:{} {} has {} lines",
                file.path.display(),
                function.line,
                function.name,
                function.lines
            )
        }));
    }
    assert!(
        found.is_empty(),
        "functions of more than {MOST_LINES_OF_A_FUNCTION} lines:\n{}",
        found.join("\n")
    );
}

#[test]
fn files_have_one_subject() {
    let long: Vec<String> = files_below(".", &[".rs"])
        .into_iter()
        .map(|path| (read(&path).lines().count(), path))
        .filter(|(lines, _)| *lines > MOST_LINES_OF_A_FILE)
        .map(|(lines, path)| format!("{} has {lines} lines", path.display()))
        .collect();
    assert!(
        long.is_empty(),
        "files of more than {MOST_LINES_OF_A_FILE} lines:\n{}",
        long.join("\n")
    );
}

#[test]
fn a_module_imports_only_from_modules_above_it_in_its_table() {
    let mut found = Vec::new();
    for (name, document, marker) in MODULE_TABLES {
        let files = source(name);
        let modules = first_cells(&read(document), marker);
        assert!(!modules.is_empty(), "{document} has no table below `{marker}`");
        let place = |file: usize| {
            // The program of a crate uses all of its library.
            let module = files[file].module.first().filter(|module| *module != "main")?;
            let place = modules.iter().position(|listed| listed == module);
            Some(place.unwrap_or_else(|| panic!("{document}: the table of modules lacks {module}")))
        };
        for (file, used) in imports(&files) {
            let Some(own) = place(file) else { continue };
            let below = used
                .into_iter()
                .filter(|used| place(*used).is_some_and(|place| place > own));
            found.extend(below.map(|used| {
                format!(
                    "{} imports {}",
                    files[file].path.display(),
                    files[used].path.display()
                )
            }));
        }
    }
    assert!(found.is_empty(), "imports from below:\n{}", found.join("\n"));
}

#[test]
fn the_environment_is_read_only_where_the_architecture_says() {
    let listed: BTreeSet<String> = first_cells(&read("docs/ARCHITECTURE.md"), "read the environment")
        .into_iter()
        .collect();
    let mut reading = BTreeSet::new();
    for file in CRATES.iter().flat_map(|name| source(name)) {
        let reads = ["env::var(", "env::var_os(", "env::vars(", "env::vars_os("];
        if file
            .product_lines()
            .any(|line| reads.iter().any(|read| line.contains(read)))
        {
            reading.insert(file.path.display().to_string());
        }
    }
    assert_eq!(
        reading, listed,
        "left: files that read the environment; right: the table in docs/ARCHITECTURE.md"
    );
}

#[test]
fn each_guarantee_names_tests_that_exist() {
    let document = read("docs/ARCHITECTURE.md");
    let section = document
        .split("\n## ")
        .find(|section| section.starts_with("Guarantees"));
    let section = section.expect("docs/ARCHITECTURE.md has no section `Guarantees`");
    let mut entries: Vec<String> = Vec::new();
    for line in section.lines() {
        let number = line.split_once(". ").map(|(number, _)| number);
        if number.is_some_and(|number| number.parse::<u32>().is_ok()) {
            entries.push(line.to_owned());
        } else if let Some(entry) = entries.last_mut() {
            entry.push('\n');
            entry.push_str(line);
        }
    }
    assert!(!entries.is_empty(), "no guarantee is listed");
    for entry in entries {
        let tests: Vec<(&str, &str)> = entry
            .split('`')
            .filter_map(|quoted| quoted.split_once(".rs::"))
            .collect();
        assert!(
            !tests.is_empty(),
            "this guarantee names no test (`path/to/file.rs::test`):\n{entry}"
        );
        for (path, test) in tests {
            let text = read(format!("{path}.rs"));
            assert!(
                text.contains(&format!("fn {test}(")),
                "{path}.rs has no test {test}"
            );
        }
    }
}

#[test]
fn texts_for_users_use_the_words_of_the_field() {
    let mut found = Vec::new();
    let mut check = |place: String, text: &str| {
        let words: Vec<String> = text
            .to_lowercase()
            .split(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        let words = format!(" {} ", words.join(" "));
        for (word, better) in REPLACED_WORDS {
            if words.contains(&format!(" {word} ")) {
                found.push(format!("{place}: {word} (write: {better})"));
            }
        }
    };
    let mut documents: Vec<PathBuf> = vec!["README.md".into(), "CHANGELOG.md".into()];
    for directory in ["docs", "crds", "charts", "deploy"] {
        documents.extend(files_below(
            directory,
            &[".md", ".yaml", ".tpl", ".txt", ".json", ".html"],
        ));
    }
    documents.extend(files_below("worker/src", &[".html", ".js", ".json"]));
    for path in documents {
        for (index, line) in read(&path).lines().enumerate() {
            check(format!("{}:{}", path.display(), index + 1), line);
        }
    }
    for file in SHIPPED.iter().flat_map(|name| source(name)) {
        for (line, text) in texts(&file) {
            check(format!("{}:{line}", file.path.display()), &text);
        }
    }
    assert!(
        found.is_empty(),
        "{} words to replace:\n{}",
        found.len(),
        found.join("\n")
    );
}
