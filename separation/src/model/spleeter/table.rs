//! The table of a model's weights: each tensor is a view of one sequence of float32 values.

use serde::Deserialize;

/// The views of one file of weights.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// Values in the file that views may refer to.
    values: usize,
    tensors: Vec<View>,
}

/// A tensor of the model. Element (i, j, …) is the value at `first + i * strides[0] + j * strides[1] + …`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct View {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) element: Element,
    pub(super) dims: Vec<usize>,
    first: usize,
    strides: Vec<isize>,
}

/// How the model stores the values.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Element {
    Float16,
    Float32,
}

/// Why a table is unusable.
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error("not a table of tensors")]
    Malformed(#[from] serde_json::Error),
    #[error("tensor {name} is not inside the {values} values")]
    Outside { name: String, values: usize },
}

impl Table {
    /// Parses a table. All positions of its views are inside the file.
    ///
    /// # Errors
    /// If it is not a table, or a view refers to a value outside.
    pub(super) fn parse(json: &str) -> Result<Self, TableError> {
        let table: Self = serde_json::from_str(json)?;
        match table.tensors.iter().find(|view| !view.is_inside(table.values)) {
            Some(view) => Err(TableError::Outside {
                name: view.name.clone(),
                values: table.values,
            }),
            None => Ok(table),
        }
    }

    /// Bytes of the file that views may refer to.
    pub(super) fn bytes(&self) -> usize {
        self.values * size_of::<f32>()
    }

    pub(super) fn views(&self) -> &[View] {
        &self.tensors
    }
}

impl View {
    fn is_inside(&self, values: usize) -> bool {
        if self.dims.len() != self.strides.len() || self.dims.contains(&0) {
            return false;
        }
        // The extremes of a sum are the sums of the extremes.
        let span = |sign: isize| -> Option<isize> {
            let steps = self.dims.iter().zip(&self.strides);
            steps
                .filter(|(_, stride)| stride.signum() == sign)
                .try_fold(isize::try_from(self.first).ok()?, |sum, (&size, &stride)| {
                    sum.checked_add(isize::try_from(size - 1).ok()?.checked_mul(stride)?)
                })
        };
        let last = span(1).and_then(|last| usize::try_from(last).ok());
        span(-1).is_some_and(|first| first >= 0) && last.is_some_and(|last| last < values)
    }

    /// The positions of all elements, the last axis fastest.
    pub(super) fn positions(&self) -> impl Iterator<Item = usize> {
        let mut index = vec![0; self.dims.len()];
        let mut next = self.first;
        (0..self.dims.iter().product()).map(move |_| {
            let position = next;
            for ((place, &size), &stride) in index.iter_mut().zip(&self.dims).zip(&self.strides).rev() {
                *place += 1;
                next = next.wrapping_add_signed(stride);
                if *place < size {
                    break;
                }
                next = next.wrapping_add_signed(-stride * size as isize);
                *place = 0;
            }
            position
        })
    }
}
