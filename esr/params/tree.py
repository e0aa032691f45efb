"""A YAML file as a tree of names, and trees laid over one another."""

from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from esr.errors import ParamsError, one_of


@cache
def read_tree(file: Path, _mtime: int) -> dict[str, Any]:
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except RecursionError:
        raise ParamsError(f"{file.name} is nested too deeply to be read; parameters lie at most {DEPTH} deep") from None
    except OSError as error:
        raise ParamsError(f"{str(file)!r} cannot be read: {error.strerror or error}") from None
    except (
        yaml.YAMLError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
    ) as error:  # its constructors raise all of these
        raise ParamsError(f"{file.name} is not YAML: {' '.join(str(error).split())[:200]}") from None
    _bounded(tree, file.name)
    return mapping(tree, file.name, file.name)


DEPTH, SIZE = 50, 100_000
"""Levels and values that a file of parameters may have; aliases that repeat themselves have more."""


def _bounded(tree: object, where: str) -> None:
    level, n = [tree], 0
    for _ in range(DEPTH):
        level = [v for node in level for v in (node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())]
        n += len(level)
        if not level or n > SIZE:
            break
    if level:
        raise ParamsError(
            f"{where} is nested more than {DEPTH} deep or holds more than {SIZE:,} values; aliases may repeat themselves in it"
        )


class _Loader(yaml.SafeLoader):
    """Plain YAML, except that a key written twice is refused (YAML would keep the last without a word)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        for i, key in enumerate(keys):
            if key in keys[:i]:
                raise yaml.YAMLError(f"the key {key!r} stands twice, again in line {node.value[i][0].start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def mapping(tree: object, spot: str, where: str) -> dict[str, Any]:
    """`tree` when it is a mapping whose keys are names; refused by its place when it is not."""
    if not isinstance(tree, dict):
        raise ParamsError(f"{where}: {spot} is {tree!r:.200} and should hold names with values")
    for key in tree:
        if not isinstance(key, str):
            raise ParamsError(f"{where}: {spot} has the key {key!r}, which is not text; write it in quotes")
    return tree


def overlay(base: dict[str, Any], over: object, source: str, where: str, at: str = "") -> dict[str, Any]:
    """`base` with `over` laid on it; a key that base does not have is refused by name."""
    out = dict(base)
    spot = f"{source}.{at}".rstrip(".")
    for key, value in ({} if over is None else mapping(over, spot, where)).items():
        if key not in base:
            raise ParamsError(one_of("key", f"{at}{key}", [f"{at}{k}" for k in base], f"{where} (asked by {source})"))
        inner = base.get(key)
        if isinstance(inner, dict):
            mapping(value, f"{spot}.{key}", where)
            out[key] = {**inner, **value} if key == "protocol" and at else overlay(inner, value, source, where, f"{at}{key}.")
        else:
            out[key] = value
    return out
