"""A build backend that builds nothing, put in the place of setuptools while pip downloads a source package.

pip asks every source package for its metadata, even when it only downloads it, and would install build tools
and run the package's own code for that. Only the archive is needed, so this backend returns a name and a version
(from the environment), and neither happens.
"""

import os
import pathlib
import sys


def get_requires_for_build_wheel(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name, version = os.environ["XTASK_PACKAGE_NAME"], os.environ["XTASK_PACKAGE_VERSION"]
    info = pathlib.Path(metadata_directory) / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    return info.name


# The name under which pip looks for the backend when a package names none.
__legacy__ = sys.modules[__name__]
