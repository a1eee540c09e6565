"""Every action leaves an event: a function that takes `*, actor: Actor` has to reach `audit.record` (design §2, §6).

Read from the source, nothing is imported: a function records where it, or a function of ours that it calls by name or
through an imported module, calls `record`, `record_many` or `record_refusal` of the audit room. What takes an actor for
another reason stands in `EXEMPT` with that reason; an entry that is not needed any more is a problem, too.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORDERS = {f"apps.audit.actions.{name}" for name in ("record", "record_many", "record_refusal")}
#: Function → why it takes an actor and records nothing.
EXEMPT: dict[str, str] = {
    "apps.accounts.ports.groups_changed": "hands over to the room that registered, which records",
    "apps.accounts.ports.groups_of_many_changed": "hands over to the room that registered, which records",
    "apps.accounts.ports.move_rights": "hands over to the room that registered, which records",
    "apps.audit.canonical.event_bytes": "makes the bytes of an event",
    "apps.catalogue.access.locked_model": "loads and locks for an action",
    "apps.catalogue.access.locked_version": "loads and locks for an action",
    "apps.catalogue.file_actions.append_piece": "a piece of an upload is nothing yet; finish_upload records the file",
    "apps.catalogue.file_actions.begin_upload": "an announced upload is nothing yet; finish_upload records the file",
    "apps.catalogue.version_actions.locked_draft": "loads and locks for an action",
    "apps.clusters.places.note_change": "writes the history row of what clusters.administering records as its event",
    "apps.deployments.endpoint_lock.locked": "loads and locks for an action",
    "apps.metering.actions.ingest_hours": "the sweep's work, on its run with source proof; what a person asks for again"
    " is recorded where it is asked for (retry_hours)",
    "apps.notifications.actions.mark_all_read": "somebody looked at their own news",
    "apps.notifications.actions.mark_read": "somebody looked at their own news",
    "apps.reports.files.request_file": "queues a file; taking it is recorded as an export",
    "apps.teams.importing.preview": "shows what an import would do and changes nothing",
}


@dataclass
class Function:
    """A module's function: which names of ours it mentions, and whether it is an action."""

    name: str
    line: int
    action: bool
    uses: set[str] = field(default_factory=set)


def functions_of(source: str, module: str) -> dict[str, Function]:
    """Return a module's functions and methods by full name, with what they use, by full name where that can be told."""
    tree = ast.parse(source)
    names = _imported(tree)
    local = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {name: f"{module}.{name}" for name in local}
    found = {}
    for owner, node in _defined(tree):
        full = f"{module}.{owner}{node.name}"
        public = not owner and not node.name.startswith("_")
        found[full] = Function(full, node.lineno, public and _takes_actor(node), set(_used(node, names)))
    return found


def _imported(tree: ast.Module) -> dict[str, str]:
    """Names that a module imports anywhere, also inside functions, with what they stand for."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Import):
            for one in node.names:
                first = one.name.partition(".")[0]
                names[one.asname or first] = one.name if one.asname else first
    return names


def _defined(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield "", node
        elif isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.", one) for one in node.body if isinstance(one, ast.FunctionDef))


def _takes_actor(node: ast.FunctionDef) -> bool:
    return any(
        one.arg == "actor" and one.annotation is not None and "Actor" in ast.unparse(one.annotation)
        for one in node.args.kwonlyargs
    )


def _used(node: ast.FunctionDef, names: dict[str, str]) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Name) and one.id in names:
            yield names[one.id]
        elif isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name):
            if one.value.id in names:
                yield f"{names[one.value.id]}.{one.attr}"
            elif one.value.id == "self":
                yield f"self.{one.attr}"


def recording(functions: dict[str, Function]) -> set[str]:
    """Return the functions that reach the audit room's recorders. A class records where one of its methods does."""
    # `audit.record` is the room's own name for `audit.actions.record`.
    reached = RECORDERS | {name.replace(".actions.", ".") for name in RECORDERS}
    while True:
        more = {
            name
            for name, function in functions.items()
            if name not in reached
            and any(
                used in reached or (used.startswith("self.") and f"{name.rpartition('.')[0]}.{used[5:]}" in reached)
                for used in function.uses
            )
        }
        more |= {name.rpartition(".")[0] for name in more if name.rpartition(".")[0].rpartition(".")[2][:1].isupper()}
        if not more - reached:
            return reached
        reached |= more


def silent(functions: dict[str, Function]) -> list[Function]:
    """Return the actions that record nothing."""
    reached = recording(functions)
    return [one for name, one in sorted(functions.items()) if one.action and name not in reached]


def problems(functions: dict[str, Function], exempt: dict[str, str]) -> list[str]:
    """Return what does not fit, a sentence each."""
    found = silent(functions)
    names = {one.name for one in found}
    wrong = [
        f"{one.name} (line {one.line}) takes an actor and records no event" for one in found if one.name not in exempt
    ]
    wrong += [f"{name} stands in EXEMPT and needs not to" for name in sorted(exempt.keys() - names)]
    return wrong


def read() -> dict[str, Function]:
    """Return the functions of all rooms."""
    found: dict[str, Function] = {}
    for path in sorted((ROOT / "apps").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "migrations" in parts or "demo" in parts:
            continue
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found |= functions_of(path.read_text(encoding="utf-8"), module)
    return found


def main() -> int:
    """Print the problems; 1 where there are any."""
    found = read()
    wrong = problems(found, EXEMPT)
    print("\n".join(wrong) or f"{sum(one.action for one in found.values())} actions, each records an event")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
