//! Quality on six mixes with exact references.

use anyhow::{Context, Result};

use super::context::{Bench, MODELS};
use super::figures::{Section, Spread};

pub(super) fn measure(bench: &Bench<'_>) -> Result<Section> {
    let mut rows = Vec::new();
    for model in MODELS {
        rows.extend(rows_of(bench, model)?);
    }
    Ok(Section {
        title: "Quality",
        text: "Plain SDR in dB of the stems, and of the mix itself as an estimate of the stem: a real voice with reverb in the \
               center, 2 dB below real music. More is better. Target: a median of 9.8 dB vocals and 11.8 dB instrumental \
               with the default model."
            .to_owned(),
        header: vec![
            "model, mix",
            "mix as vocals",
            "vocals",
            "mix as instrumental",
            "instrumental",
        ],
        rows,
    })
}

/// A row for each mix, and their medians.
fn rows_of(bench: &Bench<'_>, model: &str) -> Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    let mut columns: [Vec<f64>; 4] = Default::default();
    for mix in bench.mixes()? {
        let separation = bench
            .binaries()?
            .separate_one(&mix.mix, &bench.stems(), &["--model", model])?;
        let mut cells = vec![format!("{model}, {}", mix.name)];
        for (stem, column) in ["vocals", "instrumental"].into_iter().zip([0, 2]) {
            let reference = mix
                .reference(stem)
                .context("a mix lacks the reference of a stem")?;
            let estimate = separation
                .outputs
                .get(stem)
                .with_context(|| format!("the model {model} gave no {stem}"))?;
            for (column, file) in [(column, &mix.mix), (column + 1, estimate)] {
                let sdr_db = bench.binaries()?.sdr_db(reference, file)?;
                columns[column].push(sdr_db);
                cells.push(format!("{sdr_db:.2}"));
            }
        }
        rows.push(cells);
    }
    let mut medians = vec![format!("{model}, median")];
    for column in columns {
        let spread = Spread::from_figures(column).context("there were no mixes")?;
        medians.push(format!("{:.2}", spread.median));
    }
    rows.push(medians);
    Ok(rows)
}
