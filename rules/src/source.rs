//! The files of a crate as its module tree has them. Items for tests (`#[cfg(test)]`) are left out.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use syn::spanned::Spanned;
use syn::{Attribute, Item, Meta};

/// Crates of the workspace; xtask and this one included.
pub const CRATES: [&str; 13] = [
    "contract",
    "daemon",
    "kafka",
    "separation",
    "worker",
    "operator",
    "local",
    "program",
    "evaluation",
    "testbed",
    "scenarios",
    "xtask",
    "rules",
];

/// One file of a crate.
pub struct SourceFile {
    /// Path from the root of the workspace.
    pub path: PathBuf,
    /// Module path within the crate; empty for the root of the crate.
    pub module: Vec<String>,
    /// Items, without those for tests.
    pub items: Vec<Item>,
    /// The text, line by line.
    pub lines: Vec<String>,
    /// First and last line (from 1) of each item for tests.
    pub test_lines: Vec<(usize, usize)>,
}

impl SourceFile {
    /// The lines outside tests, without surrounding blanks.
    pub fn product_lines(&self) -> impl Iterator<Item = &str> {
        let is_test = |number: usize| {
            let mut tests = self.test_lines.iter();
            tests.any(|(first, last)| (*first..=*last).contains(&number))
        };
        let lines = self.lines.iter().enumerate();
        lines
            .filter(move |(index, _)| !is_test(index + 1))
            .map(|(_, line)| line.trim())
    }
}

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// All files of the library of the crate in `directory`, or of its program where it has no library.
///
/// # Errors
/// A file that is missing or is not Rust.
pub fn files_of(directory: &str) -> Result<Vec<SourceFile>> {
    let source = Path::new(directory).join("src");
    let root = ["lib.rs", "main.rs"]
        .map(|name| source.join(name))
        .into_iter()
        .find(|path| workspace().join(path).is_file());
    let Some(root) = root else {
        bail!("{directory} has neither src/lib.rs nor src/main.rs");
    };
    let mut files = Vec::new();
    read(&root, Vec::new(), &source, &mut files)?;
    if root.ends_with("lib.rs") && workspace().join(source.join("main.rs")).is_file() {
        files.push(parse(&source.join("main.rs"), vec!["main".to_owned()])?);
    }
    Ok(files)
}

fn read(path: &Path, module: Vec<String>, children: &Path, files: &mut Vec<SourceFile>) -> Result<()> {
    let file = parse(path, module)?;
    let mut declared = Vec::new();
    for item in &file.items {
        if let Item::Mod(child) = item
            && child.content.is_none()
        {
            declared.push(child.ident.to_string());
        }
    }
    let module = file.module.clone();
    files.push(file);
    for name in declared {
        let own = children.join(&name);
        let candidates = [own.with_extension("rs"), own.join("mod.rs")];
        let Some(path) = candidates.iter().find(|path| workspace().join(path).is_file()) else {
            bail!("{}: no file of module {name}", path.display());
        };
        let mut child = module.clone();
        child.push(name);
        read(path, child, &own, files)?;
    }
    Ok(())
}

fn parse(path: &Path, module: Vec<String>) -> Result<SourceFile> {
    let text = fs::read_to_string(workspace().join(path))
        .with_context(|| format!("cannot read {}", path.display()))?;
    let parsed = syn::parse_file(&text).with_context(|| format!("cannot parse {}", path.display()))?;
    let (tests, items): (Vec<Item>, Vec<Item>) = parsed.items.into_iter().partition(is_for_tests);
    let extent = |item: &Item| (item.span().start().line, item.span().end().line);
    Ok(SourceFile {
        path: path.to_owned(),
        module,
        items,
        lines: text.lines().map(str::to_owned).collect(),
        test_lines: tests.iter().map(extent).collect(),
    })
}

fn is_for_tests(item: &Item) -> bool {
    attributes(item).iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
