"""Python names for the names of a database."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

BUILTINS = frozenset(dir(builtins))


def unique(name: str, taken: Collection[str]) -> str:
    """Add underscores to a name until nothing else has it."""
    while name in taken:
        name += "_"
    return name


def is_free(name: str, *, in_class: bool = False) -> bool:
    """Tell whether Python reads a name as it stands. It reads ﬁ as fi, and __a in a class as another name."""
    return (
        name.isidentifier()
        and not keyword.iskeyword(name)
        and unicodedata.normalize("NFKC", name) == name
        and not (in_class and name.startswith("__"))
    )


def identifier(name: str, kind: str) -> str:
    """Make a Python name of any text; one without a letter to begin with starts with its `kind`."""
    made = re.sub(r"\W", "_", unicodedata.normalize("NFKC", name)).strip("_")
    if not made.isidentifier():
        made = f"{kind}_{made}".rstrip("_")
    return made + "_" * keyword.iskeyword(made)


def assigned(names: Sequence[str], kind: str, kept: Collection[str], reserved: Collection[str] = ()) -> dict[str, str]:
    """Give each name a Python name of its own, which is the same for those that are kept, and never a reserved one."""
    made = {name: name for name in names if name in kept}
    for name in names:
        if name not in kept:
            made[name] = unique(identifier(name, kind), {*made.values(), *reserved})
    return made


def pascal(name: str) -> str:
    """Write a type's name as classes are written: order_status is OrderStatus."""
    return "".join(part[:1].upper() + part[1:] for part in identifier(name, "type").split("_"))
