#!/usr/bin/env python3
"""Times the small graphs of this kit on this device, and writes what they took as CSV.

Needs Python 3.8 or later, numpy and onnxruntime; nothing of it leaves the device but the CSV:

    python run_probes.py --out results.csv

Graphs that are compared with each other are timed in turn, in an order that is shuffled anew in
every round, so that what disturbs the device falls on all of them alike. It can be interrupted at
any time: what was measured by then is in the CSV, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import math
import os
import platform
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before it is imported, which reports
import onnxruntime

HERE = os.path.dirname(os.path.abspath(__file__))
COLUMNS = (
    *("hash", "median_ns", "noise_ns", "runs", "runtime", "provider", "threads", "clock", "device"),
    *("status", "reason", "kit", "role", "against", "difference_ns", "difference_noise_ns"),
    *("description", "features", "most_runs", "most_seconds"),
)
EFFORT = ("most_runs", "most_seconds")
SAME = ("kit", "runtime", "provider", "threads", "clock", "device", *EFFORT)
CPU = "CPUExecutionProvider"
BLOCKS = 4  # sessions are made anew, because where their tensors lie in memory counts
PLACEMENT = 0.005  # share of the latency by which two graphs' sessions still differ after that
SHORTEST_SAMPLE_NS = 20_000
LEAST_RUNS = 8


class RefusalError(Exception):
    """The run cannot begin; one line says why and what to do."""


def main() -> None:
    """Exit code 0, 2 where the run cannot begin, 130 where it was interrupted."""
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, interrupt)
    try:
        run(options)
    except RefusalError as refusal:
        sys.exit(fail(str(refusal), 2))
    except KeyboardInterrupt:
        sys.exit(fail("interrupted; what was measured is kept, the same command goes on", 130))


def fail(message: str, code: int) -> int:
    """Say it on stderr; returns the code."""
    print("run_probes: " + message, file=sys.stderr)
    return code


def interrupt(number: int, frame: Any) -> None:
    """A request to end is an interruption as the one from the keyboard."""
    raise KeyboardInterrupt


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--provider", default=CPU, help="execution provider [%(default)s]")
    parser.add_argument("--threads", type=positive, default=1, help="of one operator [%(default)s]")
    parser.add_argument(
        "--runs", type=positive, default=60, help="samples of each graph [%(default)s]"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        help=f"most time for one graph, but for {LEAST_RUNS} samples [%(default)s]",
    )
    parser.add_argument("--out", default="results.csv", help="CSV to write [%(default)s]")
    parser.add_argument(
        "--anew",
        action="store_true",
        help="measure again what a finished run, or one of other --runs or --seconds, measured",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def run(options: argparse.Namespace) -> None:
    """Time what the CSV does not hold yet, group by group."""
    with open(os.path.join(HERE, "manifest.json"), encoding="utf-8") as file:
        manifest = json.load(file)
    available = onnxruntime.get_available_providers()
    if options.provider not in available:
        raise RefusalError(
            f"the installed onnxruntime has no execution provider '{options.provider}'; it has: "
            f"{', '.join(available)}; install the package that brings it, or name one of these"
        )
    onnxruntime.set_default_logger_severity(4)
    settings = circumstances(options, manifest["kit"])
    rows = kept(options, settings, {probe["hash"] for probe in manifest["probes"]})
    groups: dict[str, list[dict[str, Any]]] = {}
    for probe in manifest["probes"]:
        groups.setdefault(probe["group"], []).append(probe)
    # Graphs are compared with the first of their group, so a group is measured as a whole.
    groups = {
        name: group
        for name, group in groups.items()
        if any(rows.get(probe["hash"], {}).get("status") != "ok" for probe in group)
    }
    for group in groups.values():
        for probe in group:
            rows.pop(probe["hash"], None)
    if rows:
        said = f"{len(rows)} graphs are in {options.out} already"
        print(said, file=sys.stderr if options.quiet else sys.stdout)
    told = 0.0
    for group in groups.values():
        for row in measure(group, options, settings):
            rows[row["hash"]] = row
        write(options.out, manifest["probes"], rows)
        if not options.quiet and time.monotonic() - told > 1.0:
            told = time.monotonic()
            print(
                f"{len(rows):4d} of {len(manifest['probes'])} graphs, "
                f"last {group[-1]['description']}",
                flush=True,
            )
    failed = [row for row in rows.values() if row["status"] != "ok"]
    print(f"{options.out}: {len(rows)} graphs, {len(failed)} of them failed")


def circumstances(options: argparse.Namespace, kit: str) -> dict[str, str]:
    """What all rows have in common."""
    fine = time.get_clock_info("thread_time").resolution <= 1e-6
    alone = options.provider == CPU and options.threads == 1 and fine
    return {
        "kit": kit,
        "runtime": "onnxruntime " + onnxruntime.__version__,
        "provider": options.provider,
        "threads": str(options.threads),
        # Processor time of the one thread that does everything is not lengthened by other work.
        "clock": "thread time" if alone else "wall time",
        "device": processor(),
        "most_runs": str(options.runs),
        "most_seconds": str(options.seconds),
    }


def processor() -> str:
    """The processor's name, as far as the system gives it."""
    found: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                found.setdefault(key.strip(), value.strip())
    except OSError:
        found = {}
    named = found.get("model name") or found.get("Hardware") or platform.processor()
    return " ".join((named or platform.machine()).split())


def kept(
    options: argparse.Namespace, settings: dict[str, str], wanted: set[str]
) -> dict[str, dict[str, Any]]:
    """Rows of an earlier run by hash; none that are to be measured anew."""
    rows = earlier(options.out)
    others = [(name, row[name]) for row in rows for name in SAME if row[name] != settings[name]]
    finished = wanted <= {row["hash"] for row in rows}
    if options.anew and (finished or others) and {name for name, _ in others} <= set(EFFORT):
        return {}
    for name, found in others:
        raise RefusalError(
            f"{options.out} holds results of another run ({name} '{found}', now "
            f"'{settings[name]}'); move it away or write another file"
        )
    return {row["hash"]: row for row in rows}


def earlier(path: str) -> list[dict[str, Any]]:
    """What this script wrote there before."""
    if not os.path.exists(path):
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (lines.fieldnames or ())]
            if missing:
                raise ValueError(f"no column '{missing[0]}'")
            return [{name: row[name] for name in COLUMNS} for row in lines]
    except (OSError, ValueError, csv.Error) as error:
        raise RefusalError(
            f"{path}: was not written by this script ({error}); move it away or write another file"
        ) from error


def write(path: str, probes: list[dict[str, Any]], rows: dict[str, dict[str, Any]]) -> None:
    """All rows so far, in the kit's order; the file is there whole or as it was."""
    staged = path + ".part"
    with open(staged, "w", newline="", encoding="utf-8") as file:
        lines = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        lines.writeheader()
        lines.writerows(rows[probe["hash"]] for probe in probes if probe["hash"] in rows)
    os.replace(staged, path)


def measure(
    group: list[dict[str, Any]], options: argparse.Namespace, settings: dict[str, str]
) -> list[dict[str, Any]]:
    """A row for each graph of a group, timed interleaved."""
    samples: dict[str, list[list[float]]] = {probe["hash"]: [] for probe in group}
    reasons: dict[str, str] = {}
    clock = time.thread_time_ns if settings["clock"] == "thread time" else time.perf_counter_ns
    shuffled = random.Random(0)
    for block in range(BLOCKS):
        calls = {}
        for probe in group if block % 2 == 0 else group[::-1]:
            if probe["hash"] not in reasons:
                try:
                    calls[probe["hash"]] = prepare(probe, options)
                except Exception as error:  # the runtime raises a dozen unrelated types
                    reasons[probe["hash"]] = " ".join(str(error).split())[:300]
        time_rounds(calls, samples, options, clock, shuffled)
    found = [row(probe, samples[probe["hash"]], reasons, settings) for probe in group]
    first, *others = found
    for other in others:
        if first["status"] == other["status"] == "ok":
            middle, noise = estimate(
                subtracted(samples[other["hash"]], samples[first["hash"]]),
                PLACEMENT * float(other["median_ns"]),
            )
            other["against"] = first["hash"]
            other["difference_ns"], other["difference_noise_ns"] = f"{middle:.1f}", f"{noise:.1f}"
    return found


def subtracted(some: list[list[float]], others: list[list[float]]) -> list[list[float]]:
    """Differences of samples, round by round; each list holds those of a block."""
    return [
        [one - other for one, other in zip(ones, counterparts)]  # noqa: B905 (Python 3.8)
        for ones, counterparts in zip(some, others)  # noqa: B905
    ]


def time_rounds(
    calls: dict[str, Callable[[], None]],
    samples: dict[str, list[list[float]]],
    options: argparse.Namespace,
    clock: Callable[[], int],
    shuffled: random.Random,
) -> None:
    """Add a block of samples of each call, in nanoseconds."""
    repeats = {}
    for key, call in calls.items():
        once = min(timed(call, 1, clock) for _ in range(3))
        repeats[key] = max(1, math.ceil(SHORTEST_SAMPLE_NS / max(once, 1)))
    order = list(calls)
    for key in order:
        samples[key].append([])
    deadline = time.monotonic() + options.seconds * len(order) / BLOCKS
    gc.disable()
    try:
        for finished in range(math.ceil(max(options.runs, LEAST_RUNS) / BLOCKS)):
            if finished >= math.ceil(LEAST_RUNS / BLOCKS) and time.monotonic() > deadline:
                break
            shuffled.shuffle(order)
            for key in order:
                samples[key][-1].append(timed(calls[key], repeats[key], clock))
    finally:
        gc.enable()


def timed(call: Callable[[], None], repeats: int, clock: Callable[[], int]) -> float:
    """Nanoseconds of one call."""
    start = clock()
    for _ in range(repeats):
        call()
    return (clock() - start) / repeats


def prepare(probe: dict[str, Any], options: argparse.Namespace) -> Callable[[], None]:
    """A function that runs the graph once; it has run already."""
    chosen = onnxruntime.SessionOptions()
    chosen.log_severity_level = 4
    chosen.intra_op_num_threads = options.threads
    chosen.inter_op_num_threads = 1
    chosen.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        os.path.join(HERE, probe["file"]), chosen, providers=[options.provider], enable_fallback=0
    )
    if options.provider not in session.get_providers():
        raise RuntimeError(f"execution provider {options.provider} does not start here")
    binding = session.io_binding()
    for entry in session.get_inputs():
        binding.bind_cpu_input(entry.name, values(entry))
    for entry in session.get_outputs():
        binding.bind_output(entry.name)

    def call() -> None:
        session.run_with_iobinding(binding)

    call()
    return call


def values(entry: Any) -> Any:
    """Random values for an input."""
    generator = numpy.random.default_rng(0)
    name = entry.type[len("tensor(") : -1]
    kind = numpy.dtype("float32" if name == "float" else name)
    if kind == numpy.bool_:
        return generator.integers(0, 2, entry.shape).astype(kind)
    if kind.kind in "iu":
        bounds = numpy.iinfo(kind)
        # Wide integers may be indices.
        low, high = (int(bounds.min), int(bounds.max)) if kind.itemsize == 1 else (0, 1)
        return generator.integers(low, high, entry.shape, dtype=kind, endpoint=True)
    return numpy.asarray(generator.standard_normal(entry.shape)).astype(kind)


def row(
    probe: dict[str, Any],
    blocks: list[list[float]],
    reasons: dict[str, str],
    settings: dict[str, str],
) -> dict[str, Any]:
    """A line of the CSV."""
    found: dict[str, Any] = dict(settings)
    for name in ("hash", "role", "description"):
        found[name] = probe[name]
    found["features"] = json.dumps(probe["features"], sort_keys=True)
    found["runs"] = sum(map(len, blocks))
    found["reason"] = reasons.get(probe["hash"], "")
    found["status"] = "failed" if found["reason"] else "ok"
    if found["status"] == "ok":
        placement = PLACEMENT * statistics.median(map(statistics.median, blocks))
        middle, noise = estimate(blocks, placement)
        found["median_ns"], found["noise_ns"] = f"{middle:.1f}", f"{noise:.1f}"
    return found


def estimate(blocks: list[list[float]], placement: float) -> tuple[float, float]:
    """The middle of what sessions took, and its noise, in nanoseconds.

    Samples of one session are no independent samples of the graph: how far the sessions' medians
    lie apart is noise as well, and what they have in common by chance.
    """
    medians = [statistics.median(block) for block in blocks]
    _, within = median_interval([sample for block in blocks for sample in block])
    between = (max(medians) - min(medians)) / 2
    return statistics.median(medians), math.sqrt(within**2 + between**2 + placement**2)


def median_interval(samples: list[float]) -> tuple[float, float]:
    """The median, and the half width of its interval at 99 % confidence (order statistics)."""
    ordered = sorted(samples)
    rank = lower_rank(len(ordered))
    middle = statistics.median(ordered)
    return middle, max(middle - ordered[rank], ordered[-1 - rank] - middle)


def lower_rank(count: int) -> int:
    """Index from below and above between which the median lies with 99 % probability."""
    if count > 60:
        return math.floor((count - 2.5758 * math.sqrt(count)) / 2) - 1
    tail, rank = 0.0, 0
    for successes in range(count // 2):
        tail += math.comb(count, successes) / 2**count
        if tail > 0.005:
            break
        rank = successes
    return rank


if __name__ == "__main__":
    main()
