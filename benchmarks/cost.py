"""What a call costs: seconds of wall clock and of CPU, and memory at its peak."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from scene import Scene


@dataclass
class Cost:
    """What one call took: seconds of wall clock and of CPU, and MiB at its peak."""

    wall: float
    cpu: float
    memory: float


def clock(device: torch.device) -> np.ndarray:
    """Seconds of wall clock and of CPU now, once the device has done all it has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return np.array([time.perf_counter(), time.process_time()])


def measure(
    call: Callable[[], Any], device: torch.device, scene: Scene | None
) -> tuple[Any, Cost]:
    """Run `call` and watch the clock and the memory, the scene's own time left out."""
    before = scene.spent.copy() if scene else np.zeros(2)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    with _Watch() as watch:
        start = clock(device)
        value = call()
        spent = clock(device) - start
    wall, cpu = spent - ((scene.spent if scene else np.zeros(2)) - before)
    peak = watch.peak
    if device.type == "cuda":
        peak = (torch.cuda.max_memory_allocated() - held) / 2**20
    return value, Cost(float(wall), float(cpu), peak)


class _Watch(threading.Thread):
    """Samples this process's resident memory; `peak` is MiB above the start."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._end = threading.Event()
        self._start = self._highest = _resident()

    @property
    def peak(self) -> float:
        return self._highest - self._start

    def __enter__(self) -> _Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()

    def run(self) -> None:
        while not self._end.wait(0.01):
            self._highest = max(self._highest, _resident())


def _resident() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0
