//! Prints the lines of product code of each crate, the longest functions, and cycles between files.

use anyhow::Result;
use separation_rules::cycles::cycles;
use separation_rules::imports::imports;
use separation_rules::size::{functions, product_lines};
use separation_rules::source::{CRATES, files_of};

#[expect(clippy::print_stdout, reason = "a report for people")]
fn main() -> Result<()> {
    let mut total = 0;
    for name in CRATES {
        let files = files_of(name)?;
        let lines: usize = files.iter().map(product_lines).sum();
        total += lines;
        println!("{name:12} {lines:6} lines of product code");
        for file in &files {
            for function in functions(file).into_iter().filter(|function| function.lines > 70) {
                println!(
                    "  {}:{} {} has {} lines",
                    file.path.display(),
                    function.line,
                    function.name,
                    function.lines
                );
            }
        }
        let imported = imports(&files);
        for group in cycles(&imported) {
            let paths: Vec<String> = group
                .iter()
                .map(|file| files[*file].path.display().to_string())
                .collect();
            println!("  cycle of {}: {}", paths.len(), paths.join(", "));
        }
    }
    println!("{:12} {total:6}", "all");
    Ok(())
}
