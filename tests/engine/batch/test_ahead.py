"""Reading ahead, or just in time; and when one thread does it all."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from napari_sam_suite.engine.batch.ahead import Ahead
from napari_sam_suite.engine.batch.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Iterator


def named(count: int) -> Iterator[tuple[int, str]]:
    """Numbers, and in which thread they were read."""
    for number in range(count):
        yield number, threading.current_thread().name


def wait_until(condition: object) -> None:
    end = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.001)


def test_items_come_in_their_order_from_a_thread_of_their_own() -> None:
    ahead = Ahead(named(20))
    assert list(ahead) == [(n, "sam-reading") for n in range(20)]
    assert list(ahead) == [], "and the end stays the end"
    ahead.close()


def test_whoever_takes_an_item_reads_it_while_reading_ahead_is_paused() -> None:
    ahead = Ahead(named(60))
    here = threading.current_thread().name
    taken = [next(ahead)]
    ahead.pause()
    taken += [next(ahead) for _ in range(9)]
    assert [thread for _, thread in taken[-5:]] == [here] * 5
    ahead.pause(paused=False)
    taken += [next(ahead) for _ in range(10)]
    assert [thread for _, thread in taken[-5:]] == ["sam-reading"] * 5
    for turn in range(40):
        ahead.pause(paused=turn % 2 == 0)
        taken.append(next(ahead))
    assert [number for number, _ in taken] == list(range(60)), "none lost, none twice"
    assert next(ahead, None) is None
    ahead.close()


def test_only_so_many_items_are_read_before_their_turn() -> None:
    read: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            read.append(number)
            yield number

    ahead = Ahead(items(), most=2)
    wait_until(lambda: len(read) == 3)
    ahead.pause()
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.05)
    assert len(read) == 3
    ahead.close()


@pytest.mark.parametrize("paused", [False, True])
def test_what_goes_wrong_while_reading_is_told_to_who_takes_the_item(
    paused: bool,
) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("the disk is gone")

    ahead = Ahead(items())
    ahead.pause(paused=paused)
    with pytest.raises(OSError, match="gone"):
        list(ahead)
    assert list(ahead) == []
    ahead.close()


def test_closing_ends_the_thread_however_far_it_is() -> None:
    for paused in (False, True):
        ahead = Ahead(named(100))
        next(ahead)
        ahead.pause(paused=paused)
        ahead.close()
        assert not ahead._thread.is_alive()


def test_one_thread_does_it_all_only_where_the_model_takes_no_time() -> None:
    pace = Pace()
    for _ in range(20):
        pace.heard(0.001)
    assert pace.quick
    pace.heard(0.5)
    pace.heard(0.001)
    assert pace.quick, "one pause of the machine is no reason"
    for _ in range(4):
        pace.heard(0.5)
    assert not pace.quick
    for _ in range(20):
        pace.heard(0.001)
        pace.heard(0.5)
        assert not pace.quick, "every other frame is worth a thread"
