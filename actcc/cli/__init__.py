"""The command line: it parses, calls and renders; it decides nothing."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

import click

from actcc.cli.apply import apply_command
from actcc.cli.cache import cache_group
from actcc.cli.compare import compare_command
from actcc.cli.optimize import optimize_command
from actcc.cli.pareto import pareto_command
from actcc.cli.probe import probe_command
from actcc.cli.rank import rank_command
from actcc.cli.repair import repair_command
from actcc.cli.show import inspect_command, passes_command
from actcc.cli.signals import ended_by_signals
from actcc.cli.targets import targets_command
from actcc.errors import ActccError

_INTERRUPTED = 130
# What the machine refuses; any other OSError is a defect, and shows where.
_OF_THE_MACHINE = {
    getattr(errno, name)
    for name in ("EACCES", "EDQUOT", "EIO", "EMFILE", "ENAMETOOLONG", "ENOSPC", "EPERM", "EROFS")
    if hasattr(errno, name)
}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="actcc")
def cli() -> None:
    """Make an exported ONNX model faster on a device, without training.

    actcc decides place by place which activation stays, which is swapped for a cheaper one or a
    cheaper spelling, from prices of the device and losses measured on your own images. The result
    is verified before it is written, and is never slower than the input.

    \b
    Start here:
      actcc inspect model.onnx --target npu1           where the latency goes
      actcc optimize model.onnx -o fast.onnx           exact rewrites only, no data needed
      actcc optimize model.onnx -o fast.onnx --target npu1 \\
          --calib images/ --preprocess imagenet --max-drop 1%
    """


cli.add_command(optimize_command)
cli.add_command(pareto_command)
cli.add_command(apply_command)
cli.add_command(repair_command)
cli.add_command(compare_command)
cli.add_command(inspect_command)
cli.add_command(rank_command)
cli.add_command(probe_command)
cli.add_command(targets_command)
cli.add_command(passes_command)
cli.add_command(cache_group)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: an error is one line on stderr and exit code 2."""
    try:
        with ended_by_signals():
            cli.main(arguments, standalone_mode=False)
    except ActccError as error:
        _fail(" ".join(str(error).split()), 2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except MemoryError:
        _fail("out of memory; use fewer --workers, fewer --samples or a smaller --shape", 2)
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror}; make room, or choose another file or TMPDIR", 2)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; nothing was written", _INTERRUPTED)
    except click.exceptions.Exit as exit_request:
        sys.exit(exit_request.exit_code)


def _fail(message: str, code: int) -> None:
    click.echo(f"actcc: {message}", err=True)
    sys.exit(code)
