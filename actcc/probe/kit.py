"""The kit: small graphs as ONNX files in one zip, with the script that times them.

Other weights stand in the place of the model's, see `actcc.probe.weightless`.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, external_data_helper

from actcc.errors import DataError, ModelError
from actcc.graph import Graph
from actcc.graph.files import raw_bytes, staging_folder, writing
from actcc.probe.probes import Probes
from actcc.probe.weightless import random_values, without_weights

RUNNER = "run_probes.py"
MANIFEST = "manifest.json"
_FOLDER = "probes"
_FORMAT = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)
_README = """\
{count} small graphs that stand for {source}.

Copy this folder to the device; it needs Python, numpy and onnxruntime there:

    python run_probes.py --out results.csv

and bring results.csv back:

    actcc probe fit results.csv -o mydevice.toml
"""


@dataclass(frozen=True)
class Kit:
    """A kit that was written.

    Attributes:
        identity: of the set of its graphs; stands in every row of its results.
        graphs: ONNX files by hash, with weights that lie elsewhere.
    """

    identity: str
    graphs: Mapping[str, bytes]

    def graph(self, key: str) -> Graph:
        """A graph without the values of its weights."""
        model = onnx.ModelProto.FromString(self.graphs[key])
        for tensor in model.graph.initializer:
            if external_data_helper.uses_external_data(tensor):
                zeros = bytes(raw_bytes(tensor.data_type, tensor.dims))
                del tensor.external_data[:]
                tensor.data_location = TensorProto.DEFAULT
                tensor.raw_data = zeros
        return Graph.load(model)


def identity_of(probes: Probes) -> str:
    """Equal for kits of the same graphs."""
    text = "\n".join(sorted(probe.hash for probe in probes.probes))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_kit(probes: Probes, path: Path) -> tuple[str, ...]:
    """Write a kit as a zip file, whole or not at all; the same probes give the same bytes.

    Returns:
        graphs that were left out because their weights cannot be replaced, a sentence each.

    Raises:
        ModelError: the folder does not exist or cannot be written.
    """
    files, refusals = _files(probes)
    with writing(path), staging_folder(path.parent) as staging:
        staged = staging / path.name
        with zipfile.ZipFile(staged, "w") as archive:
            for name, data in files.items():
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, data)
        os.replace(staged, path)
    return refusals


def unpack_kit(probes: Probes, folder: Path) -> None:
    """Write a kit's files into a folder."""
    files, _ = _files(probes)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def read_kit(path: Path) -> Kit:
    """A kit from its zip file.

    Raises:
        DataError: the file is missing or is no kit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read(MANIFEST))
            graphs = {e["hash"]: archive.read(e["file"]) for e in manifest["probes"]}
            return Kit(manifest["kit"], graphs)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; give the kit that `actcc probe kit` made") from (
            error
        )
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: is no probe kit ({error}); give the zip that `actcc probe kit` made"
        ) from error


def find_kit(identities: tuple[str, ...], *folders: Path) -> Kit | None:
    """The kit with one of these identities among the zip files of some folders."""
    for folder in folders:
        for path in sorted(folder.glob("*.zip")):
            try:
                kit = read_kit(path)
            except DataError:
                continue  # some other archive
            if kit.identity in identities:
                return kit
    return None


def _files(probes: Probes) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Content of all files by name, and what was left out."""
    shared: dict[str, int] = {}
    files: dict[str, bytes] = {}
    entries: list[dict[str, Any]] = []
    refusals: list[str] = []
    for probe in probes.probes:
        name = f"{_FOLDER}/{probe.hash[:20]}.onnx"
        try:
            model, needed = without_weights(probe.graph)
        except ModelError as error:
            refusals.append(f"{probe.description}: {error}")
            continue
        files[name] = bytes(model.SerializeToString(deterministic=True))
        for file, size in needed.items():
            shared[file] = max(shared.get(file, 0), size)
        entry = {"hash": probe.hash, "file": name, "group": probe.group, "role": probe.role}
        entries.append(
            {**entry, "description": probe.description, "features": dict(probe.features)}
        )
    manifest = {"format": _FORMAT, "kit": identity_of(probes), "source": probes.source}
    found = {
        "README.txt": _README.format(count=len(entries), source=probes.source).encode(),
        RUNNER: Path(__file__).with_name(RUNNER).read_bytes(),
        MANIFEST: json.dumps({**manifest, "probes": entries}, indent=1).encode(),
        **files,
        **{f"{_FOLDER}/{n}": random_values(n, size) for n, size in sorted(shared.items())},
    }
    return found, tuple(refusals)
