//! Prints the lines of product code of each crate. What the rules require is checked by the tests of this crate.

use anyhow::Result;
use separation_rules::size::product_lines;
use separation_rules::source::{CRATES, files_of};

#[expect(clippy::print_stdout, reason = "a report for people")]
fn main() -> Result<()> {
    let mut total = 0;
    for name in CRATES {
        let lines: usize = files_of(name)?.iter().map(product_lines).sum();
        total += lines;
        println!("{name:12} {lines:6} lines of product code");
    }
    println!("{:12} {total:6}", "all");
    Ok(())
}
