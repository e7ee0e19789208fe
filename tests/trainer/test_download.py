"""Downloads, from a server on this machine in place of the real ones."""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pooch
import pytest

from trainer import load_data
from trainer.download import SOURCES, Source

SHAPES = {
    "train-images-idx3-ubyte.gz": (6, 28, 28),
    "train-labels-idx1-ubyte.gz": (6,),
    "t10k-images-idx3-ubyte.gz": (4, 28, 28),
    "t10k-labels-idx1-ubyte.gz": (4,),
}
FIRST, *_, LAST = SHAPES


def packed(shape: tuple[int, ...]) -> bytes:
    values = (np.arange(np.prod(shape)) % 10).astype(np.uint8)
    return gzip.compress(
        bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape) + values.tobytes()
    )


class Handler(BaseHTTPRequestHandler):
    """Answers with the site's files, and notes what it was asked for."""

    def __init__(self, site, *arguments):
        self.site = site
        super().__init__(*arguments)

    def do_GET(self):  # http.server's name
        file = self.path.removeprefix("/data/")
        self.site.requests.append(file)
        if file not in self.site.files:
            self.send_error(404)
            return
        content = self.site.files[file]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.site.cut])

    def log_message(self, *arguments):
        """Nothing: the tests' output is not the place."""


class Site:
    """A server's files, and the requests it has had."""

    def __init__(self):
        self.files = {file: packed(shape) for file, shape in SHAPES.items()}
        self.checksums = {file: hashlib.md5(content).hexdigest() for file, content in self.files.items()}
        self.requests: list[str] = []
        self.cut: int | None = None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, self))
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self.server.server_port}/data/"
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def site(monkeypatch):
    site = Site()
    for name in SOURCES:
        monkeypatch.setitem(SOURCES, name, Source(site.url, site.checksums))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("CONVBENCH_DATA", raising=False)
    yield site
    site.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / project)
    return tmp_path / "convbench"


def files(folder):
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_sources():
    for source in SOURCES.values():
        assert list(source.checksums) == list(SHAPES)
        assert all(re.fullmatch("[0-9a-f]{32}", checksum) for checksum in source.checksums.values())
        assert source.url.endswith("/")
    assert len({checksum for source in SOURCES.values() for checksum in source.checksums.values()}) == 8


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_download(site, cache, name, capfd):
    data = load_data(name)
    assert data.train_images.shape == (6, 1, 28, 28)
    assert data.test_images.shape == (4, 1, 28, 28)
    assert data.train_labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert data.test_labels.tolist() == [0, 1, 2, 3]
    assert site.requests == list(SHAPES)
    assert files(cache / name) == set(SHAPES)
    assert capfd.readouterr() == ("", "")  # no terminal, no progress


def test_second_load_asks_nobody(site, cache):
    first = load_data("mnist")
    site.requests.clear()
    second = load_data("mnist")
    assert site.requests == []
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_only_what_is_missing_or_broken_is_downloaded(site, cache):
    load_data("mnist")
    site.requests.clear()
    (cache / "mnist" / FIRST).unlink()
    (cache / "mnist" / LAST).write_bytes(b"half")
    load_data("mnist")
    assert site.requests == [FIRST, LAST]


def test_progress_on_a_terminal(site, cache, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    load_data("mnist")
    assert "100%" in capsys.readouterr().err


def test_own_files_are_not_downloaded_nor_checked(site, cache, tmp_path, monkeypatch):
    folder = tmp_path / "own" / "mnist"
    folder.mkdir(parents=True)
    for file, shape in SHAPES.items():
        (folder / file).write_bytes(packed((3, *shape[1:])))
    monkeypatch.setenv("CONVBENCH_DATA", str(tmp_path / "own"))
    assert len(load_data("mnist").train_images) == 3
    assert len(load_data("mnist", data_dir=folder).train_images) == 3
    assert site.requests == []
    assert not cache.exists()


def fails_to_load(site, name, file, reason):
    """The one line that says what was tried and what to do."""
    message = (
        f"{file} could not be downloaded from {site.url}{file} ({reason}); "
        f"put the four files in a folder '{name}' and pass it as --data-dir (data_dir)"
    )
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_server_down(site, cache, name):
    site.close()
    with fails_to_load(site, name, FIRST, "ConnectionError"):
        load_data(name)
    assert files(cache) == set()


def test_file_gone_from_the_server(site, cache):
    del site.files[LAST]
    with fails_to_load(site, "mnist", LAST, "404 Not Found"):
        load_data("mnist")
    assert files(cache) == set(SHAPES) - {LAST}


def test_connection_lost(site, cache):
    site.cut = 20
    with pytest.raises(
        ValueError, match=rf"^{FIRST} (could not be downloaded|from {site.url})\S* .*data_dir\)$"
    ):
        load_data("mnist")
    assert files(cache) == set()


def test_wrong_checksum(site, cache):
    site.files[LAST] = packed((5,))
    message = (
        f"{LAST} from {site.url}{LAST} does not have the checksum expected, md5 {site.checksums[LAST]}, "
        "and was not kept; "
        "try again, or put the four files in a folder 'mnist' and pass it as --data-dir (data_dir)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load_data("mnist")
    assert files(cache) == set(SHAPES) - {LAST}


def test_cache_that_cannot_be_written_stays_an_os_error(site, cache):
    cache.write_text("a file where the folder would be")
    with pytest.raises(OSError, match="convbench"):
        load_data("mnist")
    assert site.requests == []
