"""Pictures of digits: however one was drawn and saved, it comes out as MNIST would have it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from trainer.image import as_text, read_digit

STROKES = {
    "0": [(100 + 40 * np.sin(t), 100 - 65 * np.cos(t)) for t in np.linspace(0, 2 * np.pi, 60)],
    "1": [(100, 35), (100, 165)],
    "4": [(115, 165), (115, 40), (60, 120), (140, 120)],
    "7": [(60, 40), (140, 40), (90, 165)],
}  # on a sheet of 200 x 200


def drawing(digit: str = "7", size: int = 200, ink: int = 0, paper: int = 255) -> Image.Image:
    """A digit on a sheet of `size` squared; drawn four times as large, so that its edges are smooth."""
    sheet = Image.new("L", (4 * size, 4 * size), paper)
    points = [(x * size / 50, y * size / 50) for x, y in STROKES[digit]]
    ImageDraw.Draw(sheet).line(points, ink, width=round(14 * size / 50), joint="curve")
    return sheet.reduce(4)


def transparent(ink: Image.Image, colour: str = "black") -> Image.Image:
    """What is dark in `ink`, on nothing."""
    sheet = Image.new("RGBA", ink.size, colour)
    sheet.putalpha(ImageOps.invert(ink))
    return sheet


def moved(image: Image.Image, right: int, down: int, size: tuple[int, int]) -> Image.Image:
    sheet = Image.new("L", size, image.getpixel((0, 0)))
    sheet.paste(image, (right, down))
    return sheet


def lit_from_one_side(image: Image.Image) -> Image.Image:
    """As photographed: grey paper, a third darker on the right, and noise."""
    levels = 60 + np.asarray(image, float) * 140 / 255
    levels *= np.linspace(1, 2 / 3, levels.shape[1])
    return Image.fromarray((levels + np.random.default_rng(0).normal(0, 3, levels.shape)).astype(np.uint8))


def read(folder: Path, image: Image.Image, name: str = "digit.png", **options: object) -> np.ndarray:
    image.save(folder / name, **options)
    return read_digit(folder / name)


def centres(digit: np.ndarray) -> tuple[float, float]:
    plane = digit[0, 0].astype(float)
    at = np.arange(28)
    return at @ plane.sum(axis=1) / plane.sum(), at @ plane.sum(axis=0) / plane.sum()


def box(digit: np.ndarray) -> tuple[int, int]:
    return tuple(int(np.ptp(np.flatnonzero(digit[0, 0].any(axis)))) + 1 for axis in (1, 0))


def distance(digit: np.ndarray, other: np.ndarray) -> float:
    """The mean over the pixels, at best: a centre half-way between two pixels may come to lie on either."""
    assert digit.shape == other.shape
    shifts = itertools.product((-1, 0, 1), repeat=2)
    return min(float(np.abs(digit - np.roll(other, shift, axis=(2, 3))).mean()) for shift in shifts)


def alike(digit: np.ndarray, expected: np.ndarray) -> None:
    """Whether two are nearer to each other than any two digits, with room to spare."""
    assert distance(digit, expected) < 0.02


def test_digits_are_told_apart(tmp_path: Path):
    digits = [read(tmp_path, drawing(name)) for name in STROKES]
    for digit, other in itertools.combinations(digits, 2):
        assert distance(digit, other) > 0.08


@pytest.mark.parametrize("digit", STROKES)
@pytest.mark.parametrize("size", [64, 200, 1100])
def test_the_form_is_that_of_mnist(tmp_path: Path, digit: str, size: int):
    found = read(tmp_path, drawing(digit, size))
    assert found.shape == (1, 1, 28, 28)
    assert found.dtype == np.float32
    assert found.min() == 0
    assert found.max() == 1
    assert max(box(found)) == 20
    for centre in centres(found):
        assert 13.5 <= centre <= 14.5  # as all of MNIST's do


@pytest.mark.parametrize("digit", STROKES)
@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(lambda digit: drawing(digit, ink=255, paper=0), id="light on dark"),
        pytest.param(lambda digit: drawing(digit, ink=110, paper=180), id="faint"),
        pytest.param(lambda digit: drawing(digit, ink=90, paper=20), id="faint on dark"),
        pytest.param(lambda digit: drawing(digit, 60), id="small"),
        pytest.param(lambda digit: drawing(digit, 1500), id="large"),
        pytest.param(lambda digit: moved(drawing(digit), 70, 5, (290, 420)), id="off centre"),
        pytest.param(lambda digit: drawing(digit).crop((50, 20, 150, 180)), id="close to the border"),
        pytest.param(lambda digit: transparent(drawing(digit)), id="on nothing"),
        pytest.param(lambda digit: transparent(drawing(digit), "navy"), id="blue"),
        pytest.param(lambda digit: transparent(drawing(digit)).quantize(), id="palette with transparency"),
        pytest.param(lambda digit: drawing(digit).convert("LA"), id="grey with alpha"),
        pytest.param(lambda digit: drawing(digit).convert("1"), id="bilevel"),
        pytest.param(lambda digit: lit_from_one_side(drawing(digit, 400)), id="photograph"),
    ],
)
def test_results_agree(tmp_path: Path, digit: str, variant: Callable[[str], Image.Image]):
    alike(read(tmp_path, variant(digit)), read(tmp_path, drawing(digit)))


@pytest.mark.parametrize(
    ("name", "mode"),
    [("d.jpg", "L"), ("d.jpg", "RGB"), ("d.jpeg", "CMYK"), ("d.bmp", "RGB"), ("d.gif", "P"), ("d.tif", "F")],
)
def test_file_formats(tmp_path: Path, name: str, mode: str):
    alike(read(tmp_path, drawing().convert(mode), name), read(tmp_path, drawing()))


def test_sixteen_bits(tmp_path: Path):
    """Of which Pillow, asked for eight, would make white of all but the darkest."""
    deep = Image.fromarray(np.asarray(drawing(), np.uint16) * 257)
    np.testing.assert_array_equal(read(tmp_path, deep), read(tmp_path, drawing()))
    small = Image.fromarray(np.asarray(drawing(size=28), np.uint16) * 257)
    np.testing.assert_array_equal(read(tmp_path, small), read(tmp_path, drawing(size=28)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_data_says(tmp_path: Path, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Orientations swap in pairs: what undoes 6, a quarter turn, is 8, and any other undoes itself.
    undone = Image.new("L", (1, 1)).getexif()
    undone[0x0112] = {6: 8, 8: 6}.get(orientation, orientation)
    upright = drawing()
    upright.info["exif"] = undone.tobytes()
    turned = ImageOps.exif_transpose(upright)
    assert (orientation == 1) == (np.asarray(turned) == np.asarray(drawing())).all()
    turned.info.clear()
    alike(read(tmp_path, turned, "turned.jpg", exif=exif), read(tmp_path, drawing()))


class TestAnImageOf28x28:
    @pytest.fixture
    def levels(self) -> np.ndarray:
        """All 256 of them, on black; off centre, and larger than a box of 20x20."""
        levels = np.zeros((28, 28), np.uint8)
        levels[1:27, 1:25].flat[:256] = np.arange(256)
        levels[10:27, 1:25].flat[-256:] = np.arange(256)
        return levels

    @staticmethod
    def same(found: np.ndarray, levels: np.ndarray) -> None:
        np.testing.assert_array_equal(found[0, 0], levels.astype(np.float32) / 255, strict=True)

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
    def test_light_on_dark_is_taken_as_it_is(self, tmp_path: Path, levels, mode: str):
        self.same(read(tmp_path, Image.fromarray(levels).convert(mode)), levels)

    @pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
    def test_dark_on_light_is_inverted(self, tmp_path: Path, levels, mode: str):
        self.same(read(tmp_path, Image.fromarray(255 - levels).convert(mode)), levels)

    def test_dark_on_nothing(self, tmp_path: Path, levels):
        self.same(read(tmp_path, transparent(Image.fromarray(255 - levels))), levels)

    def test_light_on_nothing_shows_no_digit(self, tmp_path: Path, levels):
        with pytest.raises(ValueError, match="shows no digit"):
            read(tmp_path, transparent(Image.fromarray(255 - levels), "white"))

    def test_neither_stretched_nor_centred(self, tmp_path: Path):
        levels = np.zeros((28, 28), np.uint8)
        levels[3:8, 4:6] = 100
        self.same(read(tmp_path, Image.fromarray(levels)), levels)

    def test_a_size_beside_it_is_prepared(self, tmp_path: Path, levels):
        found = read(tmp_path, Image.fromarray(levels).crop((0, 0, 28, 27)))
        assert max(box(found)) == 20


def test_a_thin_line_is_as_bright_as_a_thick_one(tmp_path: Path):
    sheet = Image.new("L", (300, 300), 255)
    ImageDraw.Draw(sheet).line([(50, 40), (240, 40), (90, 260)], 0, 2)
    assert read(tmp_path, sheet).max() == 1


def test_a_stroke_may_reach_the_border(tmp_path: Path):
    reaching = drawing("7").crop((60, 32, 200, 200))
    assert np.asarray(reaching)[:, 0].min() < 100
    alike(read(tmp_path, reaching), read(tmp_path, drawing("7")))


@pytest.mark.parametrize("shape", [(1, 2), (1, 50), (50, 1), (3, 3), (27, 29), (2, 4000)])
def test_a_speck_of_ink_on_paper_of_any_shape(tmp_path: Path, shape: tuple[int, int]):
    levels = np.zeros(shape, np.uint8)
    levels[-1, -1 - shape[1] // 3 :] = 255
    levels[-1, -1] = 0
    if not levels.any():
        levels[0, 0] = 255
    found = read(tmp_path, Image.fromarray(levels))
    assert found.max() == 1
    assert max(box(found)) == 20


def refusal(path: Path) -> str:
    """What `read_digit` says of a file: one line, which names it."""
    with pytest.raises(ValueError, match="expected") as raised:
        read_digit(str(path))
    words = str(raised.value)
    assert "\n" not in words
    assert words.startswith(f"{path} ")
    return words.removeprefix(f"{path} ")


class TestErrors:
    def test_missing(self, tmp_path: Path):
        assert refusal(tmp_path / "digit.png") == "does not exist; expected an image file"

    def test_no_image(self, tmp_path: Path):
        drawing().save(tmp_path / "whole.png")
        whole = (tmp_path / "whole.png").read_bytes()
        for content in (b"", b"seven", whole[:20], whole[: len(whole) // 2], whole[:200] + whole[300:]):
            path = tmp_path / "digit.png"
            path.write_bytes(content)
            assert refusal(path) == "is no image that Pillow can read; expected a PNG, a JPEG or the like"

    @pytest.mark.parametrize("size", [(28, 28), (100, 60), (1, 1)])
    @pytest.mark.parametrize("level", [0, 128, 255])
    def test_no_ink(self, tmp_path: Path, size: tuple[int, int], level: int):
        path = tmp_path / "blank.png"
        Image.new("L", size, level).save(path)
        words = "shows no digit (0 of 255 levels from paper to ink); expected 16 or more"
        assert refusal(path) == words

    def test_no_ink_in_a_photograph(self, tmp_path: Path):
        path = tmp_path / "blank.png"
        lit_from_one_side(Image.new("L", (600, 600), 255)).save(path)
        assert refusal(path).startswith("shows no digit (")

    def test_fully_transparent(self, tmp_path: Path):
        path = tmp_path / "blank.png"
        Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(path)
        assert refusal(path).startswith("shows no digit (0 of 255")

    @pytest.mark.parametrize("size", [110, 150])
    def test_too_large(self, tmp_path: Path, monkeypatch, size: int):
        """Pillow warns of more pixels than the limit, and refuses twice as many."""
        path = tmp_path / "digit.png"
        drawing(size=size).save(path)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
        assert refusal(path) == "is too large an image; expected at most 10,000 pixels"

    def test_a_directory(self, tmp_path: Path):
        with pytest.raises(IsADirectoryError):
            read_digit(tmp_path)


class TestAsText:
    def test_a_line_for_two_rows_of_pixels(self):
        """Characters are twice as high as wide: a square of pixels looks like one."""
        image = np.zeros((4, 3))
        image[:2, 0] = image[2:, 1] = 1
        assert as_text(image) == "@\n @"

    def test_darker_characters_for_more_ink(self):
        levels = np.arange(10) / 10 + 0.05
        assert as_text(np.stack([levels, levels])) == " .:-=+*#%@"

    @pytest.mark.parametrize(
        ("above", "below", "text"), [(1, 0, "+"), (0, 1, "+"), (0.5, 0.5, "+"), (0.2, 0, ".")]
    )
    def test_the_mean_of_the_two(self, above, below, text):
        assert as_text(np.array([[above], [below]])) == text

    def test_the_ends_of_the_scale(self):
        assert as_text(np.array([[0.0, 1.0], [0.0, 1.0]])) == " @"
        assert as_text(np.array([[-0.1, 1.1], [-0.1, 1.1]])) == " @"

    def test_lines_end_with_ink(self):
        assert as_text(np.zeros((28, 28))) == "\n" * 13
        assert all(line == line.rstrip() for line in as_text(np.eye(28)).splitlines())

    def test_an_odd_row_is_left_out(self):
        assert as_text(np.ones((5, 2))) == "@@\n@@"

    @pytest.mark.parametrize("digit", STROKES)
    def test_a_digit(self, tmp_path: Path, digit: str):
        """What was drawn, in float32 as it is read."""
        image = read(tmp_path, drawing(digit))[0, 0]
        lines = as_text(image).split("\n")
        assert len(lines) == 14
        assert max(map(len, lines)) <= 28
        for line, rows in zip(lines, image.reshape(14, 2, 28), strict=True):
            ink = rows.mean(axis=0) >= 0.1
            assert [character != " " for character in line.ljust(28)] == ink.tolist()
