"""Frames through reading, finding and writing, all three at once.

A GPU works on one frame while the next ones are read and the last ones become polygons
and files. On a CPU frames go side by side, each through all of it. Where the model
takes no time, one thread does it all. Only so many frames are under way that memory
does not grow with the run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Protocol

from napari_sam_suite.engine.batch.ahead import Ahead
from napari_sam_suite.engine.batch.pace import Pace
from napari_sam_suite.engine.errors import (
    Cancelled,
    EngineError,
    ModelError,
    OutputError,
)
from napari_sam_suite.engine.finder import Found
from napari_sam_suite.engine.lanes import count_lanes, own_cores, start_lanes
from napari_sam_suite.engine.masks import Masks
from napari_sam_suite.engine.run import find_objects, outline, see_frame
from napari_sam_suite.engine.store.images import told

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from napari_sam_suite.engine.batch.work import ImageWork
    from napari_sam_suite.engine.frames import FrameIndex
    from napari_sam_suite.engine.models.protocol import SamModel
    from napari_sam_suite.engine.run import Listener

logger = logging.getLogger(__name__)

_BEHIND = 3
"""Frames that wait to be written before the device waits for them."""
_WRITERS = 2


@dataclass(frozen=True)
class Look:
    """One frame on its way.

    Attributes
    ----------
    rgb : ndarray of uint8, shape (H, W, 3), optional
        None if nothing can be seen in it.
    error : Exception, optional
        Why it could not be read.
    """

    work: ImageWork
    frame: FrameIndex
    rgb: NDArray[np.uint8] | None = None
    error: Exception | None = None


@dataclass(frozen=True)
class Told:
    """What became of a frame, in a few words that travel well.

    Attributes
    ----------
    image : str
        Its name in the store.
    label : str
        The frame as a person calls it.
    objects : int
        How many there are.
    notices : tuple of str
        What the user should know.
    failure : dict of str, optional
        Message and hint, if it failed.
    again : bool
        It was finished before, and looked at only because others follow from it.
    """

    image: str
    frame: FrameIndex
    label: str
    objects: int = 0
    notices: tuple[str, ...] = ()
    failure: dict[str, str] | None = None
    again: bool = False


class Audience(Protocol):
    """Who is told what becomes of the frames; from any thread."""

    def tell(self, told: Told) -> None:
        """A frame is finished, or has failed."""

    def follow(self, image: str, frame: FrameIndex, part: float, text: str) -> None:
        """A frame is under way: `part` of it is done, from 0 to 1."""


def read_frames(work: ImageWork) -> Iterator[Look]:
    """Read the frames of an image that are to be done, one after the other."""
    for frame in work.todo:
        yield read_frame(work, frame)


def read_frame(work: ImageWork, frame: FrameIndex) -> Look:
    """Read one frame; a failure is in what it gives."""
    try:
        return Look(work, frame, see_frame(work.image, frame, work.record.composite))
    except (EngineError, MemoryError) as error:
        return Look(work, frame, error=error)
    except Exception as error:
        logger.exception("%s cannot be read", frame)
        return Look(work, frame, error=error)


def process(
    model: SamModel, looks: Iterable[Look], job: Listener, audience: Audience
) -> None:
    """Take frames through all stages; one that fails does not stop the others.

    Parameters
    ----------
    model : SamModel
        On its own thread, which is this one. On a CPU this one waits while others use
        the model, as many as `lanes.count_lanes` says.
    looks : iterable of Look
        Read on another thread.
    job : Listener
        Asked whether to stop.
    audience : Audience
        Told of each frame.

    Raises
    ------
    Cancelled
        If the job was stopped. What was found by then is written.
    OutputError
        If results cannot be written, as on a full disk.
    ModelError
        If the model cannot be used at all.
    """
    cores = own_cores(model)
    known: dict[str, int] = {}

    def lanes(look: Look) -> int:
        # Lanes ask too, and these have fewer cores than this thread.
        name = look.work.name
        if name not in known:
            known.clear()
            known[name] = lanes_of(model, look.work, cores)
        return known[name]

    with closing(Ahead(looks)) as ahead:
        line = _Line(model, ahead, job, audience)
        for count, some in groupby(ahead, lanes):
            if count > 1:
                line.side_by_side(count, some)
            else:
                line.in_turn(some)


def lanes_of(model: SamModel, work: ImageWork, cores: int = 0) -> int:
    """How many frames of an image to work on at once; see `lanes.count_lanes`."""
    sizes = work.image.sizes
    return count_lanes(model, work.independent, (sizes.y, sizes.x), cores)


class _Line:
    """The frames of a run on their way from the reader to the store."""

    def __init__(
        self, model: SamModel, ahead: Ahead[Look], job: Listener, audience: Audience
    ) -> None:
        self._model, self._ahead = model, ahead
        self._job, self._audience = job, audience
        self._pace = Pace()

    def in_turn(self, looks: Iterator[Look]) -> None:
        """One frame after the other on the device, those before it in two threads."""
        waiting: deque[Future[None]] = deque()
        with ThreadPoolExecutor(_WRITERS, "sam-writing") as pool:
            try:
                while (look := self._next(looks)) is not None:
                    while len(waiting) > _BEHIND or (waiting and waiting[0].done()):
                        waiting.popleft().result()
                    found = self._find(look)
                    if self._pace.quick:
                        self._finish(look, found)
                    else:
                        waiting.append(pool.submit(self._finish, look, found))
            finally:
                while waiting:
                    waiting.popleft().result()

    def side_by_side(self, count: int, looks: Iterator[Look]) -> None:
        """`count` frames at once, each in a lane of its own from the model to the file.

        As long as they are quick, one lane does them all.
        """
        turn, broken = threading.Lock(), threading.Event()

        def go() -> None:
            try:
                more = True
                while more:
                    with turn:
                        while more := (look := take()) is not None:
                            if not self._pace.quick:
                                break
                            self._finish(look, self._find(look))
                    if look is not None:
                        self._finish(look, self._find(look))
            except BaseException:
                broken.set()
                raise

        def take() -> Look | None:
            return None if broken.is_set() else self._next(looks)

        with start_lanes(count) as lanes:
            for one in as_completed([lanes.submit(go) for _ in range(count)]):
                one.result()

    def _next(self, looks: Iterator[Look]) -> Look | None:
        """The next frame, if there is one."""
        look = next(looks, None)
        if look is not None and self._job.stopping():
            raise Cancelled
        return look

    def _find(self, look: Look) -> Finding:
        found = find(self._model, look, self._job, self._audience)
        if look.rgb is not None and found.found is not None:
            self._pace.heard(found.seconds)
            self._ahead.pause(paused=self._pace.quick)
        return found

    def _finish(self, look: Look, finding: Finding) -> None:
        finish(self._model, look, finding, self._audience)


def do_frame(model: SamModel, look: Look, job: Listener, audience: Audience) -> None:
    """Take one frame through all that follows its reading.

    Raises
    ------
    Cancelled, ModelError, OutputError
        As `process`.
    """
    finish(model, look, find(model, look, job, audience), audience)


@dataclass(frozen=True)
class Finding:
    """What the device said of a frame, or why it could not."""

    found: Found | None = None
    error: Exception | None = None
    seconds: float = 0.0


def find(model: SamModel, look: Look, job: Listener, audience: Audience) -> Finding:
    """Ask the model about one frame.

    Raises
    ------
    Cancelled, ModelError
        Nothing else: all other failures are the frame's own.
    """
    if look.error is not None:
        return Finding(error=look.error)
    start = time.perf_counter()
    work, sizes = look.work, look.work.image.sizes

    def report(done: int, total: int, text: str = "") -> None:
        audience.follow(work.name, look.frame, done / max(total, 1), text)

    if look.rgb is None:
        text = "Nothing can be seen in this frame, so it has no objects."
        return Finding(Found(Masks.empty((sizes.y, sizes.x)), notices=(text,)))
    try:
        found = find_objects(model, look.rgb, work.finder, look.frame, report, job)
    except (Cancelled, ModelError):
        raise
    except (EngineError, MemoryError) as error:
        return Finding(error=error)
    except Exception as error:
        logger.exception("%s failed", look.frame)
        return Finding(error=error)
    return Finding(found, seconds=time.perf_counter() - start)


def finish(model: SamModel, look: Look, finding: Finding, audience: Audience) -> None:
    """Make polygons of what was found, write them, and tell.

    Raises
    ------
    OutputError
        If results cannot be written.
    """
    work, frame = look.work, look.frame
    error = finding.error
    if finding.found is not None:
        try:
            audience.tell(_keep(model, look, finding.found, finding.seconds))
            return
        except OutputError:
            raise
        except (EngineError, MemoryError) as failure:
            error = failure
        except Exception as failure:
            logger.exception("%s failed", frame)
            error = failure
    assert error is not None, "what was not found has a reason"
    again = frame in work.finished
    if not again:
        work.store.fail(frame, told(error))
    label = frame.label(work.image.sizes)
    audience.tell(Told(work.name, frame, label, failure=told(error), again=again))


def _keep(model: SamModel, look: Look, found: Found, seconds: float) -> Told:
    work, frame = look.work, look.frame
    result = outline(
        found,
        frame,
        work.finder,
        model=model.spec.id,
        source=work.source(model),
        naming=work.naming,
    )
    notices = [*found.notices]
    if result.losses:
        notices.append(result.losses.summary())
    objects = work.sort(result.objects)
    again = frame in work.finished
    if not again:
        work.store.write(
            frame,
            objects,
            state=None if found.state is None else found.state(),
            notices=notices,
            seconds=round(seconds, 3),
        )
        if frame in work.failed:
            work.store.forgive(frame)
    label = frame.label(work.image.sizes)
    count = len(objects)
    return Told(work.name, frame, label, count, tuple(notices), again=again)
