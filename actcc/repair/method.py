"""How networks are repaired: the choice that `--repair` makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actcc.calibration import SampleSet
from actcc.effort import REPAIR_METHODS
from actcc.errors import RepairError
from actcc.graph import Graph
from actcc.progress import Advance
from actcc.repair.sequential import DEFAULT_MEMORY, Repaired, repair

# More change little: what is missing then is not data.
MOST_SAMPLES = 64
DISTILL_SECONDS = 60.0


@dataclass(frozen=True)
class RepairMethod:
    """A way to repair.

    Attributes:
        name: one of `REPAIR_METHODS`.
        memory_bytes: of tensors that are held between layers; more is put on disk.
        distill_seconds: wall time of the fine-tune behind the closed form, for each network.
    """

    name: str = REPAIR_METHODS[0]
    memory_bytes: int = DEFAULT_MEMORY
    distill_seconds: float = DISTILL_SECONDS

    def __post_init__(self) -> None:
        if self.name not in REPAIR_METHODS:
            known = ", ".join(REPAIR_METHODS)
            raise RepairError(f"--repair: there is no method '{self.name}'; use one of: {known}")
        if self.memory_bytes < 2**20:
            raise RepairError("--repair-memory: less than 1 MiB holds no layer; give more")

    @property
    def settings(self) -> dict[str, str]:
        """What decides what comes out, for a plan; `from_settings` reads it back."""
        return {"repair": self.name, "repair_memory": str(self.memory_bytes)}

    @classmethod
    def from_settings(cls, settings: Mapping[str, str]) -> RepairMethod:
        """The method of a plan's settings."""
        return cls(
            settings.get("repair", "none"), int(settings.get("repair_memory", DEFAULT_MEMORY))
        )

    def check(self) -> RepairMethod:
        """The method itself.

        Raises:
            RepairError: what it needs is not installed.
        """
        if self.name == "distill":
            from actcc.repair.distill import require_torch

            require_torch()
        return self

    def run(
        self,
        original: Graph,
        rewritten: Graph,
        samples: SampleSet,
        *,
        seed: int = 0,
        threads: int | None = None,
        advance: Advance = lambda: None,
    ) -> Repaired:
        """Repair a network, in closed form and then by distillation where that was chosen.

        Raises:
            ActccError: a network cannot be run, or there are no samples.
        """
        chosen = samples.take(MOST_SAMPLES)
        repaired = repair(
            original,
            rewritten,
            chosen,
            memory_bytes=self.memory_bytes,
            seed=seed,
            threads=threads,
            advance=advance,
        )
        if self.name != "distill":
            return repaired
        from actcc.repair.distill import distill

        tuned = distill(
            original, repaired.graph, chosen, time_limit_s=self.distill_seconds, seed=seed
        )
        return repaired.but(tuned.graph, tuned.seconds)
