"""The standard library of this Python as units of source files, and what they import.

Modules that import each other in a circle are one unit, named by its first
member. Nothing is written, apart from the copy that is broken.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

from actorstore.answers import GraphEdge, GraphNode
from actorstore.graph import build

TESTS: Final = {"idle_test", "test", "tests"}
"""Names of the folders that hold tests."""

PLANTED: Final = b'\nprint("planted by actorstore demo"\n'
"""What breaks a file when it is put at its end: the parenthesis stays open."""


def find_modules(root: Path, names: frozenset[str]) -> dict[str, list[Path]]:
    """Return the source files of top-level modules and packages, tests left out, as paths below `root`."""
    modules = {}
    for name in sorted(names):
        module = root / f"{name}.py"
        found = [module] if module.is_file() else sorted((root / name).rglob("*.py"))
        files = [file.relative_to(root) for file in found]
        files = [file for file in files if TESTS.isdisjoint(file.parts)]
        if files:
            modules[name] = files
    return modules


class Library:
    """Source files as units, and the graph of these.

    Args:
        root: The folder that all paths are relative to.
        modules: The files of each module.
        pool: Where the files are searched for imports.
    """

    def __init__(self, root: Path, modules: Mapping[str, list[Path]], pool: Executor) -> None:
        self._root = root
        self._copies: dict[Path, Path] = {}
        owners = [(name, root / file) for name, files in modules.items() for file in files]
        found = pool.map(find_imports, [file for _, file in owners], chunksize=4)
        imports = {
            (importer, name)
            for (importer, _), names in zip(owners, found, strict=True)
            for name in names & modules.keys()
        }
        edges = [GraphEdge(importer, name) for importer, name in sorted(imports)]
        problems = build([GraphNode(name, 0, 0) for name in modules], edges).problems
        circles = [problem.ids for problem in problems if problem.kind == "cycle"]
        unit_of = {name: name for name in modules} | {name: ids[0] for ids in circles for name in ids}
        self.files: dict[str, list[Path]] = {}
        """The files of each unit, as paths below the root."""
        for name, files in modules.items():
            self.files.setdefault(unit_of[name], []).extend(files)
        pairs = {(unit_of[edge.from_], unit_of[edge.to]) for edge in edges}
        self.graph = build(
            [GraphNode(unit, 0, len(files)) for unit, files in self.files.items()],
            [GraphEdge(unit, other) for unit, other in sorted(pairs) if unit != other],
        )
        """The units and what they import."""

    def where(self, file: Path) -> Path:
        """Return where a file is to be read."""
        return self._copies.get(file, self._root / file)

    def plant(self, file: Path, folder: Path) -> None:
        """Put a syntax error into a copy of the file, and take the copy in its place."""
        self._copies[file] = folder / file.name
        self._copies[file].write_bytes((self._root / file).read_bytes() + PLANTED)

    def mend(self, unit: str) -> bool:
        """Mend the unit's broken files; return whether there were any."""
        broken = self._copies.keys() & set(self.files[unit])
        for file in broken:
            del self._copies[file]
        return bool(broken)


def find_imports(file: Path) -> set[str]:
    """Return the top-level modules that a file imports when it is imported itself."""
    try:
        nodes: list[ast.AST] = [ast.parse(file.read_bytes())]
    except (SyntaxError, ValueError):
        return set()  # the compiler will say what is wrong
    names: set[str] = set()
    for node in nodes:  # which grows meanwhile
        match node:
            case ast.Import():
                names.update(alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                names.add(module)
            case ast.If(ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                nodes += node.orelse
            case ast.If(ast.Compare(ast.Name("__name__"))):
                nodes += node.orelse
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.expr():
                pass
            case _:
                nodes += ast.iter_child_nodes(node)
    return {name.partition(".")[0] for name in names}
