"""Model files with bytes lost or changed, and what the command line makes of them."""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from every_rewrite import Immediately

import actcc.job
from actcc.cli import main
from actcc.errors import ModelError
from actcc.runtime import session

_MEMORY_LIMIT = 6 * 2**30
_LEAST_WEIGHT = 64


@dataclass(frozen=True)
class DamagedFile:
    """One damaged model.

    Attributes:
        name: what was done to it.
        arguments: of `actcc`, before the file's path and behind it.
    """

    name: str
    content: bytes
    command: str
    arguments: tuple[str, ...]


def damaged_files(content: bytes, count: int, seed: int) -> Iterator[DamagedFile]:
    """Truncations at random lengths and flips of 1 to 20 random bits, each in another byte.

    Every fifth file is a truncation. Of the others every second one is flipped outside the weights
    alone, which are most of a file: there every flip changes the structure.
    """
    generator = random.Random(seed)
    structure = _structure(content)
    for number in range(count):
        # onnx-simplifier starts a process of its own, which takes most of the time.
        command = "inspect" if number % 20 == 6 else "optimize"
        skip = ("--skip", "simplify") if command == "optimize" and number % 10 != 9 else ()
        if number % 5 == 0:
            length = generator.randrange(len(content))
            yield DamagedFile(f"first {length} bytes", content[:length], command, skip)
            continue
        places = structure if number % 2 else range(len(content))
        chosen = generator.sample(places, generator.randint(1, 20))
        damaged = bytearray(content)
        for place in chosen:
            damaged[place] ^= 1 << generator.randrange(8)
        yield DamagedFile(f"{number}: flipped at {sorted(chosen)}", bytes(damaged), command, skip)


def _structure(content: bytes) -> list[int]:
    """Places that belong to no weight."""
    weights: set[int] = set()
    for tensor in onnx.ModelProto.FromString(content).graph.initializer:
        if len(tensor.raw_data) >= _LEAST_WEIGHT:
            start = content.index(tensor.raw_data)
            weights.update(range(start, start + len(tensor.raw_data)))
    return [place for place in range(len(content)) if place not in weights]


def start_worker() -> None:
    """Limit this process's memory, so that none of its tasks can fill the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_LIMIT, _MEMORY_LIMIT))
    actcc.job.process_pool = lambda workers: contextlib.nullcontext(Immediately())


def problem_with(damaged: DamagedFile) -> tuple[int, str]:
    """Exit code of `actcc` on a damaged file, and what is wrong with how it ended; empty if all
    is well: it succeeds with a valid model, or refuses in one line and leaves nothing behind.
    """
    with tempfile.TemporaryDirectory(prefix="actcc-damaged-") as name:
        folder = Path(name)
        model, output = folder / "model.onnx", folder / "out.onnx"
        model.write_bytes(damaged.content)
        arguments = [damaged.command, str(model), "--target", "npu1", *damaged.arguments]
        if damaged.command == "optimize":
            arguments += ["--quiet", "-o", str(output)]
        code, printed, said = run_command(arguments)
        left = {path.name for path in folder.iterdir()} - {"model.onnx"}
        return code, _problem(damaged.command, code, printed, said, output, left)


def _problem(command: str, code: int, printed: str, said: str, output: Path, left: set[str]) -> str:
    if "Traceback" in said or code not in (0, 2):
        return f"exit code {code}: {said[-3000:]}"
    if code == 2:
        if len(said.splitlines()) != 1 or not said.startswith("actcc: ") or printed:
            return f"not one line: {said!r} {printed!r}"
        return f"files are left behind: {left}" if left else ""
    expected = {"out.onnx", "out.onnx.plan.json"} if command == "optimize" else set()
    if not expected <= left or any(not name.startswith("out.onnx") for name in left):
        return f"files are missing or left behind: {left}"
    if command == "optimize":
        try:
            onnx.checker.check_model(str(output))
        except onnx.checker.ValidationError as error:
            try:
                session(output)  # what runs may be handed back as it is
            except ModelError:
                return f"the output is not valid: {error}"
    return ""


def run_command(arguments: Sequence[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, what C++ libraries print themselves included."""
    streams = io.BytesIO(), io.BytesIO()
    with _redirected(1, streams[0]), _redirected(2, streams[1]):
        try:
            main(arguments)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
            code = 1
    printed, said = (stream.getvalue().decode(errors="replace") for stream in streams)
    return code, printed, said


@contextlib.contextmanager
def _redirected(descriptor: int, into: io.BytesIO) -> Iterator[None]:
    python = sys.stdout if descriptor == 1 else sys.stderr
    redirect = contextlib.redirect_stdout if descriptor == 1 else contextlib.redirect_stderr
    kept = os.dup(descriptor)
    with tempfile.TemporaryFile() as file:
        python.flush()
        os.dup2(file.fileno(), descriptor)
        try:
            # Python's own may lie elsewhere already, as under pytest.
            with (
                open(descriptor, "w", errors="backslashreplace", closefd=False) as stream,
                redirect(stream),
            ):
                yield
        finally:
            python.flush()
            os.dup2(kept, descriptor)
            os.close(kept)
            file.seek(0)
            into.write(file.read())
