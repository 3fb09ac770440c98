"""A web server for one folder, on this machine only."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from napari_sam_suite.engine.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

ADDRESS = "127.0.0.1"


class _Files(SimpleHTTPRequestHandler):
    """Files with the types and headers that WebAssembly wants."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        """Let the page use several threads, and see a new export at once."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing of each file."""


@contextmanager
def serving(folder: Path | str, port: int = 0) -> Iterator[str]:
    """Serve a folder to browsers on this machine, within the block.

    Parameters
    ----------
    folder : path
        What is served.
    port : int
        0 takes any that is free.

    Yields
    ------
    str
        Address of the folder's page.

    Raises
    ------
    OutputError
        If the port is taken.
    """
    handler = partial(_Files, directory=str(Path(folder)))
    try:
        server = ThreadingHTTPServer((ADDRESS, port), handler)
    except (OSError, OverflowError) as error:
        raise OutputError(
            f"The port {port} cannot be used ({error}).",
            "Choose another `port`; 0 takes any that is free.",
        ) from error
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, name="sam-page", daemon=True)
    thread.start()
    try:
        yield f"http://{ADDRESS}:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()
