"""A small live plot: the loss, and what validation says, epoch by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtGui import QPaintEvent

_COLOURS = {"loss": "#e69f00", "IoU": "#56b4e9", "F1": "#009e73"}
"""Told apart by those who do not see all colours (Okabe and Ito 2008)."""
_LEFT, _TOP, _RIGHT, _BOTTOM = 30, 20, 8, 18
_STEPS = 4


class Curves(QWidget):
    """Loss, IoU and F1 over the epochs.

    IoU and F1 have the axis from 0 to 1; the loss is drawn between its own smallest and
    largest value, since only its course tells anything.
    """

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumHeight(140)
        self.setSizePolicy(
            QSizePolicy.Policy.Expanding, QSizePolicy.Policy.MinimumExpanding
        )
        self.values: dict[str, list[float]] = {}
        self._best = 0
        self.forget()

    def forget(self) -> None:
        """Begin with an empty plot."""
        self.values = {name: [] for name in _COLOURS}
        self._best = 0
        self.setToolTip("")
        self.update()

    def add(self, *, loss: float, iou: float, f1: float, best: bool) -> None:
        """Draw one more epoch; the first is the model before training, without loss."""
        for name, value in zip(_COLOURS, (loss, iou, f1), strict=True):
            self.values[name].append(value)
        if best:
            self._best = len(self.values["F1"]) - 1
        self.setToolTip(f"The dashed line is the best epoch, {self._best}.")
        self.update()

    def paintEvent(self, _: QPaintEvent | None) -> None:
        """Draw axes, curves and their names."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(self.rect()).adjusted(_LEFT, _TOP, -_RIGHT, -_BOTTOM)
        text = self.palette().text().color()
        self._draw_axes(painter, area, text)
        place = float(_LEFT)
        for name, colour in _COLOURS.items():
            painter.setPen(QPen(QColor(colour), 2))
            painter.drawPolyline(self._curve(name, area))
            painter.drawText(QPointF(place, _TOP - 7.0), name)
            place += 44
        painter.end()

    def _draw_axes(self, painter: QPainter, area: QRectF, text: QColor) -> None:
        faint = QColor(text)
        faint.setAlpha(60)
        for step in range(_STEPS + 1):
            y = area.bottom() - area.height() * step / _STEPS
            painter.setPen(QPen(faint, 1))
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(text)
            painter.drawText(QPointF(2.0, y + 4), f"{step / _STEPS:.2g}")
        last = len(self.values["F1"]) - 1
        painter.drawText(QPointF(area.left(), area.bottom() + 14), "epoch 0")
        if last > 0:
            painter.drawText(QPointF(area.right() - 22, area.bottom() + 14), str(last))
            x = area.left() + area.width() * self._best / last
            painter.setPen(QPen(text, 1, Qt.PenStyle.DashLine))
            painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()))

    def _curve(self, name: str, area: QRectF) -> QPolygonF:
        values = self.values[name]
        shown = _between_0_and_1(values) if name == "loss" else values
        step = area.width() / max(1, len(values) - 1)
        return QPolygonF(
            [
                QPointF(area.left() + k * step, area.bottom() - area.height() * value)
                for k, value in enumerate(shown)
                if np.isfinite(value)
            ]
        )


def _between_0_and_1(values: Sequence[float]) -> list[float]:
    finite = [v for v in values if np.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    return [(v - low) / (high - low or 1.0) * 0.9 + 0.05 for v in values]
