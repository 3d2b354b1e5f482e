"""The import graph of the Python package: no circles, and what each room imports, for ARCHITECTURE.md.

usage: import_graph.py [--write]     prints the rooms; with --write puts them between the marks in ARCHITECTURE.md

Imports inside functions count as well as those at the top of a file; those under ``if TYPE_CHECKING`` do not, as they never run.
"""

from __future__ import annotations

import ast
import graphlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python" / "chatterbox_turbo_rs"
DOCUMENT = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- import graph: begin -->", "<!-- import graph: end -->"


def modules() -> dict[str, Path]:
    """Module (dotted, below the package; "" for the package itself) → file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that ``module`` imports."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    package = [part for part in package if part]
    tree = ast.parse(path.read_text("utf-8"))
    never = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or id(node) in never:
            continue
        if node.level:
            base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
        elif (node.module or "").split(".")[0] == PACKAGE.name:
            base = (node.module or "").split(".")[1:]
        else:
            continue
        origin = ".".join(part for part in base if part)
        for alias in node.names:
            inner = f"{origin}.{alias.name}".lstrip(".")
            if inner == "_core":  # the extension module, which imports nothing of this
                continue
            found.add(inner if inner in known else origin)
    return {name for name in found if name in known and name != module}


def graph() -> dict[str, set[str]]:
    """Module → the modules that it imports."""
    known = modules()
    return {module: imports(module, path, known) for module, path in known.items()}


def circle(edges: dict[str, set[str]]) -> list[str] | None:
    """Modules that import each other, the first one again at the end; None where there are none."""
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def room(module: str) -> str:
    """The room of a module: its folder below the package, or its own name at the root."""
    first, _, rest = module.partition(".")
    return f"{first}/" if rest or (PACKAGE / first).is_dir() and first else first or "__init__"


def text(edges: dict[str, set[str]]) -> str:
    """One line a room: what it imports of the others."""
    rooms: dict[str, set[str]] = {}
    for module, others in edges.items():
        rooms.setdefault(room(module), set()).update(room(other) for other in others)
    lines = [f"{name:14} → {', '.join(sorted(others - {name})) or '-'}" for name, others in sorted(rooms.items())]
    return "\n".join(["```", *lines, "```"])


def main(arguments: list[str]) -> int:
    edges = graph()
    found = circle(edges)
    if found:
        print("circle: " + " ← ".join(found), file=sys.stderr)
    if arguments == ["--write"]:
        before, _, rest = DOCUMENT.read_text("utf-8").partition(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}\n{text(edges)}\n{END}{rest.partition(END)[2]}", "utf-8")
    else:
        print(text(edges))
    return int(found is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
