"""The fixed team colours: twelve for light pages, twelve for dark ones; one index per team across all charts.

The values stand once more in `static/css/commons.css` as `--team-0` … `--team-11` (a test keeps the two equal); charts
name an index, the page's theme decides the colour.

Found by search for the largest smallest distance (OKLab) between any two, seen with normal vision, without red
(protanopia) and without green cones (deuteranopia, Machado et al. 2009); `tests/ui` measures it again.
"""

from __future__ import annotations

LIGHT: tuple[str, ...] = (
    "#5261c5",  # indigo
    "#e59a0e",  # amber
    "#4c8481",  # teal
    "#7d1e67",  # plum
    "#a0d1fe",  # sky
    "#461f05",  # rust
    "#7d8117",  # olive
    "#9386d6",  # lavender
    "#05173c",  # navy
    "#ce9da6",  # rose
    "#335f05",  # green
    "#e1ca94",  # sand
)
DARK: tuple[str, ...] = (
    "#8fa4ff",  # indigo
    "#e8b222",  # amber
    "#6ea7a4",  # teal
    "#945d7f",  # plum
    "#6fe4fd",  # sky
    "#b04400",  # rust
    "#e2ea65",  # olive
    "#887cc9",  # lavender
    "#5e59bf",  # navy
    "#febbb9",  # rose
    "#6a9f4b",  # green
    "#fcffd0",  # sand
)

#: The grey of "other" and of what belongs to nobody.
OTHER_LIGHT = "#8a94a6"
OTHER_DARK = "#7a8496"


def colour_for(index: int, *, dark: bool = False) -> str:
    """Return the colour of a team as `#rrggbb`; indices beyond the palette start over."""
    palette = DARK if dark else LIGHT
    return palette[index % len(palette)]


def css_variable(index: int) -> str:
    """Return the name of the CSS variable that holds the colour in the present theme."""
    return f"--team-{index % len(LIGHT)}"
