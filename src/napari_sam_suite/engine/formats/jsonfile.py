"""Reading JSON files, for the formats that are JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_sam_suite.engine.errors import ParameterError

if TYPE_CHECKING:
    from pathlib import Path


def parse_json(
    path: Path, hint: str = "Export it again from where it comes from."
) -> Any:
    """Content of a JSON file, with or without a byte order mark.

    Parameters
    ----------
    path : Path
        The file.
    hint : str
        What to do if it is no JSON.

    Raises
    ------
    ParameterError
        If it is missing or no JSON.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if not text.strip():
            raise ParameterError(f"{path.name} is empty.", hint)
        return json.loads(text)
    except OSError as error:
        raise ParameterError(
            f"{path} cannot be read: {error.strerror}.", "Check the name of the file."
        ) from error
    except UnicodeDecodeError as error:
        raise ParameterError(
            f"{path.name} is not valid JSON: it is no text.", hint
        ) from error
    except (ValueError, RecursionError) as error:
        raise ParameterError(
            f"{path.name} is not valid JSON: {error}.", hint
        ) from error
