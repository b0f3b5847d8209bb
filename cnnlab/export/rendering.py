"""Texts made from the templates beside this module."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def render(template: str, context: DataclassInstance) -> str:
    """A template filled with the fields of a context; in HTML each is escaped, and one that is missing is an error."""
    return make_environment().get_template(template).render(vars(context))


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
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment
