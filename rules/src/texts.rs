//! Texts in Rust source: string literals, also in macros, and doc comments.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Lit, LitStr};

use crate::source::SourceFile;

/// A text and its first line, from 1.
pub type Text = (usize, String);

/// All texts of a file, tests left out.
#[must_use]
pub fn texts(file: &SourceFile) -> Vec<Text> {
    let mut finder = Finder(Vec::new());
    for item in &file.items {
        finder.visit_item(item);
    }
    finder.0
}

struct Finder(Vec<Text>);

impl Finder {
    fn add(&mut self, text: &LitStr) {
        self.0.push((text.span().start().line, text.value()));
    }

    fn read_tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.read_tokens(group.stream()),
                TokenTree::Literal(literal) => {
                    if let Lit::Str(text) = Lit::new(literal) {
                        self.add(&text);
                    }
                }
                TokenTree::Ident(_) | TokenTree::Punct(_) => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        self.add(text);
    }

    fn visit_macro(&mut self, invocation: &'ast syn::Macro) {
        self.read_tokens(invocation.tokens.clone());
        visit::visit_macro(self, invocation);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.read_tokens(list.tokens.clone());
        visit::visit_meta_list(self, list);
    }
}
