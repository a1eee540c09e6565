"""How an NVIDIA GPU is cut into MIG instances: slices per model and profile. Pure.

Source: NVIDIA Multi-Instance GPU User Guide, "Supported GPUs" and "Supported MIG Profiles" (A30; A100 40/80 GB;
H100 80/94/96 GB; GH200; H200; B200; GB200; RTX PRO 6000 Blackwell). A profile is called `<g>g.<GB>gb`, where g counts
compute slices and GB the memory; one compute slice may come with one memory slice or, as `1g` with twice the memory,
with two. A suffix (`+me` media engines, `+gfx` graphics) changes neither count. What is not in the table is unknown
here, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

_PROFILE = re.compile(r"(\d+)g\.(\d+)gb")
_MODEL_MEMORY = re.compile(r"(\d+)GB")


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of instance: compute slices, memory slices, and the memory that its name tells (GB)."""

    name: str
    compute: int
    memory: int
    memory_gb: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """How one physical GPU can be cut: its compute and memory slices, and its profiles by name."""

    family: str
    memory_gb: int
    compute: int
    memory: int
    profiles: Mapping[str, Profile]

    def profile(self, name: str) -> Profile | None:
        """Return a profile by its name (media engines aside); None: this GPU has none of that name."""
        return self.profiles.get(plain(name))

    def most(self, name: str) -> int:
        """Return how many instances of one profile fit on one GPU; 0 for a profile that it does not have."""
        found = self.profile(name)
        return min(self.compute // found.compute, self.memory // found.memory) if found else 0

    def share(self, name: str) -> Fraction:
        """Return the share of the GPU that one instance holds, by compute slices. Raises KeyError."""
        return Fraction(self.profiles[plain(name)].compute, self.compute)

    def fits(self, instances: Mapping[str, int], gpus: int) -> bool:
        """Whether instances (profile → count) can be cut out of so many GPUs at all, by either kind of slice."""
        known = [(self.profile(name), count) for name, count in instances.items()]
        if any(profile is None for profile, _ in known):
            return False
        compute = sum(profile.compute * count for profile, count in known if profile)
        memory = sum(profile.memory * count for profile, count in known if profile)
        each = all(count <= self.most(name) * gpus for name, count in instances.items())
        return each and compute <= self.compute * gpus and memory <= self.memory * gpus


def plain(profile: str) -> str:
    """Return a profile's name without engines: `1g.10gb+me` (as a resource `1g.10gb.me`) → `1g.10gb`."""
    return re.sub(r"(?<=gb)[-.+][a-z.+-]+$", "", profile)


def compute_slices(profile: str) -> int | None:
    """Return the compute slices that a profile's name tells; None where it is no profile."""
    match = _PROFILE.fullmatch(plain(profile))
    return int(match.group(1)) if match else None


def _geometry(family: str, memory_gb: int, compute: int, memory: int, *profiles: tuple[str, int]) -> Geometry:
    made = {}
    for name, slices in profiles:
        match = _PROFILE.fullmatch(name)
        if match is None:
            raise ValueError(f"{name} is no MIG profile")
        made[name] = Profile(name, int(match.group(1)), slices, int(match.group(2)))
    return Geometry(family, memory_gb, compute, memory, made)


def _eighths(family: str, memory_gb: int, one: int, double: int, half: int) -> Geometry:
    """Return the usual cut: 7 compute and 8 memory slices, by the GB of 1g, 1g with double memory, and 3g."""
    return _geometry(
        family, memory_gb, 7, 8,
        (f"1g.{one}gb", 1), (f"1g.{double}gb", 2), (f"2g.{double}gb", 2), (f"3g.{half}gb", 4), (f"4g.{half}gb", 4),
        (f"7g.{memory_gb}gb", 8),
    )  # fmt: skip


_TABLE: tuple[Geometry, ...] = (
    _geometry("A30", 24, 4, 4, ("1g.6gb", 1), ("2g.12gb", 2), ("4g.24gb", 4)),
    _eighths("A100", 40, 5, 10, 20),
    _eighths("A100", 80, 10, 20, 40),
    _eighths("H100", 80, 10, 20, 40),
    _eighths("H100", 94, 12, 24, 47),
    _eighths("H100", 96, 12, 24, 48),
    _eighths("GH200", 96, 12, 24, 48),
    _eighths("GH200", 144, 18, 36, 72),
    _eighths("H200", 141, 18, 35, 71),
    _eighths("B200", 180, 23, 45, 90),
    # Two memory sizes under one product label, cut alike: profiles of both.
    _geometry(
        "GB200", 186, 7, 8,
        ("1g.23gb", 1), ("1g.24gb", 1), ("1g.47gb", 2), ("2g.47gb", 2), ("3g.93gb", 4), ("3g.95gb", 4),
        ("4g.93gb", 4), ("4g.95gb", 4), ("7g.186gb", 8), ("7g.189gb", 8),
    ),
    _geometry("RTX-PRO-6000", 96, 4, 4, ("1g.24gb", 1), ("2g.48gb", 2), ("4g.96gb", 4)),
)  # fmt: skip
#: Longest first: GH200 and GB200 also contain H200 and B200.
_FAMILIES = sorted({entry.family for entry in _TABLE}, key=lambda name: (-len(name), name))
#: The number in these names is the memory of the CPU beside the GPU (GH200 480GB).
_NOT_GPU_MEMORY = frozenset({"GH200", "GB200"})


def family_of(model: str) -> str:
    """Return the family of a product label (`NVIDIA-A100-SXM4-40GB` → `A100`); "" where it has no MIG we know."""
    words = model.upper().replace(" ", "-")
    return next((name for name in _FAMILIES if re.search(rf"(?:^|[^A-Z0-9]){name}(?![0-9])", words)), "")


def geometry(model: str, memory_mib: int = 0, profile: str = "") -> Geometry | None:
    """Return how a GPU is cut, from its product label, its memory (MiB of the whole GPU; 0: not known) and one of its
    profiles (""; not known). None where that does not single out one entry of the table.
    """
    family = family_of(model)
    found = [entry for entry in _TABLE if entry.family == family]
    if profile:
        found = [entry for entry in found if entry.profile(profile) is not None]
    if memory_mib:
        # Labels tell less (ECC, reserved) or, as plain MiB of a decimal GB, up to 8 % more than the name.
        fitting = [entry for entry in found if abs(memory_mib - entry.memory_gb * 1024) <= entry.memory_gb * 1024 // 10]
        nearest = sorted(fitting, key=lambda entry: abs(memory_mib - entry.memory_gb * 1024))
        return nearest[0] if nearest else None
    named = _MODEL_MEMORY.search(model.upper())
    if named and family not in _NOT_GPU_MEMORY:
        found = [entry for entry in found if entry.memory_gb == int(named.group(1))]
    return found[0] if len(found) == 1 else None
