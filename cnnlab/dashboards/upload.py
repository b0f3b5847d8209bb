"""An image from the user's disk, as the page sends it, made into a message that any control could have sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cnnlab.config.errors import describe_problem
from cnnlab.records.own_image import own_image

LABELS = {"labels: halves": "halves", "labels: texture": "texture"}
"""What the user reads -> `labels` of `cnnlab.own_image`."""


def read_upload(message: Any, buffers: Sequence[Any] | None) -> Any:
    """{"set": {"image": name}} for a message {"file": labels} with the file's bytes, or {"problem": sentence}.

    Any other message is given as it is.
    """
    if not isinstance(message, dict) or "file" not in message:
        return message
    try:
        if not buffers:
            raise ValueError("file must come with the bytes of an image, got none")
        return {"set": {"image": own_image(bytes(buffers[0]), message["file"])}}
    except BaseException as problem:  # whatever a file leads to, the page is told
        return {"problem": describe_problem(problem)}
