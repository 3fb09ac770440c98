"""Frames side by side on a CPU: threads with few cores each, which share one model.

Torch splits every operation over all cores and waits for the slowest at its end,
thousands of times a frame. Where there are many frames, each on a core of its own is
faster, and reading, outlines and files of one fall into the work on another. Where
other programs want the cores too it is faster by far: threads that wait for each other
burn the time in which the others could have been done.
"""

from __future__ import annotations

import ctypes
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from napari_sam_suite.engine.models.protocol import SamModel

MOST = 8
"""Lanes at most: more would wait for Python's own lock; they get more cores instead."""
_ALLOCATOR = {-1: 2**28, -3: 2**25}
"""glibc's ``M_TRIM_THRESHOLD`` and ``M_MMAP_THRESHOLD``, in bytes."""
_PIXEL = 40
"""Bytes that a frame takes for each of its pixels, from its planes to its labels."""
_FRAMES = 2**30
"""Bytes that the pixels of all frames under way may take."""
_SHARE = 4
"""The model may work in one part in so many of the machine's memory."""
_UNKNOWN = 2.0
"""Memory of a model that does not tell, in 10^9 bytes."""


def count_lanes(
    model: SamModel,
    frames: int,
    shape: tuple[int, int],
    cores: int = 0,
    *,
    memory: float = 1.0,
) -> int:
    """How many frames to work on at once.

    It does not depend on what of a run is done already: sums over several cores are
    rounded otherwise than over one, and a run that goes on shall end like an unbroken
    one.

    Parameters
    ----------
    model : SamModel
        One on a GPU, or one that is not on torch and has threads of its own, takes one
        frame at a time.
    frames : int
        Frames of the run that do not follow from each other.
    shape : (int, int)
        Height and width of a frame. Large ones are fewer at once: together they take
        1 GiB at most, or are alone.
    cores : int
        To be used at least, where torch was told of fewer.
    memory : float
        Of a lane, over that of a model that answers prompts.
    """
    if frames < 2 or not _shares(model):
        return 1
    largest = _FRAMES // (_PIXEL * shape[0] * shape[1])
    each = 1e9 * memory * (model.spec.memory or _UNKNOWN)
    room = int(psutil.virtual_memory().total / _SHARE / each)
    return max(1, min(MOST, _cores(cores), frames, largest, room))


def own_cores(model: SamModel) -> int:
    """Cores that the model uses in the calling thread, for `count_lanes` in others.

    0 if they are of no matter for it.
    """
    return _cores(0) if _shares(model) else 0


def start_lanes(count: int, cores: int = 0) -> ThreadPoolExecutor:
    """Threads that share the cores that torch uses in the calling thread.

    A model on a CPU answers several of them at once. Whoever owns it leaves it where it
    is meanwhile.

    Parameters
    ----------
    count : int
        How many threads.
    cores : int
        To be used at least, where torch was told of fewer.
    """
    import torch

    mine, share = torch.get_num_threads(), max(1, _cores(cores) // count)
    ready = threading.Barrier(count + 1)

    def begin() -> None:
        # The first question or operation of a thread gives it the number that any
        # thread has set last: it comes before its own is set.
        torch.get_num_threads()
        torch.set_num_threads(share)
        ready.wait()

    keep_memory()
    lanes = ThreadPoolExecutor(count, "sam-lane")
    for _ in range(count):
        lanes.submit(begin)
    ready.wait()
    # For threads of others that begin later.
    torch.set_num_threads(mine)
    return lanes


def keep_memory() -> None:
    """Let what one frame gives back be there for the next, where the system is Linux.

    Else the system makes the pages of many tensors anew, while the other lanes wait. In
    Dask's workers, which return memory at once (``MALLOC_TRIM_THRESHOLD_``), that takes
    as long as the model. For the rest of the process.
    """
    with suppress(AttributeError, OSError, TypeError):
        allocator = ctypes.CDLL(None)
        for name, value in _ALLOCATOR.items():
            allocator.mallopt(name, value)


def _shares(model: SamModel) -> bool:
    """Whether several threads may use a model at once, each with cores of its own."""
    return model.device.type == "cpu" and model.spec.runtime == "torch"


def _cores(least: int) -> int:
    import torch

    return max(torch.get_num_threads(), least)
