"""npu1 and npu2 against Vela on a small network; docs/analytic-npus.md has the large ones."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ethosu", reason="needs the extra 'ethos-u'")

from fit_npu_profiles import COMPILED, network, variants

from actcc.targets import load_target


@pytest.mark.parametrize("profile", list(COMPILED))
def test_totals_agree_with_vela_within_a_tenth(profile: str) -> None:
    analytic = load_target(profile).backend
    compiled = load_target(COMPILED[profile]).backend
    found = dict(variants(network("fashion_mnist", Path())))
    for name in ("as is", "ReLU"):
        (own,) = analytic.time_models([found[name]])
        (vela,) = compiled.time_models([found[name]])
        assert own.latency_ns == pytest.approx(vela.latency_ns, rel=0.1), name
