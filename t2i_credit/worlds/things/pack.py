"""Packs the drawings of this world into drawings.png. Run once; the world itself reads the packed file alone.

npm pack @iconify-json/noto && tar xf iconify-json-noto-*.tgz && pip install resvg_py
python -m t2i_credit.worlds.things.pack package/icons.json
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

from PIL import Image, PngImagePlugin

from .drawings import COLUMNS, DRAWINGS, PACKED, SIDE

SOURCE = "Noto Emoji, https://github.com/googlefonts/noto-emoji, by npm @iconify-json/noto 1.2.9"
COPYRIGHT = "Copyright Google LLC. Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0"
_LARGE = 512  # pixels; rendered at this size, cropped, then made small


def drawing(icons: dict, name: str) -> Image.Image:
    """An icon, cropped to what is drawn, in the middle of SIDE x SIDE pixels; its longer side fills them."""
    import resvg_py

    icon = icons["icons"][name]
    w, h = icon.get("width", icons["width"]), icon.get("height", icons["height"])
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {w} {h}">{icon["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=_LARGE, height=_LARGE))
    large = Image.open(io.BytesIO(png), formats=["PNG"]).convert("RGBA")
    large = large.crop(large.getchannel("A").point(lambda a: 255 * (a > 127)).getbbox())
    scale = SIDE / max(large.size)
    small = large.resize([max(1, round(scale * side)) for side in large.size], Image.Resampling.BOX)
    cell = Image.new("RGBA", (SIDE, SIDE))
    cell.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    return cell


def main(path: Path) -> None:
    icons = json.loads(path.read_text(encoding="utf-8"))
    rows = -(-len(DRAWINGS) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * SIDE, rows * SIDE))
    for n, one in enumerate(DRAWINGS):
        sheet.paste(drawing(icons, one.icon), (n % COLUMNS * SIDE, n // COLUMNS * SIDE))
    about = PngImagePlugin.PngInfo()
    for key, text in (("Source", SOURCE), ("Copyright", COPYRIGHT)):
        about.add_text(key, text)
    about.add_text("Description", ", ".join(one.icon for one in DRAWINGS))
    sheet.save(PACKED, optimize=True, pnginfo=about)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
