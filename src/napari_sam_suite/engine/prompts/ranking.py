"""Which output tokens a prompt is asked with, and which answer comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sam_suite.engine.guidance import blend, unlike
from napari_sam_suite.engine.models.protocol import EVERY, MULTIMASK, SINGLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam_suite.engine.prompts.params import PromptParams
    from napari_sam_suite.engine.prompts.prompt import Prompt

ANSWERS = 3
"""How many answers a prompt has at most."""


def tokens_for(prompt: Prompt, params: PromptParams, guided: bool) -> tuple[int, ...]:
    """Output tokens to ask for: what to give, and what to choose it from."""
    if prompt.ambiguous:
        return EVERY if guided and not prompt.whole else MULTIMASK
    several = params.answers == "all" or prompt.level is not None
    return EVERY if several else SINGLE


def rank(
    prompt: Prompt,
    logits: NDArray[np.float32],
    scores: NDArray[np.float32],
    params: PromptParams,
) -> NDArray[np.intp]:
    """Places of the answers to give, the best first.

    Where all four tokens were asked for, the first is the single answer to a clear
    prompt. To a click of a guided model it becomes, in place, the mean of all four, and
    those least like it follow. Otherwise the predicted IoU says.

    Parameters
    ----------
    prompt : Prompt
        What was asked.
    logits : ndarray, shape (tokens, low, low), float32
        Its answers.
    scores : ndarray, shape (tokens,), float32
        Their predicted IoU.
    params : PromptParams
        How many to give.
    """
    order = np.argsort(-scores, kind="stable")
    if len(scores) == len(EVERY):
        rest = order[order > 0]
        if prompt.ambiguous:
            logits[0], scores[0] = blend(logits, scores)
            rest = 1 + unlike(logits[0] > 0, logits[1:] > 0)
        order = np.concatenate([[0], rest])
    return order if prompt.level is not None else order[: how_many(params)]


def how_many(params: PromptParams) -> int:
    """How many answers are to be given."""
    return ANSWERS if params.answers == "all" else 1
