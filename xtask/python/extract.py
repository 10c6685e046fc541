"""Copies the members of a wheel, zip or tar archive whose names match a pattern into a flat directory.

Usage: python3 extract.py ARCHIVE DIRECTORY PATTERN...
Prints the name of each file written. A pattern that matches nothing is an error.
"""

import fnmatch
import os
import shutil
import sys
import tarfile
import zipfile


def members(archive):
    """Yields (name, function that opens the member) for every regular file."""
    if zipfile.is_zipfile(archive):
        opened = zipfile.ZipFile(archive)
        for info in opened.infolist():
            if not info.is_dir():
                yield info.filename, lambda info=info: opened.open(info)
    else:
        opened = tarfile.open(archive)
        for info in opened:
            if info.isfile():
                yield info.name, lambda info=info: opened.extractfile(info)


def main():
    archive, directory, *patterns = sys.argv[1:]
    unmatched = set(patterns)
    for name, open_member in members(archive):
        matching = {pattern for pattern in patterns if fnmatch.fnmatchcase(name, pattern)}
        if not matching:
            continue
        unmatched -= matching
        # Only the last part of the name is used, so that no archive can write outside the directory.
        base = os.path.basename(name)
        with open_member() as source, open(os.path.join(directory, base), "xb") as target:
            shutil.copyfileobj(source, target)
        print(base)
    if unmatched:
        sys.exit(f"{archive} has no member that matches {', '.join(sorted(unmatched))}")


main()
