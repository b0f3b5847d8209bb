"""The button of a Lab that takes an image from the user's disk. Widgets alone; no torch, no plots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets

from cnnlab.config.errors import describe_problem
from cnnlab.records.own_image import own_image

LABELS = {"labels: halves": "halves", "labels: texture": "texture"}
"""What the user reads -> `labels` of `cnnlab.own_image`."""


class Upload(ipywidgets.HBox):
    """A button for a file and a choice of labels; `received` gets {"set": {"image": name}} or {"problem": sentence}."""

    def __init__(self, received: Callable[[dict[str, Any]], None]) -> None:
        self.received = received
        small = {"layout": ipywidgets.Layout(width="50%")}
        tip = "Cut the patches from an image of your own"
        self.file = ipywidgets.FileUpload(
            accept="image/*", multiple=False, description="Your image", tooltip=tip, **small
        )
        self.labels = ipywidgets.Dropdown(options=list(LABELS), **small)
        super().__init__([self.file, self.labels])
        self.file.observe(lambda _change: self.take(), "value")
        self.labels.observe(lambda _change: self.take(), "value")

    def take(self) -> None:
        """Hand on the file that was chosen last, if there is one."""
        if not self.file.value:
            return
        try:
            name = own_image(bytes(self.file.value[0]["content"]), LABELS[self.labels.value])
        except BaseException as problem:  # whatever a file leads to, the page is told
            self.received({"problem": describe_problem(problem)})
        else:
            self.received({"set": {"image": name}})

    def close(self) -> None:
        """Close the parts, too."""
        for part in (self.file, self.labels):
            part.layout.close()
            part.style.close()
            part.close()
        super().close()
