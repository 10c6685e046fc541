//! Finds a model's file.

use std::path::PathBuf;

use super::SongError;
use crate::locations::Locations;
use crate::model::{ModelChoice, install_fix};

/// A model's file, and its parameters file if one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFile {
    /// The ONNX file.
    pub model: PathBuf,
    /// Its parameters file; without one, parameters are searched next to the model.
    pub parameters: Option<PathBuf>,
}

impl ModelFile {
    /// The existing file of a choice; none for the built-in model.
    ///
    /// # Errors
    /// `NotInstalled` or `NoModel` if there is no such file.
    pub fn find(choice: &ModelChoice, locations: &Locations) -> Result<Option<Self>, SongError> {
        let (model, parameters) = match choice {
            ModelChoice::Builtin => return Ok(None),
            ModelChoice::File { model, parameters } if model.is_file() => (model.clone(), parameters),
            ModelChoice::File { model, .. } => return Err(SongError::NoModel { path: model.clone() }),
            ModelChoice::Named {
                name,
                directory,
                parameters,
            } => {
                let paths = locations.model_paths(name, directory.as_deref());
                let Some(found) = paths.iter().find(|path| path.is_file()) else {
                    let searched: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
                    return Err(SongError::NotInstalled {
                        name: name.clone(),
                        searched: searched.join(", "),
                        fix: install_fix(name),
                    });
                };
                (found.clone(), parameters)
            }
        };
        let parameters = parameters.clone();
        Ok(Some(Self { model, parameters }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn named(name: &str, directory: &Path) -> ModelChoice {
        ModelChoice::from_setting(name.into(), Some(directory.into()), None)
    }

    #[test]
    fn an_installed_model_is_found_in_the_first_place_that_has_it() {
        let (given, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let locations = Locations {
            models_dir: Some(cache.path().into()),
            ..Locations::default()
        };
        let choice = named("spleeter", given.path());
        let find = || ModelFile::find(&choice, &locations).map(|found| found.unwrap().model);
        fs::write(cache.path().join("spleeter.onnx"), "").unwrap();
        assert_eq!(find().unwrap(), cache.path().join("spleeter.onnx"));
        fs::write(given.path().join("spleeter.onnx"), "").unwrap();
        assert_eq!(find().unwrap(), given.path().join("spleeter.onnx"));
        // A directory is no model.
        fs::create_dir(given.path().join("spleeter")).unwrap();
        assert_eq!(find().unwrap(), given.path().join("spleeter.onnx"));
        fs::remove_dir(given.path().join("spleeter")).unwrap();
        fs::write(given.path().join("spleeter"), "").unwrap();
        assert_eq!(find().unwrap(), given.path().join("spleeter"));
        assert_eq!(ModelFile::find(&ModelChoice::Builtin, &locations).unwrap(), None);
    }

    #[test]
    fn a_model_that_is_not_installed_is_an_error_with_the_searched_paths_and_the_fix() {
        let locations = Locations {
            models_dir: Some("/nowhere/models".into()),
            ..Locations::default()
        };
        let find = |name| ModelFile::find(&named(name, Path::new("/no")), &locations).unwrap_err();
        assert_eq!(
            find("spleeter").to_string(),
            "model spleeter is not installed (looked for /no/spleeter, ./spleeter, /no/spleeter.onnx, \
             /nowhere/models/spleeter.onnx); fix: separation-worker models fetch spleeter"
        );
        assert!(
            find("Kim_Vocal_2")
                .to_string()
                .contains("models show Kim_Vocal_2")
        );
        assert!(find("other.onnx").to_string().contains("models list"));
    }
}
