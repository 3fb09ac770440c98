"""Progress of work that has several parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sam_suite.engine.finder import Report

_STEPS = 1000


def part_of(report: Report, index: int, count: int) -> Report:
    """Where part `index` of `count` equal ones reports; it never runs back."""

    def tell(done: int, total: int, text: str) -> None:
        share = round(_STEPS * done / max(total, 1))
        report(index * _STEPS + share, count * _STEPS, text)

    return tell
