//! Lines of functions, files and crates. Blank lines, comments and tests do not count as product code.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::source::SourceFile;

/// A function and how many lines it has, from its signature to its closing brace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionSize {
    /// Name.
    pub name: String,
    /// First line, from 1.
    pub line: usize,
    /// Lines.
    pub lines: usize,
}

/// Lines of product code in a file.
#[must_use]
pub fn product_lines(file: &SourceFile) -> usize {
    let is_code = |line: &&str| !line.is_empty() && !line.starts_with("//");
    file.product_lines().filter(is_code).count()
}

/// The functions of a file, longest first.
#[must_use]
pub fn functions(file: &SourceFile) -> Vec<FunctionSize> {
    let mut finder = Finder(Vec::new());
    for item in &file.items {
        finder.visit_item(item);
    }
    finder.0.sort_by_key(|function| std::cmp::Reverse(function.lines));
    finder.0
}

struct Finder(Vec<FunctionSize>);

impl Finder {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (first, last) = (signature.span().start().line, block.span().end().line);
        self.0.push(FunctionSize {
            name: signature.ident.to_string(),
            line: first,
            lines: last + 1 - first,
        });
    }
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}
