"""Exceptions of actcc. Each message says what is wrong, where, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class ActccError(Exception):
    """Base of every error that actcc raises on purpose; the command line exits with 2 on it."""


class ModelError(ActccError):
    """The model cannot be read, is not valid ONNX, or uses something that is not supported."""


class PricingError(ModelError):
    """A target cannot price or time a model that is valid otherwise; it is left as it is."""


class DataError(ActccError):
    """Calibration or evaluation data is missing or does not fit the model's inputs."""


class TargetError(ActccError):
    """A target is unknown, its profile is not valid, or its backend is not installed."""


class BudgetError(ActccError):
    """A budget cannot be understood (`--max-drop`, `--max-latency`, `--max-memory`)."""


class CacheError(ActccError):
    """The cache of prices cannot be read or cleared."""


class SearchError(ActccError):
    """A search strategy is unknown, or the library that it needs is not installed."""


class PlotError(ActccError):
    """A plot cannot be drawn: an unknown format, or the library that it needs is not installed."""


class PassError(ActccError):
    """A pass broke a promise: an edit left the graph invalid, or a registration is refused."""


class RepairError(ActccError):
    """A repair cannot be run: a setting makes no sense, or the library it needs is missing."""


class PlanError(ActccError):
    """A plan cannot be read, or does not belong to the model it is applied to."""


class InfeasibleError(ActccError):
    """No plan meets all budgets.

    Attributes:
        nearest: for each budget the nearest value that can be reached while the others hold,
            keyed `max_cost_ns`, `max_loss_ppm`, `max_peak_bytes`, `max_size_bytes`.
    """

    def __init__(self, message: str, nearest: Mapping[str, int] | None = None) -> None:
        super().__init__(message)
        self.nearest: dict[str, int] = dict(nearest or {})


def require_known(
    option: str, kind: str, name: str, known: Iterable[str], error: type[ActccError]
) -> str:
    """The name itself.

    Raises:
        ActccError: of the type `error`; nothing of that kind is called so.
    """
    names = tuple(known)
    if name not in names:
        raise error(f"{option}: there is no {kind} '{name}'; use one of: {', '.join(names)}")
    return name
