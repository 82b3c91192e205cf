"""One small model of each kind that exporters write, by name, for `test_model_kinds`."""

from __future__ import annotations

import control_flow_kinds
import interface_kinds
import precision_kinds
from kind_models import Kinds

KINDS: Kinds = {**precision_kinds.KINDS, **interface_kinds.KINDS, **control_flow_kinds.KINDS}
