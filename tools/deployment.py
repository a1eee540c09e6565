"""Check the deployment files: valid, unprivileged, without secrets, and in step with the launcher and the settings."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
KUSTOMIZE = ROOT / "deploy" / "kustomize"
PROMETHEUS = ROOT / "deploy" / "prometheus.yml"
ENV_EXAMPLE = ROOT / ".env.example"
# The oldest and the newest Kubernetes the portal's own manifests are checked against.
KUBERNETES_VERSIONS = ("1.29", "1.37")
PROCESSES = {"web", "worker", "beat", "observer", "migrate"}
# Where variables of ours are read.
ENVIRONMENT_SOURCES = ("portal/settings.py", "launcher", "apps", "tests/conftest.py")
# Read here, but everybody's: described by the programs they belong to.
FOREIGN_VARIABLES = {"MAKELEVEL", "PATH", "HOME", "CHROMIUM", "KUBECONFIG", "DJANGO_SETTINGS_MODULE", "CI"}

_SECRET_NAME = re.compile(r"PASSWORD(?!_MAX_AGE)|SECRET|_KEY\b|TOKEN")
_VARIABLE = re.compile(r"^[A-Z][A-Z0-9_]+$")
_ENV_LINE = re.compile(r"^([A-Z][A-Z0-9_]+)=", re.MULTILINE)

Document = dict[str, Any]


def documents(paths: list[Path]) -> list[Document]:
    """Every YAML document of some files."""
    return [one for path in paths for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def kubernetes_objects() -> tuple[list[Document], str]:
    """The objects of the sample overlay as kubectl builds them, or the plain files where there is no kubectl."""
    if kubectl := shutil.which("kubectl"):
        overlay = KUSTOMIZE / "overlays" / "production"
        built = subprocess.run([kubectl, "kustomize", overlay], capture_output=True, text=True, check=False)
        if built.returncode:
            raise ValueError(f"kubectl kustomize: {built.stderr.strip()}")
        return [one for one in yaml.safe_load_all(built.stdout) if one], "kubectl kustomize"
    files = [path for path in sorted(KUSTOMIZE.rglob("*.yaml")) if path.name != "kustomization.yaml"]
    return documents(files), "the plain files, because kubectl is not here"


def schema_problems(objects: list[Document]) -> list[str]:
    """What the official schemas say, read strictly."""
    problems = []
    for version in KUBERNETES_VERSIONS:
        for one in objects:
            name = f"{one.get('kind')} {one.get('metadata', {}).get('name')}"
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                problems.append(f"Kubernetes {version}: {name}: {error.message}")
            except kubernetes_validate.SchemaNotFoundError:
                problems.append(f"Kubernetes {version}: {name}: no such kind")
    return problems


def pod_specs(objects: list[Document]) -> Iterator[tuple[str, Document]]:
    """The pod templates of workloads, with the component each is."""
    for one in objects:
        template = one.get("spec", {}).get("template")
        if template:
            yield template["metadata"]["labels"]["app.kubernetes.io/component"], template["spec"]


def pod_problems(objects: list[Document]) -> list[str]:
    """Every pod runs unprivileged and takes its secrets from the cluster's."""
    problems = []
    for component, spec in pod_specs(objects):
        security = spec.get("securityContext", {})
        if not security.get("runAsNonRoot") or not security.get("runAsUser"):
            problems.append(f"{component}: the pod may run as root")
        if spec.get("automountServiceAccountToken") is not False:
            problems.append(f"{component}: the pod gets the cluster's credentials")
        for container in spec["containers"]:
            own = container.get("securityContext", {})
            if own.get("allowPrivilegeEscalation") is not False or "ALL" not in own.get("capabilities", {}).get(
                "drop", []
            ):
                problems.append(f"{component}: the container may gain privileges")
            if "limits" not in container.get("resources", {}):
                problems.append(f"{component}: the container has no memory limit")
            problems += [
                f"{component}: {variable['name']} is written out"
                for variable in container.get("env", [])
                if _SECRET_NAME.search(variable["name"]) and "value" in variable
            ]
    return problems


def compose_problems(compose: Document) -> list[str]:
    """Secrets come from the environment, our services drop every privilege."""
    problems = []
    for name, service in compose["services"].items():
        for variable, value in service.get("environment", {}).items():
            secret = _SECRET_NAME.search(variable) or re.search(r"://[^$]*:[^$]*@", str(value))
            if secret and ":?" not in str(value):
                problems.append(
                    f"docker-compose.yml: {name}: {variable} has to come from the environment: ${{{variable}:?…}}"
                )
        if service.get("privileged") or service.get("user") in ("root", "0", 0):
            problems.append(f"docker-compose.yml: {name}: runs with root's privileges")
        if name in PROCESSES and "ALL" not in service.get("cap_drop", []):
            problems.append(f"docker-compose.yml: {name}: keeps capabilities")
    return problems


def dockerfile_problems(text: str) -> list[str]:
    """The image's last user is a number above zero."""
    users = re.findall(r"^USER\s+(\S+)", text, re.MULTILINE)
    if not users or not re.match(r"^[1-9]\d*(:|$)", users[-1]):
        return ["deploy/Dockerfile: the last USER has to be a number that is not root's"]
    return []


def queue_problems(compose: Document, objects: list[Document]) -> list[str]:
    """Every way of running the worker serves the same queues."""
    launched = re.search(
        r'^QUEUES = "([^"]+)"', (ROOT / "launcher" / "demo.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    expected = launched.group(1) if launched else ""
    problems = []
    if expected not in compose["services"]["worker"]["command"]:
        problems.append(f"docker-compose.yml: the worker does not serve the queues {expected}")
    for component, spec in pod_specs(objects):
        if component == "worker" and expected not in spec["containers"][0]["args"]:
            problems.append(f"deploy/kustomize: the worker does not serve the queues {expected}")
    return problems


def process_problems(compose: Document, objects: list[Document]) -> list[str]:
    """Compose and Kubernetes run the same processes as the launcher."""
    problems = []
    missing = PROCESSES - set(compose["services"])
    if missing:
        problems.append(f"docker-compose.yml: lacks {', '.join(sorted(missing))}")
    found = {component for component, _ in pod_specs(objects)}
    if found != PROCESSES:
        problems.append(f"deploy/kustomize: runs {', '.join(sorted(found))}, not {', '.join(sorted(PROCESSES))}")
    return problems


def variables_read(source: str) -> set[str]:
    """The environment variables a module reads by name: ``env.str("X")``, ``environ.get("X")``, ``environ["X"]``."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args and isinstance(node.func, ast.Attribute | ast.Name):
            owner = node.func.value if isinstance(node.func, ast.Attribute) else node.func
            name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
            first = node.args[0]
        elif isinstance(node, ast.Subscript):
            owner, first = node.value, node.slice
            name = owner.attr if isinstance(owner, ast.Attribute) else ""
        else:
            continue
        if name not in {"env", "environ", "environment"} or not isinstance(first, ast.Constant):
            continue
        if isinstance(first.value, str) and _VARIABLE.match(first.value):
            found.add(first.value)
    return found


def variable_problems() -> list[str]:
    """Every variable that is read or that Compose asks for is described in .env.example, and none twice."""
    described = _ENV_LINE.findall(ENV_EXAMPLE.read_text(encoding="utf-8"))
    read: set[str] = set(re.findall(r"\$\{([A-Z0-9_]+)[:}]", COMPOSE.read_text(encoding="utf-8")))
    for name in ENVIRONMENT_SOURCES:
        path = ROOT / name
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.exists() else []
        for file in files:
            read |= variables_read(file.read_text(encoding="utf-8"))
    problems = [f".env.example: {name} is missing" for name in sorted(read - set(described) - FOREIGN_VARIABLES)]
    problems += [
        f".env.example: {name} is there twice" for name in sorted({n for n in described if described.count(n) > 1})
    ]
    return problems


def tool_problems() -> list[str]:
    """What the format's own checkers say."""
    commands: list[list[str | Path]] = [
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE],
        [BIN / "hadolint", DOCKERFILE],
        [BIN / "yamllint", "--strict", COMPOSE, ROOT / "deploy"],
    ]
    if promtool := shutil.which("promtool"):
        commands.append([promtool, "check", "config", "--syntax-only", PROMETHEUS])
    problems = []
    for command in commands:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if result.returncode:
            problems.append(f"{Path(command[0]).name}: {(result.stdout + result.stderr).strip()}")
    return problems


def main() -> int:
    """Run every check of the checkout's files."""
    try:
        objects, how = kubernetes_objects()
    except ValueError as error:
        print(error)
        return 1
    compose = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    problems = [
        *tool_problems(),
        *schema_problems(objects),
        *pod_problems(objects),
        *compose_problems(compose),
        *dockerfile_problems(DOCKERFILE.read_text(encoding="utf-8")),
        *process_problems(compose, objects),
        *queue_problems(compose, objects),
        *variable_problems(),
    ]
    for problem in problems:
        print(problem)
    print(f"{len(objects)} Kubernetes objects ({how}), {len(compose['services'])} services, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
