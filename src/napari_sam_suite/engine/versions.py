"""Versions of the packages that results depend on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("napari-sam-suite", "torch", "sam2", "segment-anything", "numpy")


def package_versions(*more: str) -> dict[str, str]:
    """Versions by package, of those that are installed.

    Parameters
    ----------
    *more : str
        Packages besides those that every result depends on.
    """
    found = {}
    for package in (*_PACKAGES, *more):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
