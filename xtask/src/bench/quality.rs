//! Quality of the built-in model on six mixes with exact references.

use anyhow::{Context, Result};

use super::context::Bench;
use super::figures::{Section, Spread};

pub(super) fn measure(bench: &Bench<'_>) -> Result<Section> {
    let mut rows = Vec::new();
    let mut columns: [Vec<f64>; 4] = Default::default();
    for mix in &bench.mixes {
        let separation = bench
            .binaries
            .separate_one(&mix.mix, &bench.stems(), &["--model", "builtin"])?;
        let mut cells = vec![mix.name.clone()];
        for (stem, column) in ["vocals", "instrumental"].into_iter().zip([0, 2]) {
            let reference = mix
                .reference(stem)
                .context("a mix lacks the reference of a stem")?;
            let estimate = separation
                .outputs
                .get(stem)
                .with_context(|| format!("the built-in model gave no {stem}"))?;
            for (column, file) in [(column, &mix.mix), (column + 1, estimate)] {
                let sdr_db = bench.binaries.sdr_db(reference, file)?;
                columns[column].push(sdr_db);
                cells.push(format!("{sdr_db:.2}"));
            }
        }
        rows.push(cells);
    }
    let medians = columns.map(|column| {
        Spread::from_figures(column).map_or_else(String::new, |spread| format!("{:.2}", spread.median))
    });
    rows.push([vec!["median".to_owned()], medians.to_vec()].concat());
    Ok(Section {
        title: "Quality",
        text: "Plain SDR in dB of the built-in model's stems, and of the mix itself as an estimate of the stem: a real voice \
               with reverb in the center, 2 dB below real music. More is better. Trained models are far better."
            .to_owned(),
        header: vec![
            "mix",
            "mix as vocals",
            "vocals",
            "mix as instrumental",
            "instrumental",
        ],
        rows,
    })
}
