"""oneDNN benchdnn's problem descriptors: one line of text for the geometry of a layer.

The grammar is that of benchdnn's convolution and pooling drivers
(https://github.com/oneapi-src/oneDNN/tree/main/tests/benchdnn/doc): a sequence of keys with numbers,
`g` groups, `mb` batch (2 if missing), `ic`, `ih`, `iw` input, `oc`, `oh`, `ow` output, `kh`, `kw`
kernel, `sh`, `sw` stride, `ph`, `pw` padding, `dh`, `dw` dilation (0 is dense), then `n"name"` and
`*3` to repeat. Underscores are ignored. A missing width takes the height's value; only widths make a
1-D problem; a missing output follows from the padding, a missing padding from the output. What `oh`
leaves over goes to the end of the axis, which is how asymmetric padding is written.

Pooling adds three keys of our own, each written only when needed: `cm1` (ceil_mode), `cp0` (padding
does not count in averages), and `qh`, `qw` (padding at the end, where ceil_mode hides it).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from kernels.axis import Axis

_WINDOW_KEYS = ("ih", "iw", "oh", "ow", "kh", "kw", "sh", "sw", "ph", "pw", "dh", "dw", "qh", "qw")
CONV_KEYS = ("g", "mb", "ic", "oc", *_WINDOW_KEYS[:-2])
POOL_KEYS = ("mb", "ic", *_WINDOW_KEYS, "cm", "cp")
_DEFAULTS = {"g": 1, "mb": 2, "cm": 0, "cp": 1}
_NAME = re.compile(r'n(?:"([^"]*)"|([^"*]*))(?:\*(\d+))?')
_NUMBER = re.compile(r"([a-z]+)(\d+)")


@contextmanager
def named(text: str) -> Iterator[None]:
    """Errors of a spec that is made from `text` name it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"descriptor {text!r}: {error}") from None


def read(text: str, keys: Sequence[str]) -> tuple[dict[str, int], str, int]:
    """The numbers of `text` by key, its name and its repeat count. Raises ValueError."""

    def complain(what: str) -> ValueError:
        return ValueError(f"descriptor {text!r}: {what}")

    if not isinstance(text, str):
        raise TypeError(f"descriptor is {text!r}; expected a string like 'mb32ic6ih12oc16oh8kh5'")
    numbers: dict[str, int] = {}
    name, repeat = "", 1
    rest = text.strip()
    while rest:
        if rest[0] == "_":
            rest = rest[1:]
        elif found := _NAME.fullmatch(rest):
            name, repeat = found[1] or found[2] or "", int(found[3] or 1)
            rest = ""
        elif found := _NUMBER.match(rest):
            key, digits = found.groups()
            if key not in keys:
                raise complain(f"unknown key {key!r} at {rest!r}; expected one of {', '.join(keys)}")
            if key in numbers:
                raise complain(f"{key} is given twice; expected once")
            numbers[key] = int(digits)
            rest = rest[found.end() :]
        else:
            raise complain(f'cannot read {rest!r}; expected a key with a number, or n"name"')
    needed = [key for key in ("ic", "oc") if key in keys and key not in numbers]
    if needed:
        raise complain(f"{' and '.join(needed)} missing; expected the channels")
    return {**{key: value for key, value in _DEFAULTS.items() if key in keys}, **numbers}, name, repeat


def axes(text: str, numbers: dict[str, int], ceil_mode: bool = False) -> tuple[Axis, Axis]:
    """Rows and columns from the numbers, missing ones deduced. Raises ValueError."""
    tall = {
        key[0]: value for key, value in numbers.items() if key in ("ih", "oh", "kh", "sh", "ph", "dh", "qh")
    }
    wide = {
        key[0]: value for key, value in numbers.items() if key in ("iw", "ow", "kw", "sw", "pw", "dw", "qw")
    }
    if tall:
        inherited = {**tall, **wide}
        geometry = [key for key in wide if key != "o" and wide[key] != tall.get(key)]
        if geometry and "o" not in wide:
            inherited.pop("o", None)
        wide = inherited
    else:
        tall = {"i": 1, "k": 1}
    return _axis(text, "h", tall, ceil_mode), _axis(text, "w", wide, ceil_mode)


def _axis(text: str, letter: str, given: dict[str, int], ceil_mode: bool) -> Axis:
    for key in "ik":
        if key not in given:
            raise ValueError(f"descriptor {text!r}: {key}{letter} missing; expected input and kernel sizes")
    size, kernel, stride, dilation = given["i"], given["k"], given.get("s", 1), given.get("d", 0) + 1
    if min(size, kernel, stride) < 1:
        raise ValueError(
            f"descriptor {text!r}: i{letter}{size} k{letter}{kernel} s{letter}{stride}; expected 1 or more"
        )

    def padded(before: int, after: int) -> Axis:
        return Axis(size, kernel, stride, before, after, dilation, ceil_mode)

    out, before = given.get("o"), given.get("p")
    if out is None:
        return padded(before or 0, given.get("q", before or 0))
    missing = _missing(padded(0, 0), out)
    if before is None:
        before = max(0, missing // 2)
    after = given.get("q", before)
    if "q" not in given and padded(before, before).out != out:
        after = max(0, missing - before)
    axis = padded(before, after)
    if axis.out != out:
        raise ValueError(
            f"descriptor {text!r}: o{letter}{out} does not follow from i{letter}{size} k{letter}{kernel} "
            f"s{letter}{stride} p{letter}{before} d{letter}{dilation - 1}; expected o{letter}{axis.out}"
        )
    return axis


def _missing(bare: Axis, out: int) -> int:
    """Padding that `out` windows need, both sides together; negative where inputs are left over."""
    return (out - 1) * bare.stride + bare.reach - bare.size


def write(
    head: str, rows: Axis, cols: Axis, name: str, repeat: int, oc: int | None = None, tail: str = ""
) -> str:
    """The shortest descriptor that `read` and `axes` bring back to the same problem."""
    if rows == cols:
        both = [("h", rows)]
    elif rows.trivial:
        both = [("w", cols)]
    else:
        both = [("h", rows), ("w", cols)]
    plain = all(axis.before == 0 and max(0, _missing(axis, axis.out) // 2) == 0 for _, axis in both)
    parts = [
        head,
        *(f"i{letter}{axis.size}" for letter, axis in both),
        "" if oc is None else f"oc{oc}",
        *(f"o{letter}{axis.out}" for letter, axis in both),
        *(f"k{letter}{axis.kernel}" for letter, axis in both),
    ]
    if any(axis.stride > 1 for _, axis in both):
        parts += [f"s{letter}{axis.stride}" for letter, axis in both]
    if not plain:
        parts += [f"p{letter}{axis.before}" for letter, axis in both]
    if any(axis.dilation > 1 for _, axis in both):
        parts += [f"d{letter}{axis.dilation - 1}" for letter, axis in both]
    if any(axis.ceil_mode for _, axis in both):
        parts.append("cm1")
        if any(axis.after != axis.before for _, axis in both):
            parts += [f"q{letter}{axis.after}" for letter, axis in both]
    parts.append(tail)
    if name or repeat > 1:
        parts.append(f'n"{name}"' + (f"*{repeat}" if repeat > 1 else ""))
    return "".join(parts)
