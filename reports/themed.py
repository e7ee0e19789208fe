"""An SVG that follows the reader's light or dark scheme, for a page that shows it as a picture."""

from __future__ import annotations

import re

from reports.looks import ALERT, BAR, GRID, INK, PALE, WASH, look

_INKS = {
    INK: "#e6e9ed",
    PALE: "#8f99a3",
    GRID: "#363d46",
    WASH: "#272d35",
    BAR: "#454d57",
    ALERT: "#ff8a95",
}
_SHADES = {
    look("loops").colour: "#ffffff",
    look("torch").colour: "#c65b93",
    look("openvino").colour: "#8b7be0",
    look("tiled").colour: "#3d9be0",
}
"""Lighter shades of the backends' colours that would hardly be seen on a dark page."""


def themed(svg: bytes, grounds: bool) -> bytes:
    """`svg` with its inks as variables that a style sheet inside of it sets for either scheme.

    A picture has no access to the page's own style sheet, but knows the reader's scheme. Where backends'
    colours are `grounds` of letters, they stay as they are.
    """
    shades = _INKS if grounds else _INKS | _SHADES
    names = {colour.lower(): f"--c{number}" for number, colour in enumerate(shades)}
    light = "".join(f"{name}:{colour};" for colour, name in names.items())
    dark = "".join(f"{names[colour.lower()]}:{shade};" for colour, shade in shades.items())
    style = f"<style>:root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    inks = re.compile("|".join(names))
    text = inks.sub(lambda found: f"var({names[found[0]]})", svg.decode())
    text = text.replace("fill: #ffffff", "fill: none", 1)  # the sheet's own ground: the page has one
    return re.sub("(<svg[^>]*>)", lambda found: found[1] + style, text, count=1).encode()
