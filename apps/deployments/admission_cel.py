"""The expressions of the admission policies, put together from small parts. Pure text; facts: CEL in Kubernetes 1.30+.

CEL has no functions of one's own and no clock. "Now" is the creation time of the object that is judged; on an update
it is the newest time in its managed fields, which the server writes. Lists are walked by macros, and what may be absent
is asked for with has() first. `join`, `split`, `indexOf` and `substring` are Kubernetes' extended strings.
"""

from __future__ import annotations

#: Schemes under which models are fetched, wherever they stand in a text ("name=s3://…"). https is judged apart.
_SCHEMES = r"(?i)(^|[^a-z0-9+.-])(s3|gs|hf|pvc|oci|oci[+][a-z]+|hdfs|webhdfs|abfss?|wasbs?|gpu-commons)://"
_WEB = "(?i)^https?://"
#: Where KServe puts what it fetched: a path there names nothing new.
_LOCAL = r"^([A-Za-z0-9_.-]+=)?/mnt/(models|adapters)(/[A-Za-z0-9_-][A-Za-z0-9_./-]*)?/?$"
#: Variables by which serving programs take a model (vLLM, TGI, Hugging Face, Triton, KServe's own).
MODEL_VARIABLES = (
    "HF_MODEL_ID", "HF_MODEL", "MODEL_ID", "MODEL", "MODEL_URI", "MODEL_PATH", "MODEL_DIR", "MODEL_REPOSITORY",
    "STORAGE_URI", "VLLM_MODEL", "LORA_ADAPTERS", "LORA_MODULES", "ADAPTER_ID", "TRANSFORMERS_MODEL", "NIM_MODEL_NAME",
)  # fmt: skip
#: Arguments by which they do; each as `--x=value` and as `--x value`.
MODEL_FLAGS = (
    "--model", "--model-id", "--model_id", "--model-path", "--model_path", "--model_name_or_path",
    "--model-name-or-path", "--model-dir", "--model_dir", "--model-repository", "--model-store", "--lora-modules",
    "--lora-adapters", "--speculative-model", "--speculative-config", "--tokenizer", "--model-url", "--hf-repo",
    "--repo-id", "serve",
)  # fmt: skip
_FLAG = "^(" + "|".join(flag for flag in MODEL_FLAGS if flag.startswith("-")) + ")="
#: The same inside one text with blanks, as a shell takes it ("vllm serve x", "exec server --model=x").
_BLANK = r"\s"
_LINE = r"(^|[\s;&|(='\"`])(" + "|".join(MODEL_FLAGS) + r")(\s|=)"
#: Keys of an InferenceService's component that hold a model as KServe's own runtimes do.
FRAMEWORKS = (
    "model", "huggingface", "lightgbm", "onnx", "paddle", "pmml", "pytorch", "sklearn", "tensorflow", "triton",
    "xgboost", "art",
)  # fmt: skip
#: What an update of one of them must leave alone to pass without being judged.
MODEL_KEYS = (
    *FRAMEWORKS, "containers", "initContainers", "storageUris", "storageContainerName", "volumes", "workerSpec",
)  # fmt: skip


def text(value: str) -> str:
    """Return a CEL string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def listed(values: tuple[str, ...]) -> str:
    """Return a CEL list of strings."""
    return "[" + ", ".join(text(value) for value in values) + "]"


USABLE = (
    "params.spec.entries.filter(e, timestamp(e.notBefore) <= timestamp(object.metadata.creationTimestamp)"
    " && timestamp(object.metadata.creationTimestamp) < timestamp(e.expires)"
    " && (!has(object.metadata.managedFields) || !object.metadata.managedFields.exists(m, has(m.time)"
    " && timestamp(m.time) >= timestamp(e.expires))))"
)
#: For pods alone: what a release needs that serves on after its grant ended. Its pods may be replaced as they were,
#: since an expiry never stops a service silently; what would begin anew is judged by the object that asks for it.
SERVING = (
    "(has(params.spec.serving) ? params.spec.serving.filter(e, has(object.metadata.labels)"
    " && 'gpu-commons/release' in object.metadata.labels"
    " && object.metadata.labels['gpu-commons/release'] == e.release) : [])"
)


def covered(value: str) -> str:
    """Return whether a location, or a value that names one, is covered by a usable entry."""
    return f"variables.usable.exists(e, {value} in e.uris || {value} in e.values)"


def image_covered(value: str) -> str:
    """Return whether an image is approved by its digest, or one that the platform itself puts into pods."""
    return (
        f"({value} in params.spec.platformImages || variables.usable.exists(e, e.images.exists(i,"
        f" {value}.endsWith('@' + i))))"
    )


def _local(value: str) -> str:
    return f"({value}.matches({text(_LOCAL)}) && !{value}.contains('..'))"


def _named(value: str) -> str:
    return f"({value} == '' || {_local(value)} || {covered(value)})"


def variable_covered(name: str = "v") -> str:
    """Return whether an environment variable names no model, or an approved one."""
    unnamed = f"!({name}.name in {listed(MODEL_VARIABLES)})"
    said = f"{name}.value"
    quiet = f"(!has({said}) || (!{said}.matches({text(_SCHEMES)}) && {line_covered(said)}))"
    # An empty value is left out of what the server stores: without a source it is empty.
    stated = f"!has({name}.valueFrom) && (!has({name}.value) || {_named(f'{name}.value')})"
    return f"({unnamed} && {quiet}) || ({stated})"


def words_covered(words: str = "w") -> str:
    """Return whether a list of command and arguments names no model, or approved ones only."""
    scheme = f"{words}.all(s, !s.matches({text(_SCHEMES)}) || {covered('s')})"
    joined = f"{words}.all(s, !s.matches({text(_FLAG)}) || {covered('s')} || {_local(_after('s'))})"
    # Each value after a flag begins a piece; the first piece, before any, is told by a line that no model is called.
    pieces = f"('#\\n' + {words}.join('\\n') + '\\n').split('\\n' + f + '\\n')"
    apart = f"{listed(MODEL_FLAGS)}.all(f, {pieces}.all(t, {_first_line('t')} == '#' || {_named(_first_line('t'))}))"
    lines = f"{words}.all(s, {line_covered('s')})"
    return " && ".join(f"({one})" for one in (scheme, joined, apart, lines))


def line_covered(value: str) -> str:
    """Return whether a text with blanks names no model to a shell or a wrapper, or is approved word for word."""
    return f"(!{value}.matches({text(_BLANK)}) || !{value}.matches({text(_LINE)}) || {covered(value)})"


def fetched_covered(words: str = "w") -> str:
    """Return whether what an init container fetches from the web is covered: there an address is a location, too."""
    return f"{words}.all(s, !s.matches({text(_WEB)}) || {covered('s')})"


def _after(value: str) -> str:
    return f"{value}.substring({value}.indexOf('=') + 1)"


def _first_line(value: str) -> str:
    return f"{value}.split('\\n')[0]"


def words_of(name: str = "c") -> str:
    """Return command and arguments of a container as one list."""
    return f"((has({name}.command) ? {name}.command : []) + (has({name}.args) ? {name}.args : []))"


def containers(expression: str, judge: str, name: str = "c") -> str:
    """Return whether `judge` holds for every container of a list."""
    return f"{expression}.all({name}, {judge})"


def images_of(name: str = "c") -> str:
    """Return whether a container's image is approved. None stated: KServe takes the runtime's; the pod is judged."""
    return f"!has({name}.image) || {image_covered(f'{name}.image')}"


def settings_of(name: str = "c") -> str:
    """Return whether a container's variables, command and arguments name approved models only."""
    return (
        f"!has({name}.envFrom) && (!has({name}.env) || {name}.env.all(v, {variable_covered()}))"
        f" && [{words_of(name)}].all(w, {words_covered()})"
    )


def volumes_of(name: str) -> str:
    """Return whether the volumes of a pod spec hold nothing that could be a model nobody approved."""
    claim = "variables.usable.exists(e, v.persistentVolumeClaim.claimName in e.claims)"
    judge = (
        "!has(v.csi) && !has(v.ephemeral) && !has(v.nfs) && !has(v.hostPath)"
        f" && (!has(v.image) || (has(v.image.reference) && {image_covered('v.image.reference')}))"
        f" && (!has(v.persistentVolumeClaim) || {claim})"
    )
    return f"(!has({name}.volumes) || {name}.volumes.all(v, {judge}))"


def storage_of(name: str) -> str:
    """Return whether everything that one component of an InferenceService loads is covered."""
    held = f"{name}[k]"
    one = (
        f"(!has({held}.storageUri) || {covered(f'{held}.storageUri')})"
        f" && (!has({held}.storage) || (has({held}.storage.path) && {covered(f'{held}.storage.path')}))"
    )
    several = f"(!has({name}.storageUris) || {name}.storageUris.all(u, {covered('u.uri')}))"
    return f"{listed(FRAMEWORKS)}.all(k, !(k in {name}) || ({one})) && {several}"


def component_containers(name: str) -> str:
    """Return all containers that one component states, those in KServe's own words among them, as one list."""
    return (
        f"((has({name}.containers) ? {name}.containers : [])"
        f" + (has({name}.initContainers) ? {name}.initContainers : [])"
        f" + {listed(FRAMEWORKS)}.filter(k, k in {name}).map(k, {name}[k]))"
    )


def pod_containers(spec: str) -> str:
    """Return all containers of a pod spec: also those that run before it, and those added later."""
    return (
        f"({spec}.containers + (has({spec}.initContainers) ? {spec}.initContainers : [])"
        f" + (has({spec}.ephemeralContainers) ? {spec}.ephemeralContainers : []))"
    )


def models_changed(old: str, new: str) -> str:
    """Return whether what one component loads differs between two states of an object."""
    return f"{listed(MODEL_KEYS)}.exists(k, (k in {new}) != (k in {old}) || (k in {new} && {new}[k] != {old}[k]))"
