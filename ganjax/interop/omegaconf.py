"""Configurations of OmegaConf as a pickle holds them, without OmegaConf.

Pickled, they are trees of nodes. A node has its place in the tree, what types it may have, and its
content: nodes by name or in a row, a plain value, or a text such as ``${sampling.type}``, which
stands for what lies elsewhere in the tree (OmegaConf 2.0 to 2.3).
"""

import re
from typing import Any

from ganjax.interop.inert import Constructor, Dict, Inert, Sealed

PLAIN = (type(None), bool, int, float, str)
REFERENCE = re.compile(r"\$\{([\w.]+)\}")


class Node(metaclass=Sealed):
    """What stands for each class of such a tree: it takes one state, and nothing else changes it.

    Attributes:
        parent: the node above, or None.
        content: nodes by name, a list of nodes, or a plain value.
    """

    __slots__ = ("content", "parent")

    parent: "Node | None"
    content: Any

    def __setstate__(self, state: Any) -> None:
        if hasattr(self, "content"):
            raise ValueError("its configuration takes a state that no such file sets")
        parent = state.get("_parent")
        if not isinstance(parent, Node | None):
            raise ValueError(f"a {type(parent).__name__} as the place of a configuration")
        self.parent, self.content = parent, state.get("_content", state.get("_val"))

    def at(self, path: str) -> "Node | None":
        """What a reference names, from the root of the tree."""
        node: Any = self
        above = {id(node)}
        while (parent := getattr(node, "parent", None)) is not None:
            if id(parent) in above:
                raise ValueError("a configuration that lies in itself")
            node, above = parent, above | {id(parent)}
        for name in path.split("."):
            content = getattr(node, "content", None)
            node = content.get(name) if isinstance(content, dict) else None
        return node if isinstance(node, Node) else None


def plain(value: Any, known: dict[int, Any] | None = None) -> Any:
    """Dictionaries, lists and values of a tree, references followed.

    Args:
        known: of nodes that were met before, by identity.

    Raises:
        ValueError: values of another kind, or references in a circle.
    """
    known = {} if known is None else known
    if not isinstance(value, Node):
        if not isinstance(value, PLAIN):
            raise ValueError(f"a {type(value).__name__} in a configuration; expected plain values")
        return value
    if id(value) not in known:
        known[id(value)] = value  # itself as long as it is not done
        content = getattr(value, "content", None)
        reference = REFERENCE.fullmatch(content) if isinstance(content, str) else None
        found = value.at(reference[1]) if reference else None
        known[id(value)] = (
            {_name(name): plain(node, known) for name, node in content.items()}
            if isinstance(content, dict)
            else [plain(node, known) for node in content]
            if isinstance(content, list)
            else plain(content if found is None else found, known)
        )
    if known[id(value)] is value:
        raise ValueError("a configuration that refers to itself; expected plain values")
    return known[id(value)]


def _name(name: Any) -> Any:
    if not isinstance(name, PLAIN):
        raise ValueError(f"a {type(name).__name__} as a name in a configuration")
    return name


class _Types(metaclass=Sealed):
    """What stands for a node's types and flags, which are lost."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        del state


_TYPE = Inert()  # stands for the type of a value

KNOWN: dict[tuple[str, str], Any] = {
    ("omegaconf.dictconfig", "DictConfig"): Node,
    ("omegaconf.listconfig", "ListConfig"): Node,
    **{
        ("omegaconf.nodes", f"{kind}Node"): Node
        for kind in ("Any", "Boolean", "Integer", "Float", "String")
    },
    ("omegaconf.base", "Metadata"): _Types,
    ("omegaconf.base", "ContainerMetadata"): _Types,
    ("collections", "defaultdict"): Constructor(lambda *unused: Dict()),
    **{("typing", name): _TYPE for name in ("Any", "Dict", "List")},
    **{("builtins", name): _TYPE for name in ("bool", "dict", "float", "int", "list", "str")},
}
