"""What a profile of an Ethos-U says: which accelerator, in which system, with which memories."""

from __future__ import annotations

import configparser
import hashlib
import json
from importlib import util
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from actcc.errors import TargetError
from actcc.latency_models import Profile, checked_settings


class EthosUSettings(BaseModel):
    """The section `[settings]` of a profile with `backend = "ethos-u"`; names are Vela's.

    Attributes:
        accelerator: device and multiply-accumulates per cycle, such as "ethos-u55-256".
        system_config: clock and memories, a section `System_Config.…` of the configuration.
        memory_mode: what lies in which memory, a section `Memory_Mode.…` of the configuration.
        config: an .ini file: one that comes with Vela, as "Arm/vela.ini", or a path that starts
            at the profile's folder.
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

    @property
    def digest(self) -> str:
        """A hash of all settings, and of what the configuration file says."""
        values = {**self.model_dump(), "config": Path(self.config).read_text(encoding="utf-8")}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def ethos_u_settings(profile: Profile) -> EthosUSettings:
    """The settings of a profile, checked; `config` is the file's absolute path.

    Raises:
        TargetError: one is missing, unknown or of another kind, or the configuration file is not
            there or no .ini file.
    """
    found = checked_settings(EthosUSettings, profile)
    place = _config_file(found.config, profile)
    try:
        configparser.ConfigParser().read_string(place.read_text(encoding="utf-8"), str(place))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        raise TargetError(
            f"profile '{profile.name}': [settings] 'config': {place} cannot be read "
            f"({error}); give an .ini file for Vela"
        ) from error
    return found.model_copy(update={"config": str(place)})


def _config_file(name: str, profile: Profile) -> Path:
    """The configuration file that a profile names.

    Raises:
        TargetError: there is none.
    """
    vela = util.find_spec("ethosu")
    folders = [] if vela is None else list(vela.submodule_search_locations or ())
    places = [Path(folder) / "config_files" / name for folder in folders]
    places.append((profile.folder or Path()) / name)
    for place in places:
        if place.suffix == ".ini" and place.is_file():
            return place.resolve()
    raise TargetError(
        f"profile '{profile.name}': [settings] 'config': there is no .ini file {places[-1]}, and "
        f"none '{name}' comes with Vela; give a path from the profile's folder"
    )
