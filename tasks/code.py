"""What a module rests on: its own source and that of every module of esr that it imports, however far, found without importing any.

Comments and docstrings are no part of it, and imports under TYPE_CHECKING are not followed: neither changes what comes out.
"""

import ast
import hashlib
import importlib.util
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = "esr"
HANDLES = ("esr.study.study",)
"""Imports of these are not followed: a study opens store, engine and judges, and what they are is noted by value when it is read."""

ALONE = threading.Lock()
"""Python 3.11 cannot parse in two threads at once: `SystemError: AST constructor recursion depth mismatch`."""


@cache
def fingerprint(module: str) -> str:
    """Of a module and all that it rests on."""
    total = hashlib.sha256()
    with ALONE:
        for name in sorted(closure(module)):
            total.update(f"{name}\0{source(name)}\n".encode())
    return total.hexdigest()[:16]


@cache
def closure(module: str) -> frozenset[str]:
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += () if name in HANDLES else imported(name)
    return frozenset(found)


@cache
def imported(module: str) -> tuple[str, ...]:
    """Modules of esr that this one imports, the packages around them too."""
    found: set[str] = set()
    for node in _nodes(ast.parse(_file(module).read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif node.module and not node.level:
            found.add(node.module)
            found |= {inner for alias in node.names if _spec(inner := f"{node.module}.{alias.name}") is not None}
    ours = [name for name in found if name.split(".")[0] == ROOT]
    around = {".".join(parts[: i + 1]) for name in (*ours, module) for parts in [name.split(".")] for i in range(len(parts))}
    return tuple(sorted(name for name in around if name.split(".")[0] == ROOT))


def _nodes(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            yield from _nodes(node)


@cache
def source(module: str) -> str:
    """Hash of a module's code and, of a package, of the data beside it: prompts, SQL, tables."""
    file = _file(module)
    total = hashlib.sha256(ast.dump(_bare(ast.parse(file.read_bytes()))).encode())
    if file.name == "__init__.py":
        for path in sorted(p for p in file.parent.rglob("*") if p.suffix in (".txt", ".sql", ".csv", ".tsv")):
            total.update(path.relative_to(file.parent).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


def _bare(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _says_only(line)]  # type: ignore[attr-defined]  # has a body, as was seen
    return tree


def _says_only(line: ast.AST) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def _file(module: str) -> Path:
    spec = _spec(module)
    if spec is None:
        raise ModuleNotFoundError(f"a key rests on the module {module!r} and there is none")
    return Path(spec)


@cache
def _spec(module: str) -> str | None:
    """Where a module lies; found by its packages' folders, so that nothing is run."""
    top, *parts = module.split(".")
    root = importlib.util.find_spec(top)
    if root is None or root.origin is None:
        return None
    place = Path(root.origin)
    for part in parts:
        if place.name != "__init__.py":
            return None
        inside = place.parent / part / "__init__.py"
        place = inside if inside.is_file() else place.parent / f"{part}.py"
        if not place.is_file():
            return None
    return str(place)
