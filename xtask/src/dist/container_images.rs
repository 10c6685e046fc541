//! The images as archives: `skopeo copy oci-archive:FILE docker://NAME` pushes one, and `docker load --input FILE` loads the
//! one for tests of other projects.

use anyhow::Result;

use super::release::{Release, VERSION, name_for_architecture};
use crate::images::{self, Image, ImageProfile, LOCAL};

/// Builds all images and writes them.
pub(super) fn write(release: &Release<'_>) -> Result<()> {
    let built = images::build(release.project, ImageProfile::Dist, &images::ALL, VERSION)?;
    built
        .iter()
        .zip(images::ALL)
        .try_for_each(|(image, recipe)| export(release, image, recipe.name))
}

/// Writes the image of the recipe `name`.
pub(super) fn export(release: &Release<'_>, image: &Image, name: &str) -> Result<()> {
    let program = format!("separation-{name}");
    // Only Docker's format has health checks; layers in OCI's are compressed.
    let (format, ending) = match name == LOCAL.name {
        true => ("docker-archive", "docker.tar"),
        false => ("oci-archive", "oci.tar"),
    };
    let archive = release.path(&format!("{}.{ending}", name_for_architecture(&program)));
    let name = format!("{}/{program}:{VERSION}", release.names.image_repository);
    images::export(release.project, image, format, &archive, &name)
}
