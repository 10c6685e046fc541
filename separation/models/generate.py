#!/usr/bin/env python3
"""Writes the ONNX models of this repository.

    python3 -m venv /tmp/models && /tmp/models/bin/pip install -r requirements.txt
    /tmp/models/bin/python generate.py builtin  [--output PATH] [--check]
    /tmp/models/bin/python generate.py spleeter [--output-dir DIR] [--check]
    /tmp/models/bin/python generate.py fixtures [--output-dir DIR] [--check]
    /tmp/models/bin/python generate.py topology {mdx-net,waveform,real-imaginary} --output PATH

`builtin` is the model inside the worker (generator/builtin.py), `spleeter` is the graph of a trained model without its
weights (generator/spleeter.py), `fixtures` are the models of the worker's
tests (generator/fixtures.py), `topology` are benchmark models with the architectures of MDX-Net, HTDemucs and BS-RoFormer
and random weights (generator/*topology.py), which are never committed. With `--check` nothing is written: the files are
generated again in memory, and the exit status is 1 if a committed file differs.

It uses no network, no clock and no trained weights; the same versions give the same bytes.
"""

import argparse
import sys
from pathlib import Path

from generator import builtin, fixtures, spectrum_topology, spleeter, topology, waveform_topology

MODELS_DIR = Path(__file__).resolve().parent
TOPOLOGIES = {"mdx-net": topology, "waveform": waveform_topology, "real-imaginary": spectrum_topology}
FIXTURES_DIR = MODELS_DIR.parent.parent / "worker" / "tests" / "models"


def main() -> int:
    arguments = parse_arguments()
    files = plan_files(arguments)
    if getattr(arguments, "check", False):
        return report_differences(files)
    write_files(files)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Writes the ONNX models of this repository.")
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("builtin", help="the model inside the worker")
    command.add_argument("--output", type=Path, default=MODELS_DIR / "builtin.onnx", help="default: %(default)s")
    command.add_argument("--check", action="store_true", help="write nothing, exit 1 if the file is out of date")

    for name, directory, contents in (
        ("spleeter", MODELS_DIR, "the graph of Spleeter 2 stems, the table of its weights, and its parameters"),
        ("fixtures", FIXTURES_DIR, "the models of the worker's tests"),
    ):
        command = commands.add_parser(name, help=contents)
        command.add_argument("--output-dir", type=Path, default=directory, help="default: %(default)s")
        command.add_argument("--check", action="store_true", help="write nothing, exit 1 if a file is out of date")

    command = commands.add_parser("topology", help="a benchmark model with a real architecture, 30 to 415 MB")
    command.add_argument("contract", choices=TOPOLOGIES, help="its tensor contract")
    command.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def plan_files(arguments: argparse.Namespace) -> dict[Path, bytes]:
    """The files that must exist: every path with its bytes."""
    if directory := getattr(arguments, "output_dir", None):
        files = {"spleeter": spleeter, "fixtures": fixtures}[arguments.command].build()
        return {directory / name: content for name, content in files.items()}
    module = builtin if arguments.command == "builtin" else TOPOLOGIES[arguments.contract]
    model, sidecar = module.build()
    files = {arguments.output: model}
    if sidecar is not None:
        files[arguments.output.with_suffix(".json")] = sidecar
    return files


def write_files(files: dict[Path, bytes]) -> None:
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(f"wrote {path}, {len(content)} bytes")


def report_differences(files: dict[Path, bytes]) -> int:
    status = 0
    for path, content in files.items():
        if not path.exists():
            problem = "is missing"
        elif path.read_bytes() != content:
            problem = "is out of date"
        else:
            continue
        status = 1
        print(f"{path} {problem}: run generate.py without --check and commit the result", file=sys.stderr)
    if status == 0:
        print(f"{len(files)} files are up to date")
    return status


if __name__ == "__main__":
    sys.exit(main())
