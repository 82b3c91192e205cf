"""Whatever the backend, a setting that does not fit is refused in the same words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from actcc.backends.ethos_u.settings import EthosUSettings
from actcc.backends.onnx_session import Settings
from actcc.backends.openvino_model import OpenVinoSettings
from actcc.backends.table import TableSettings
from actcc.errors import TargetError
from actcc.latency_models import Profile, checked_settings
from actcc.latency_models.npu_settings import NpuSettings


@pytest.mark.parametrize(
    "kind", [EthosUSettings, NpuSettings, OpenVinoSettings, Settings, TableSettings]
)
def test_a_setting_that_does_not_fit_is_refused_by_its_place(kind: type[BaseModel]) -> None:
    profile = Profile(name="mine", description="", backend="any", settings=unfit(kind))
    with pytest.raises(TargetError) as refused:
        checked_settings(kind, profile)
    name = next(iter(profile.settings))
    assert str(refused.value).startswith(f"target 'mine': 'settings.{name}': ")
    assert str(refused.value).endswith("; correct the profile, see docs/targets.md")


def unfit(kind: type[BaseModel]) -> dict[str, Any]:
    """A list fits no first field."""
    return {next(iter(kind.model_fields)): []}
