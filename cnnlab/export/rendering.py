"""Texts made from the templates beside this module."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


def render(template: str, **values: Any) -> str:
    """A template filled with values; in HTML each is escaped, and one that is missing is an error everywhere."""
    return make_environment().get_template(template).render(values)


@cache
def make_environment() -> Environment:
    """The rules of all templates, which are read and compiled once."""
    environment = Environment(
        loader=PackageLoader("cnnlab.export"),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["python"] = write_python
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def write_python(values: list[Any]) -> str:
    """Values as Python text, strings in double quotes: a tuple, or one value alone."""
    texts = [json.dumps(value) if isinstance(value, str) else repr(value) for value in values]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"
