//! Which file of a crate uses items of which other file. A name that a module re-exports counts for the file that defines it.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};
use syn::{Item, UseTree};

use crate::source::SourceFile;

/// The most re-exports that a name is followed through.
const MOST_HOPS: usize = 16;

/// Files by their index, and the files whose items each uses.
pub type Imports = BTreeMap<usize, BTreeSet<usize>>;

/// The names of one file.
#[derive(Debug, Default)]
struct Names {
    defined: BTreeSet<String>,
    /// What a name that is imported stands for: an absolute path in the crate.
    imported: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    /// All that is used, as absolute paths in the crate.
    used: Vec<Vec<String>>,
}

struct Crate<'f> {
    by_module: BTreeMap<&'f [String], usize>,
    names: Vec<Names>,
}

/// Finds the imports of a crate's files.
#[must_use]
pub fn imports(files: &[SourceFile]) -> Imports {
    let by_module: BTreeMap<&[String], usize> = files
        .iter()
        .enumerate()
        .map(|(index, file)| (&file.module[..], index))
        .collect();
    let names: Vec<Names> = files.iter().map(|file| names_of(file, &by_module)).collect();
    let of_crate = Crate { by_module, names };
    let mut imports = Imports::new();
    for (index, names) in of_crate.names.iter().enumerate() {
        let used = names
            .used
            .iter()
            .filter_map(|path| of_crate.file_of(path, MOST_HOPS));
        let used: BTreeSet<usize> = used.filter(|used| *used != index).collect();
        imports.insert(index, used);
    }
    imports
}

impl Crate<'_> {
    /// The file that defines what an absolute path names.
    fn file_of(&self, path: &[String], hops: usize) -> Option<usize> {
        let hops = hops.checked_sub(1)?;
        let depth = (0..=path.len())
            .rev()
            .find(|depth| self.by_module.contains_key(&path[..*depth]))?;
        let (module, rest) = path.split_at(depth);
        let file = self.by_module[module];
        let Some((name, rest)) = rest.split_first() else {
            return Some(file);
        };
        let names = &self.names[file];
        if names.defined.contains(name) {
            return Some(file);
        }
        if let Some(target) = names.imported.get(name) {
            let target: Vec<String> = target.iter().chain(rest).cloned().collect();
            return self.file_of(&target, hops).or(Some(file));
        }
        let through_glob = names.globs.iter().find_map(|glob| {
            let target: Vec<String> = glob.iter().chain([name]).chain(rest).cloned().collect();
            let found = self.file_of(&target, hops)?;
            let is_defined = self.names[found].defined.contains(name);
            is_defined.then_some(found)
        });
        Some(through_glob.unwrap_or(file))
    }
}

fn names_of(file: &SourceFile, by_module: &BTreeMap<&[String], usize>) -> Names {
    let mut names = Names::default();
    let mut reader = Reader {
        module: file.module.clone(),
        by_module,
        names: &mut names,
    };
    for item in &file.items {
        reader.define(item);
        reader.visit_item(item);
    }
    names
}

struct Reader<'n> {
    module: Vec<String>,
    by_module: &'n BTreeMap<&'n [String], usize>,
    names: &'n mut Names,
}

impl Reader<'_> {
    fn define(&mut self, item: &Item) {
        let name = match item {
            Item::Const(item) => &item.ident,
            Item::Enum(item) => &item.ident,
            Item::Fn(item) => &item.sig.ident,
            Item::Macro(item) => match &item.ident {
                Some(name) => name,
                None => return,
            },
            Item::Static(item) => &item.ident,
            Item::Struct(item) => &item.ident,
            Item::Trait(item) => &item.ident,
            Item::Type(item) => &item.ident,
            Item::Union(item) => &item.ident,
            _ => return,
        };
        self.names.defined.insert(name.to_string());
    }

    /// The absolute path in the crate, where it leads there.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut base = self.module.clone();
        let mut rest = rest;
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                base.pop();
                while let Some((next, behind)) = rest.split_first()
                    && next == "super"
                {
                    base.pop();
                    rest = behind;
                }
            }
            child => {
                base.push(child.to_owned());
                self.by_module.contains_key(&base[..]).then_some(())?;
            }
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    fn read_use(&mut self, tree: &UseTree, before: &[String]) {
        match tree {
            UseTree::Path(path) => {
                let mut before = before.to_vec();
                before.push(path.ident.to_string());
                self.read_use(&path.tree, &before);
            }
            UseTree::Name(name) => self.import(before, &name.ident.to_string(), None),
            UseTree::Rename(rename) => {
                self.import(before, &rename.ident.to_string(), Some(rename.rename.to_string()));
            }
            UseTree::Glob(_) => {
                if let Some(absolute) = self.absolute(before) {
                    self.names.globs.push(absolute.clone());
                    self.names.used.push(absolute);
                }
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.read_use(tree, before);
                }
            }
        }
    }

    fn import(&mut self, before: &[String], name: &str, renamed: Option<String>) {
        let mut path = before.to_vec();
        if name != "self" {
            path.push(name.to_owned());
        }
        let Some(absolute) = self.absolute(&path) else {
            return;
        };
        let known_as = renamed.or_else(|| path.last().cloned()).unwrap_or_default();
        self.names.imported.insert(known_as, absolute.clone());
        self.names.used.push(absolute);
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        // `pub use` hands names on; whoever uses them there uses the file that defines them.
        let hands_on = !matches!(item.vis, syn::Visibility::Inherited);
        let used = self.names.used.len();
        self.read_use(&item.tree, &[]);
        if hands_on {
            self.names.used.truncate(used);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if segments.len() > 1
            && let Some(absolute) = self.absolute(&segments)
        {
            self.names.used.push(absolute);
        }
        visit::visit_path(self, path);
    }
}
