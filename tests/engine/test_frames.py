from __future__ import annotations

import numpy as np
import pytest

from napari_sam_suite.engine.errors import FrameError
from napari_sam_suite.engine.frames import (
    PANEL_FIELDS,
    FrameIndex,
    Sizes,
    format_selection,
    parse_selection,
    resolve_frames,
    select_frames,
)

SIZES = Sizes(position=3, time=4, z=2, channel=1, y=8, x=8)


def parse(text: object, size: int = 10, current: int | None = 4) -> list[int]:
    return parse_selection(text, size, field="Batch Z", current=current)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, [4]),
        ("", [4]),
        ("   ", [4]),
        (",", [4]),
        ("1-3, 5-8", [0, 1, 2, 4, 5, 6, 7]),
        ("5-8,1-3", [0, 1, 2, 4, 5, 6, 7]),
        ("3", [2]),
        ("2-2", [1]),
        ("all", list(range(10))),
        (" ALL ", list(range(10))),
        ("1-3,2-5", [0, 1, 2, 3, 4]),
        ("1,,2", [0, 1]),
        ("1 - 3", [0, 1, 2]),
        ("1,1,1", [0]),
        ("10", [9]),
        ("007", [6]),
        (3, [2]),
    ],
)
def test_a_selection_is_read_as_sorted_zero_based_indices(
    text: object, expected: list[int]
) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize("text", [None, "", " ", ",", ", ,"])
def test_blank_means_everything_where_nothing_is_current(text: str | None) -> None:
    assert parse(text, size=3, current=None) == [0, 1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "0-2",
        "99",
        "1-99",
        "99999999999-999999999999",
        "9" * 5000,
        "3-1",
        "1-",
        "-3",
        "-1-2",
        "-",
        "a",
        "2.5",
        "1;3",
        "all,1",
        "1-2-3",
        "\u0661",
        "1e1",
        "+2",
    ],
)
def test_a_wrong_selection_names_field_text_and_valid_span(text: str) -> None:
    with pytest.raises(FrameError) as caught:
        parse(text)
    assert "Batch Z" in caught.value.message
    assert repr(text) in caught.value.message
    assert "1-10" in caught.value.hint


@pytest.mark.parametrize("value", ["1 2", True, False, 2.0, [1], 0, 11, -1])
def test_other_values_are_refused_too(value: object) -> None:
    with pytest.raises(FrameError, match="Batch Z"):
        parse(value)


def test_a_single_entry_is_explained_without_a_range() -> None:
    assert parse("1", size=1, current=None) == [0]
    with pytest.raises(FrameError, match="only 1 here"):
        parse("2", size=1)


@pytest.mark.parametrize("size", range(2, 9))
def test_the_example_in_the_hint_is_itself_valid(size: int) -> None:
    with pytest.raises(FrameError) as caught:
        parse("x", size=size, current=0)
    example = caught.value.hint.split("'")[1]
    assert len(parse(example, size=size)) >= 2


def test_blank_with_a_current_entry_outside_the_image_is_an_error() -> None:
    with pytest.raises(FrameError, match=r"current entry, 6, does not exist"):
        parse("", size=5, current=5)


def test_formatting_joins_runs() -> None:
    assert format_selection([0, 1, 2, 4]) == "1-3, 5"
    assert format_selection([4, 2, 2, 3, 9]) == "3-5, 10"
    assert format_selection([]) == ""


def test_formatted_selections_read_back_as_written() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        indices = sorted({int(i) for i in rng.integers(0, 20, rng.integers(1, 15))})
        assert parse(format_selection(indices), size=20) == indices


def test_time_runs_fastest_then_z_then_position() -> None:
    frames = select_frames(SIZES, "2-3", "all", "1,4")
    assert frames == [
        FrameIndex(position=p, time=t, z=z)
        for p in (1, 2)
        for z in (0, 1)
        for t in (0, 3)
    ]


def test_blank_fields_stay_on_the_current_frame() -> None:
    current = FrameIndex(position=2, time=3, z=1)
    assert select_frames(SIZES, current=current) == [current]
    assert select_frames(SIZES, time="1-2", current=current) == [
        FrameIndex(2, 0, 1),
        FrameIndex(2, 1, 1),
    ]


def test_blank_fields_cover_the_image_where_nothing_is_current() -> None:
    frames = select_frames(SIZES)
    assert len(frames) == len(set(frames)) == SIZES.frame_count == 24


def test_errors_use_the_names_of_the_door_they_came_through() -> None:
    with pytest.raises(FrameError, match="Batch XY"):
        select_frames(SIZES, "9", fields=PANEL_FIELDS)
    with pytest.raises(
        FrameError, match=r"^time: there is no 9.* leave time out"
    ) as it:
        select_frames(SIZES, time="9")
    assert "leave --time out" in it.value.worded(lambda name: f"--{name}")[1]


def test_only_a_box_that_can_be_blank_is_said_to_be_blank() -> None:
    with pytest.raises(FrameError) as in_panel:
        parse("x", size=5, current=0)
    with pytest.raises(FrameError) as elsewhere:
        parse("x", size=5, current=None)
    assert "blank means the current one" in in_panel.value.hint
    assert "blank" not in elsewhere.value.hint


def test_scripts_ask_for_frames_by_word_index_or_list() -> None:
    here = FrameIndex(1, 1, 1)
    assert resolve_frames(SIZES, "all") == select_frames(SIZES)
    assert resolve_frames(SIZES, "current", current=here) == [here]
    assert resolve_frames(SIZES, "current") == [FrameIndex(0, 0, 0)]
    assert resolve_frames(SIZES, here) == [here]
    assert resolve_frames(SIZES, [here, FrameIndex(), here]) == [here, FrameIndex()]
    assert resolve_frames(SIZES, [(0, np.int64(3), 1)]) == [FrameIndex(0, 3, 1)]


@pytest.mark.parametrize(
    "frames",
    [
        "1-3",
        None,
        0,
        [],
        FrameIndex(3, 0, 0),
        FrameIndex(0, 0, -1),
        [FrameIndex(0, 4, 0)],
        [(0, 0)],
        [(0, 0.5, 0)],
        [(0, "a", 0)],
        [0],
    ],
)
def test_frames_outside_the_image_are_refused(frames: object) -> None:
    with pytest.raises(FrameError):
        resolve_frames(SIZES, frames)


def test_labels_count_from_one_and_name_only_real_choices() -> None:
    assert FrameIndex(1, 2, 0).label(SIZES) == "position 2 of 3, z 1 of 2, time 3 of 4"
    assert FrameIndex(0, 2, 0).label(Sizes(time=5)) == "time 3 of 5"
    assert FrameIndex().label(Sizes()) == "the only frame"
