"""What a saved notebook shows of a dashboard that no kernel keeps alive: a picture, in an output of its own.

The output stands right below the dashboard's, and takes no room while that is on the page.
"""

from __future__ import annotations

import base64
import html
import re
from uuid import uuid4

HTML = "text/html"
MOST = 400_000
"""Most letters of a picture that a page sends: a notebook that is saved should stay small."""
PICTURE = re.compile(r"data:image/(png|jpeg|webp|svg\+xml);base64,[A-Za-z0-9+/]+={0,2}")
"""A picture as a page sends it. Nothing else gets from there into the notebook."""
PLACE, OUTPUT = ".jp-OutputArea-child", ".jp-OutputArea-output"
SAVED = f"{OUTPUT} > .cnnlab-saved"
STYLE = (
    # The dashboard is on the page, or there is nothing to be shown in its place.
    f"{PLACE}:has(> .lm-Panel{OUTPUT}:not(.lm-mod-hidden) > *) + {PLACE}:has(> {SAVED}), "
    f"{PLACE}:has(> {SAVED}):not(:has(p)), "
    # "Loading widget..." and "Error displaying widget: model not found" stand in an element without others.
    f"{PLACE}:has(> .lm-Panel{OUTPUT}):not(:has(> {OUTPUT} > *)):has(+ {PLACE} > {SAVED} > p) {{display: none}}"
)
"""JupyterLab leaves a style only in a notebook that it trusts, and only there it tries to show a dashboard."""
AGAIN = "Run this cell for a live one."


class SavedPicture:
    """A picture in the output of the cell that shows it, renewed in place."""

    def __init__(self) -> None:
        self.name = f"cnnlab-{uuid4()}"
        self.page = make_page()
        self.shown = False

    def show(self) -> None:
        """Put the picture below what the cell that runs now has shown so far; for IPython only."""
        from IPython.display import display

        display({HTML: self.page, "text/plain": ""}, raw=True, display_id=self.name)  # type: ignore[no-untyped-call, unused-ignore]
        self.shown = True

    def renew(self, caption: str, picture: str = "", said: str = "") -> None:
        """Show a caption, below a picture (`data:image/...`) with the words for who does not see it."""
        page = make_page(caption, picture, said)
        if not self.shown or page == self.page:
            return
        from IPython.display import update_display

        self.page = page
        update_display({HTML: page, "text/plain": ""}, raw=True, display_id=self.name)  # type: ignore[no-untyped-call, unused-ignore]


def make_page(caption: str = "", picture: str = "", said: str = "") -> str:
    """The HTML of a picture with its caption; without a caption it takes no room. ValueError if it is no picture."""
    if picture and (len(picture) > MOST or not PICTURE.fullmatch(picture)):
        raise ValueError(
            f"picture must be data:image/...;base64,... of at most {MOST} letters, got {len(picture)}: {picture[:30]!r}"
        )
    image = f'<img src="{picture}" alt="{html.escape(said)}">' if picture else ""
    words = f"<p>{html.escape(caption)} {AGAIN}</p>" if caption else ""
    return f'<div class="cnnlab-saved"><style>{STYLE}</style>{image}{words}</div>'


def encode_svg(svg: str) -> str:
    """SVG as the address of an image."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
