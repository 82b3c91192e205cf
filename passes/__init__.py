"""The built-in passes: one rewrite a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actcc.rewrite import Pass

BUILT_IN: tuple[type[Pass], ...] = ()
