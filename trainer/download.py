"""MNIST and Fashion-MNIST from the network, kept in the user's cache."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple


class Source(NamedTuple):
    """Where the files of a data set are, and the MD5 checksum of each."""

    url: str
    checksums: dict[str, str]


# Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998; H. Xiao, K. Rasul,
# R. Vollgraf, "Fashion-MNIST", 2017.
SOURCES = {
    "mnist": Source(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion-mnist": Source(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
}


def fetch(name: str) -> Path:
    """The folder in the user's cache with the files of the data set `name`; downloads those not there.

    Raises ValueError when one cannot be downloaded or has another checksum than `SOURCES` gives; what is in
    the cache is whole.
    """
    import pooch  # only who downloads pays for its import

    pooch.get_logger().setLevel("WARNING")
    folder = Path(pooch.os_cache("convbench")) / name
    for file in SOURCES[name].checksums:
        _retrieve(name, file, folder)
    return folder


def _retrieve(name: str, file: str, folder: Path) -> None:
    import pooch
    from requests import RequestException

    url, checksum = SOURCES[name].url + file, SOURCES[name].checksums[file]
    remedy = f"put the four files in a folder {name!r} and pass it as --data-dir (data_dir)"
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**16, timeout=30)
    try:
        pooch.retrieve(url, f"md5:{checksum}", file, folder, downloader=downloader)
    except RequestException as error:  # before ValueError: some of these are one too
        raise ValueError(f"{file} could not be downloaded from {url} ({_reason(error)}); {remedy}") from error
    except ValueError as error:
        raise ValueError(
            f"{file} from {url} does not have the checksum expected, md5 {checksum}, and was not kept; "
            f"try again, or {remedy}"
        ) from error


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    return type(error).__name__ if response is None else f"{response.status_code} {response.reason}"
