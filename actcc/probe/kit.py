"""The kit: small graphs as ONNX files in one zip, with the script that times them.

No weights of the model are in it. Latency does not depend on their values, so all graphs read
random ones from files that they share; constants that decide a shape or a bound stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper

from actcc.errors import DataError
from actcc.graph import Graph
from actcc.graph.files import staging_folder, tensor_bytes, writing
from actcc.probe.probes import Probes

RUNNER = "run_probes.py"
MANIFEST = "manifest.json"
_FOLDER = "probes"
_FORMAT = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)
# Scales of a Resize and the like are shorter.
_LONGEST_KEPT = 16
_SHARED = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
}
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
                zeros = bytes(tensor_bytes(tensor.data_type, tensor.dims))
                del tensor.external_data[:]
                tensor.data_location = TensorProto.DEFAULT
                tensor.raw_data = zeros
        return Graph.load(model)


def identity_of(probes: Probes) -> str:
    """Equal for kits of the same graphs."""
    text = "\n".join(sorted(probe.hash for probe in probes.probes))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_kit(probes: Probes, path: Path) -> None:
    """Write a kit as a zip file, whole or not at all; the same probes give the same bytes.

    Raises:
        ModelError: the folder does not exist or cannot be written.
    """
    with writing(path), staging_folder(path.parent) as staging:
        staged = staging / path.name
        with zipfile.ZipFile(staged, "w") as archive:
            for name, data in _files(probes).items():
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, data)
        os.replace(staged, path)


def unpack_kit(probes: Probes, folder: Path) -> None:
    """Write a kit's files into a folder."""
    for name, data in _files(probes).items():
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


def _files(probes: Probes) -> dict[str, bytes]:
    shared: dict[str, int] = {}
    files: dict[str, bytes] = {}
    entries: list[dict[str, Any]] = []
    for probe in probes.probes:
        name = f"{_FOLDER}/{probe.hash[:20]}.onnx"
        files[name] = _without_weights(probe.graph, shared)
        entry = {"hash": probe.hash, "file": name, "group": probe.group, "role": probe.role}
        entries.append(
            {**entry, "description": probe.description, "features": dict(probe.features)}
        )
    manifest = {"format": _FORMAT, "kit": identity_of(probes), "source": probes.source}
    return {
        "README.txt": _README.format(count=len(entries), source=probes.source).encode(),
        RUNNER: Path(__file__).with_name(RUNNER).read_bytes(),
        MANIFEST: json.dumps({**manifest, "probes": entries}, indent=1).encode(),
        **files,
        **{f"{_FOLDER}/{name}": _random(name, size) for name, size in sorted(shared.items())},
    }


def _without_weights(graph: Graph, shared: dict[str, int]) -> bytes:
    """A graph whose weights are read from shared files; notes how many elements these need."""
    model = graph.to_proto()
    for tensor in model.graph.initializer:
        count = math.prod(tensor.dims)
        if tensor.data_type not in _SHARED or count <= _LONGEST_KEPT or _all_equal(tensor):
            continue
        kind = "weights" if len(tensor.dims) > 1 else "vectors"
        name = f"{kind}_{_SHARED[tensor.data_type]}.bin"
        shared[name] = max(shared.get(name, 0), count)
        plain = TensorProto(
            name=tensor.name,
            data_type=tensor.data_type,
            dims=tensor.dims,
            data_location=TensorProto.EXTERNAL,
        )
        size = tensor_bytes(tensor.data_type, tensor.dims)
        for key, value in (("location", name), ("offset", "0"), ("length", str(size))):
            plain.external_data.add(key=key, value=value)
        tensor.CopyFrom(plain)
    return bytes(model.SerializeToString(deterministic=True))


def _all_equal(tensor: TensorProto) -> bool:
    """Zero points, mostly, which mean something."""
    values = onnx.numpy_helper.to_array(tensor)
    return bool((values == values.flat[0]).all())


def _random(name: str, count: int) -> bytes:
    """Weights of both signs; vectors above 0, since variances and scales are."""
    kind, _, element = name.removesuffix(".bin").partition("_")
    generator = np.random.default_rng(0)
    if element in ("int8", "uint8"):
        return bytes(generator.integers(0, 100, count).astype(element).tobytes())
    values = 0.05 * generator.standard_normal(count)
    if kind == "vectors":
        values = np.abs(values) + 0.01
    return bytes(values.astype(element).tobytes())
