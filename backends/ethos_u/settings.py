"""What a profile of an Ethos-U says: which accelerator, in which system, with which memories."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from actcc.latency_models import Profile, checked_settings


class EthosUSettings(BaseModel):
    """The section `[settings]` of a profile with `backend = "ethos-u"`; names are Vela's.

    Attributes:
        accelerator: device and multiply-accumulates per cycle, such as "ethos-u55-256".
        system_config: clock and memories, a section `System_Config.…` of the configuration.
        memory_mode: what lies in which memory, a section `Memory_Mode.…` of the configuration.
        config: an .ini file; a name with one folder, as "Arm/vela.ini", is one that comes with
            Vela.
        optimise: whether Vela spares time or memory.
        arena_cache_bytes: of the memory mode; None for what the configuration says.
        time_limit_s: for one compilation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    accelerator: str = Field(pattern=r"^ethos-u\d+-\d+$")
    system_config: str = Field(min_length=1)
    memory_mode: str = Field(min_length=1)
    config: str = "Arm/vela.ini"
    optimise: Literal["Performance", "Size"] = "Performance"
    arena_cache_bytes: int | None = Field(default=None, gt=0)
    time_limit_s: float = Field(default=600.0, gt=0)

    @property
    def arguments(self) -> list[str]:
        """The settings as arguments of Vela's command line."""
        found = [
            *("--accelerator-config", self.accelerator),
            *("--config", self.config),
            *("--system-config", self.system_config),
            *("--memory-mode", self.memory_mode),
            *("--optimise", self.optimise),
        ]
        if self.arena_cache_bytes is not None:
            found += ["--arena-cache-size", str(self.arena_cache_bytes)]
        return found


def ethos_u_settings(profile: Profile) -> EthosUSettings:
    """The settings of a profile, checked.

    Raises:
        TargetError: one is missing, unknown or of another kind.
    """
    return checked_settings(EthosUSettings, profile)
