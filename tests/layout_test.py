"""The shape of the house: imports run one way, files stay short, families are whole."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "ganjax"
FILES = sorted(PACKAGE.rglob("*.py"))

# Floors of docs/architecture.md from the top; a module may import its own floor and those below.
FLOORS = (
    {"main"},
    {"train"},
    {
        "evaluate",
        "bench",
        "subjects",
        "plan",
        "generate",
        "collapse",
        "growing",
        "importer",
        "exporter",
    },
    {"families"},
    {"program"},
    {"family"},
    {"checkpoint"},
    {"adversarial"},
    {"layers", "data", "pretrained", "interop"},
    {"metrics", "sampling", "logs", "workdir", "parallel"},
    {"config", "defaults", "environment", "errors"},
)
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}


def part_of(file: pathlib.Path) -> str:
    """The unit of the layout that a file belongs to: ``layers``, ``train``."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def modules_imported(file: pathlib.Path) -> set[str]:
    """Full names of the ganjax modules that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("ganjax.")}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_downwards(file):
    part = part_of(file)
    if part == "__init__":
        return
    assert part in FLOOR, f"{part} has no floor: add it to FLOORS and docs/architecture.md"
    for name in modules_imported(file):
        other = name.split(".")[1]
        assert FLOOR[other] >= FLOOR[part], f"{file.name} imports {name}, from a floor above"


def test_imports_have_no_circle():
    edges: dict[str, set[str]] = {}
    for file in FILES:
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        edges[name] = modules_imported(file)
    known = set(edges)
    graph = {
        name: {target if target in known else target.rpartition(".")[0] for target in targets}
        - {name}
        for name, targets in edges.items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import circle: {' -> '.join((*path, name))}"
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_files_stay_short():
    sources = [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "configs").glob("*.py")]
    long = {str(f.relative_to(ROOT)): n for f in sources if (n := len(f.open().readlines())) > 600}
    assert not long, f"files above 600 lines: {long}"


FAMILIES = sorted(path.name for path in (PACKAGE / "families").iterdir() if path.is_dir())
# Families that do not train yet: networks and weights alone, which their docs say.
NETWORKS_ONLY: set[str] = set()


@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.startswith("__")])
def test_a_family_is_whole(name):
    folder = PACKAGE / "families" / name
    for file in ("__init__.py", "networks.py", "official.py"):
        assert (folder / file).is_file(), f"family {name} has no {file}"
    training = (folder / "phases.py", ROOT / "configs" / f"{name}.py")
    for file in training:
        if name in NETWORKS_ONLY:
            assert not file.exists(), f"{file.name} is there: take {name} out of NETWORKS_ONLY"
        else:
            assert file.is_file(), f"family {name} has no {file.relative_to(ROOT)}"
    if name in NETWORKS_ONLY:
        docs = (ROOT / "docs" / f"{name}.md").read_text()
        assert "does not train yet" in docs, f"docs/{name}.md does not say what {name} lacks"
    assert any((ROOT / "tests" / "families" / name).glob("*_test.py")), f"{name} has no test"
