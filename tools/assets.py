"""Copy the picked files of the npm packages into ``static_vendor/`` and build the icon sprite.

Called by set-up after ``npm ci``. Nothing of it is committed. Files are served as static files from our own host; the
licences of what is served are put beside them.
"""

import json
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Served to browsers.
PICKED = {
    "tabler.min.css": "@tabler/core/dist/css/tabler.min.css",
    "tabler.min.js": "@tabler/core/dist/js/tabler.min.js",
    "tabler-theme.min.js": "@tabler/core/dist/js/tabler-theme.min.js",
    "htmx.min.js": "htmx.org/dist/htmx.min.js",
    "plotly-basic.min.js": "plotly.js-basic-dist-min/plotly-basic.min.js",
}
# Used by browser tests only, never served.
TEST_ONLY = {"axe.min.js": "axe-core/axe.min.js"}
LICENCES = ("@tabler/core", "@tabler/icons", "htmx.org", "plotly.js-basic-dist-min")

# A source map that is named but absent makes the manifest storage of `collectstatic` fail.
_SOURCE_MAP = re.compile(r"/\*# sourceMappingURL=[^*]*\*/|^//# sourceMappingURL=.*$", re.MULTILINE)
_SVG_BODY = re.compile(r"<svg[^>]*>(.*)</svg>", re.DOTALL)
_BOUNDING_BOX = re.compile(r'\s*<path stroke="none" d="M0 0h24v24H0z" fill="none"\s*/>')


class AssetError(Exception):
    """A package lacks a file that the portal needs."""


def strip_source_map(text: str) -> str:
    """Remove the comment that names a source map, from CSS or JavaScript."""
    return _SOURCE_MAP.sub("", text)


def icon_names(text: str) -> list[str]:
    """The names listed in icons.txt, sorted, without comments. Raises AssetError for a name listed twice."""
    names = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise AssetError(f"Listed twice in icons.txt: {', '.join(twice)}")
    return sorted(names)


def symbol(name: str, svg: str) -> str:
    """One icon as a ``<symbol>``. The stroke width is inherited from the page, so that one rule of CSS sets it."""
    match = _SVG_BODY.search(svg)
    if match is None:
        raise AssetError(f"The icon {name} is no SVG file.")
    body = re.sub(r"\s+", " ", _BOUNDING_BOX.sub("", match.group(1))).strip()
    return (
        f'<symbol id="{name}" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-linecap="round" '
        f'stroke-linejoin="round">{body}</symbol>'
    )


def sprite(names: list[str], outline: Path) -> str:
    """The sprite of the named icons. Raises AssetError naming every icon the package does not have."""
    missing = [name for name in names if not (outline / f"{name}.svg").exists()]
    if missing:
        raise AssetError(f"@tabler/icons has no outline icon named: {', '.join(missing)}")
    symbols = [symbol(name, (outline / f"{name}.svg").read_text(encoding="utf-8")) for name in names]
    return '<svg xmlns="http://www.w3.org/2000/svg">\n' + "\n".join(symbols) + "\n</svg>\n"


def build(modules: Path, target: Path, test_target: Path, icons: Path) -> None:
    """Fill ``target`` and ``test_target`` anew from ``modules``; what stood there before is removed."""
    for folder, files in ((target, PICKED), (test_target, TEST_ONLY)):
        fresh = folder.with_name(folder.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for name, source in files.items():
            path = modules / source
            if not path.exists():
                raise AssetError(f"{source} is missing in {modules}; run npm ci.")
            (fresh / name).write_text(strip_source_map(path.read_text(encoding="utf-8")), encoding="utf-8")
        if folder is target:
            names = icon_names(icons.read_text(encoding="utf-8"))
            (fresh / "icons.svg").write_text(sprite(names, modules / "@tabler/icons/icons/outline"), encoding="utf-8")
            (fresh / "licences.txt").write_text(_licences(modules), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def _licences(modules: Path) -> str:
    """Name, version and licence of each package, with the licence text where the package carries one."""
    parts = []
    for package in LICENCES:
        described = json.loads((modules / package / "package.json").read_text(encoding="utf-8"))
        author = described.get("author") or "its authors"
        name = author["name"] if isinstance(author, dict) else author
        texts = [path.read_text(encoding="utf-8") for path in sorted((modules / package).glob("LICENSE*"))]
        parts.append(f"== {package} {described['version']} ({described['license']}), by {name} ==\n" + "\n".join(texts))
    return "\n".join(parts)


def main() -> int:
    """Build from the checkout's node_modules."""
    try:
        build(ROOT / "node_modules", ROOT / "static_vendor", ROOT / "tests_vendor", ROOT / "tools" / "icons.txt")
    except AssetError as error:
        print(f"assets: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
