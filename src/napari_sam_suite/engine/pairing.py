"""Which labels belong to which image, by their names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WORDS = re.compile(
    r"^(img|image|im|raw|lab|label|labels|mask|masks|gt|truth|seg)[-_. ]+"
    r"|[-_. ](img|image|raw|labels?|masks?|cp_masks|gt|truth|seg|objects)$"
)
_LABEL_WORDS = re.compile(
    r"^(lab|label|labels|mask|masks|gt|truth|seg)[-_. ]"
    r"|[-_. ](labels?|masks?|cp_masks|gt|truth|seg|objects)$"
)


def is_label_name(name: str) -> bool:
    """Whether a name without its ending says that it is of labels."""
    return bool(_LABEL_WORDS.search(name))


def label_stem(name: str) -> str:
    """A name without the words that say it is of labels."""
    return _LABEL_WORDS.sub("", name) or name


def short_name(name: str) -> str:
    """A name without the usual words, such as ``img`` and ``cp_masks``."""
    before = ""
    while name != before:
        before, name = name, _WORDS.sub("", name)
    return name.casefold()


def pair_names(images: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """Which labels belong to which image, by name without the usual words.

    An equal name comes first. Names that would fit several are not paired.
    """
    pairs = {name: name for name in images if name in labels}
    fitting = _by_short(name for name in labels if name not in pairs)
    for short, alike in _by_short(name for name in images if name not in pairs).items():
        if len(alike) == len(fitting.get(short, ())) == 1:
            pairs[alike[0]] = fitting[short][0]
    return pairs


def _by_short(names: Iterable[str]) -> dict[str, list[str]]:
    short: dict[str, list[str]] = {}
    for name in names:
        short.setdefault(short_name(name), []).append(name)
    return short
