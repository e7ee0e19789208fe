"""A picture of a digit, brought to the form of MNIST's."""

from __future__ import annotations

import warnings
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

_SIDE = 28  # of an image
_BOX = 20  # of the digit in it
_LARGEST = 512  # pixels along a side; averaging more of them loses noise, not the digit
_FAINTEST = 16  # of 255 levels, from paper to ink; less is the noise of an empty sheet
_SHADES = " .:-=+*#%@"
_INK = 0.3  # of the way from paper to ink: paler pixels do not extend the digit's box


def read_digit(path: str | PathLike[str]) -> np.ndarray:
    """The digit in an image file, (1, 1, 28, 28) float32, from 0, the paper, to 1, the ink.

    Any file that Pillow reads, turned as its EXIF data says; what is transparent is white paper. Ink is dark
    if the border is nearer to the brightest grey than to the darkest. An image of 28x28 is taken as it is;
    any other is prepared as MNIST was (Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten
    digits"): the digit scaled to fit a box of 20x20, its centre of mass in the middle of the image. Raises
    ValueError, naming the file: missing, no image, too large for Pillow, without ink.
    """
    path = Path(path)
    grey = _light_on_dark(_grey(_opened(path)))
    ready = grey.shape == (_SIDE, _SIDE)
    ink = grey if ready else np.maximum(grey - _paper(grey), 0)
    if np.ptp(ink) < _FAINTEST:
        levels = f"{np.ptp(ink):.0f} of 255 levels from paper to ink"
        raise ValueError(f"{path} shows no digit ({levels}); expected {_FAINTEST} or more")
    digit = ink / 255 if ready else _centred(_boxed(_stretched(ink)))
    return digit[None, None]


def _opened(path: Path) -> Image.Image:
    """The image, decoded and upright."""
    if not path.exists():
        raise ValueError(f"{path} does not exist; expected an image file")
    with path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file) as image:
                image.draft("L", (_LARGEST, _LARGEST))  # a JPEG can be decoded at a fraction of its size
                return ImageOps.exif_transpose(image)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            most = f"{Image.MAX_IMAGE_PIXELS:,} pixels"
            raise ValueError(f"{path} is too large an image; expected at most {most}") from error
        except Exception as error:  # each of Pillow's formats has its own
            what = "is no image that Pillow can read"
            raise ValueError(f"{path} {what}; expected a PNG, a JPEG or the like") from error


def _grey(image: Image.Image) -> np.ndarray:
    """Grey levels (H, W), float32 from 0 to 255, on white paper where the image is transparent."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow's conversions cut off
        image = Image.fromarray(np.asarray(image, np.float32).clip(0, 65535) / 257)
    else:
        paper = Image.new("RGBA", image.size, "white")
        paper.alpha_composite(image.convert("RGBA"))
        image = paper.convert("L")
    return np.asarray(image.reduce(-(-max(image.size) // _LARGEST)), np.float32)


def _light_on_dark(grey: np.ndarray) -> np.ndarray:
    return 255 - grey if 2 * np.median(grey[_border(grey)]) > grey.min() + grey.max() else grey


def _border(grey: np.ndarray) -> np.ndarray:
    """Which pixels (H, W) are the outermost."""
    border = np.ones(grey.shape, bool)
    border[1:-1, 1:-1] = False
    return border


def _paper(grey: np.ndarray) -> np.ndarray:
    """Levels (H, W) of the paper, a plane through those of the border: a photograph is lit from one side."""
    border = _border(grey)
    border &= 2 * grey < np.median(grey[border]) + grey.max()  # a stroke may reach it
    plane = np.stack([*np.indices(grey.shape), np.ones(grey.shape)], axis=-1)
    slopes, *_ = np.linalg.lstsq(plane[border], grey[border], rcond=None)
    paper: np.ndarray = plane @ slopes
    return paper.astype(np.float32)


def _stretched(ink: np.ndarray) -> np.ndarray:
    """`ink`, which is 0 on paper, with that of the strokes at 1."""
    full = float(np.median(ink[2 * ink > ink.max()]))  # not the maximum, which may be a speck of noise
    return (ink / full).clip(max=1)


def _boxed(stretched: np.ndarray) -> np.ndarray:
    """The digit alone, its longer side 20 pixels."""
    rows, columns = (np.flatnonzero((stretched > _INK).any(axis)) for axis in (1, 0))
    crop = stretched[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(_BOX * side / max(crop.shape))) for side in crop.shape)
    # Pillow's bilinear filter grows with the reduction, so it averages; the sharper ones would overshoot.
    scaled = np.asarray(Image.fromarray(crop).resize((width, height), Image.Resampling.BILINEAR))
    return scaled / float(scaled.max())  # a thin line pales as it shrinks


def _centred(box: np.ndarray) -> np.ndarray:
    """`box` in an image of 28x28, its centre of mass less than a pixel from the middle, if it fits there."""
    image = np.zeros((_SIDE, _SIDE), np.float32)
    top, left = (_offset(box.sum(axis)) for axis in (1, 0))
    image[top : top + box.shape[0], left : left + box.shape[1]] = box
    return image


def _offset(mass: np.ndarray) -> int:
    """Where a row or column of `mass` starts for its centre to lie between 13.5 and 14.5, as in MNIST."""
    centre = np.arange(len(mass)) @ mass / mass.sum()
    return int(np.clip(round(_SIDE / 2 - centre), 0, _SIDE - len(mass)))


def as_text(image: np.ndarray) -> str:
    """An image (H, W) of numbers from 0 to 1 in characters, two rows of pixels to a line."""
    height = len(image) // 2 * 2
    halves = image[:height].reshape(-1, 2, image.shape[1]).mean(axis=1)
    levels = np.clip((halves * len(_SHADES)).astype(int), 0, len(_SHADES) - 1)
    return "\n".join("".join(_SHADES[level] for level in row).rstrip() for row in levels)
