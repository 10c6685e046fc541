//! The rules of docs/ARCHITECTURE.md, checked against the source.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use separation_rules::cycles::cycles;
use separation_rules::documents::{first_cells, links, section};
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

/// The most lines of README.md.
const MOST_LINES_OF_THE_README: usize = 150;

/// The sections of README.md, in this order.
const SECTIONS_OF_THE_README: [&str; 9] = [
    "Try it",
    "On Kubernetes",
    "How it works",
    "Compared with KEDA and a Python worker",
    "Models",
    "HTTP API",
    "Coming from uvr5-api or a ScaledObject",
    "Support",
    "Contributing",
];

/// The complete recording of which README.md has an excerpt, and the excerpt's first line.
const RECORDING: &str = "docs/images/scale-up.txt";
const RECORDED: &str = "$ kubectl -n media get seppool --watch\n";

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

/// The path of the file and the anchor to which a relative link of a document leads; none for other links.
fn target<'l>(document: &Path, link: &'l str) -> Option<(PathBuf, &'l str)> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let file = match path {
        "" => document.to_owned(),
        path => document.with_file_name("").join(path),
    };
    Some((file, anchor))
}

#[test]
fn links_of_documents_lead_to_files_and_headings() {
    let mut documents: Vec<PathBuf> = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
        .map(PathBuf::from)
        .into();
    for directory in ["docs", "charts", "deploy"] {
        documents.extend(files_below(directory, &[".md"]));
    }
    let mut broken = Vec::new();
    for document in documents {
        for link in links(&read(&document)) {
            let Some((file, anchor)) = target(&document, link) else {
                continue;
            };
            let is_document = file.extension().is_some_and(|extension| extension == "md");
            let leads_somewhere = workspace().join(&file).exists()
                && (anchor.is_empty() || !is_document || section(&read(&file), anchor).is_some());
            if !leads_somewhere {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn the_readme_is_short_and_its_sections_are_in_order() {
    let readme = read("README.md");
    let lines = readme.lines().count();
    assert!(lines <= MOST_LINES_OF_THE_README, "README.md has {lines} lines");
    let sections = readme.lines().filter_map(|line| line.strip_prefix("## "));
    assert_eq!(sections.collect::<Vec<_>>(), SECTIONS_OF_THE_README);
}

#[test]
fn bold_figures_of_the_readme_are_in_the_sections_that_their_rows_link_to() {
    let readme = read("README.md");
    let mut missing = Vec::new();
    for row in readme.lines().filter(|line| line.starts_with('|')) {
        let sections: Vec<String> = links(row)
            .into_iter()
            .filter_map(|link| target(Path::new("README.md"), link))
            .filter_map(|(file, anchor)| section(&read(file), anchor))
            .collect();
        let figures = row.split("**").skip(1).step_by(2);
        let absent = figures.filter(|figure| !sections.iter().any(|section| section.contains(figure)));
        if !sections.is_empty() {
            missing.extend(absent.map(|figure| format!("{figure}: {row}")));
        }
    }
    assert!(
        missing.is_empty(),
        "figures that differ from their sections:\n{}",
        missing.join("\n")
    );
}

#[test]
fn the_recording_in_the_readme_is_an_excerpt_of_the_complete_one() {
    let (readme, complete) = (read("README.md"), read(RECORDING));
    let (_, excerpt) = readme.split_once(RECORDED).expect("a recording in README.md");
    let (excerpt, _) = excerpt.split_once("```").expect("the end of the recording");
    let mut rest = complete.lines();
    for line in excerpt.lines() {
        let is_next = |recorded: &str| recorded.trim_end() == line.trim_end();
        assert!(rest.any(is_next), "not in {RECORDING}, in this order: {line}");
    }
}

#[test]
fn each_guarantee_of_the_readme_links_to_its_test() {
    let readme = read("README.md");
    let tests: Vec<(&str, &str)> = readme
        .split("[`")
        .filter_map(|link| link.split_once("`]("))
        .filter_map(|(test, rest)| Some((test, rest.split_once(')')?.0)))
        .collect();
    assert_eq!(tests.len(), 5, "{tests:?}");
    for (test, path) in tests {
        assert!(
            read(path).contains(&format!("fn {test}(")),
            "{path} has no test {test}"
        );
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
