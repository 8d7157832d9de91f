"""Which module may import which: read from the source, and tried in a process that is barred."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import dynse

PACKAGE = Path(dynse.__file__).parent
ROOMS = (
    "atomic",
    "progress",
    "audio",
    "data",
    "layers",
    "gating",
    "exits",
    "quantization",
    "models",
    "search",
    "evaluation",
    "training",
    "pruning",
    "probes",
    "modelfile",
    "streaming",
    "cli",
)
HEAVY = ("librosa", "matplotlib", "pesq", "pystoi", "sklearn", "soundfile", "soxr")


def imported(source, module):
    """Absolute names that a module imports, anywhere in it.

    Args:
        source: its text.
        module: its dotted name; of a package, that of its `__init__`.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def upward(source, module):
    """Imports of a module from a room below its own, or from outside the library's rooms."""
    room = module.split(".")[1]
    wrong = []
    for name in sorted(imported(source, module)):
        root, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if root in ("experiments", "benchmarks", "tests") or (
            root == "dynse" and target in ROOMS and ROOMS.index(target) > ROOMS.index(room)
        ):
            wrong.append(name)
    return wrong


def modules():
    """(dotted name, path) of every module in a room."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ["dynse", *path.relative_to(PACKAGE).with_suffix("").parts]
        if parts != ["dynse", "__init__"]:
            found.append((".".join(parts), path))
    return found


def test_every_module_stands_in_a_room():
    assert len(modules()) > 20
    assert {name.split(".")[1] for name, _ in modules()} <= set(ROOMS)


@pytest.mark.parametrize(("name", "path"), modules(), ids=lambda value: str(value).split("/")[-1])
def test_no_module_imports_from_a_room_below_it(name, path):
    assert upward(path.read_text(encoding="utf-8"), name) == []


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("from dynse.models.waveform import enhance", ["dynse.models.waveform.enhance"]),
        ("import dynse.training.step", ["dynse.training.step"]),
        ("from dynse import streaming", ["dynse.streaming"]),
        ("from ..models import waveform", ["dynse.models.waveform"]),
        ("def f():\n    from dynse.models import waveform", ["dynse.models.waveform"]),
        ("from experiments import train_dyncp", ["experiments.train_dyncp"]),
        ("from dynse.audio.stft import STFT\nimport jax\nfrom . import gate", []),
    ],
)
def test_an_upward_import_would_be_seen(source, wrong):
    assert upward(source, "dynse.gating.module") == wrong


def foreign(source, module):
    """Imports of a module that are neither jax (and NumPy, which it brings), flax, the standard
    library nor its own room."""
    own = ".".join(module.split(".")[:2])
    return [
        name
        for name in sorted(imported(source, module))
        if not name.startswith(f"{own}.")
        and name.partition(".")[0] not in {"jax", "numpy", "flax", *sys.stdlib_module_names}
    ]


@pytest.mark.parametrize("room", ["gating", "quantization"])
def test_rooms_for_other_people_s_code_import_jax_and_flax_alone(room):
    for name, path in modules():
        if name.startswith(f"dynse.{room}."):
            assert foreign(path.read_text(encoding="utf-8"), name) == [], name


def test_a_foreign_import_would_be_seen():
    source = "import math, jax\nimport numpy as np\nimport scipy\n"
    source += (
        "from dynse.gating.step import hard_step\nfrom dynse.audio import stft\nfrom . import gate"
    )
    assert foreign(source, "dynse.gating.module") == ["dynse.audio.stft", "scipy"]


BARRIER = f"""
import sys

BARRED = {HEAVY!r}


class Barrier:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BARRED:
            raise AssertionError(f"barred: {{name}}")


sys.meta_path.insert(0, Barrier())
"""

TRAINING = """
import importlib
import pkgutil

import dynse
import dynse.models
import dynse.training

for package in (dynse.models, dynse.training):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)

import jax
import numpy as np

from dynse.audio.stft import STFT
from dynse.data.bank import Bank
from dynse.data.mixing import MixingConfig, load_source
from dynse.models.conv_fsenet import ConvFSENet, GateConfig
from dynse.training.crops import CropDraw
from dynse.training.gates import GateLoss, GateTraining
from dynse.training.step import OptimizerConfig, batch_key, init_train_state, make_train_step

stft = STFT(16, 16, 8)
samples = np.random.default_rng(0).integers(-3000, 3000, 4000).astype(np.int16)
source = load_source(Bank(samples, np.array([0, 4000]), ("a",), ("g",)))
model = ConvFSENet(bins=9, width=4, inner=4, stacks=1, blocks=1, gate=GateConfig(hidden=2))
extra, optimizer = GateLoss(GateTraining(), steps=2), OptimizerConfig().build(2)
state = init_train_state(model, optimizer, extra, seed=0)
before = jax.tree.map(np.array, state.params)
mixing = MixingConfig(2, 0.1)
step = make_train_step(model, optimizer, extra, mixing, stft, seed=0)
draw = CropDraw(source, source, lambda index: batch_key(index, seed=0), mixing)
for crops in draw.each(range(2)):
    state, metrics = step(state, *crops)
assert int(state.step) == 2
assert np.isfinite(float(metrics["loss"]))
moved = jax.tree.map(lambda a, b: bool((a != np.asarray(b)).any()), before, state.params)
assert any(jax.tree.leaves(moved)), moved
assert not [name for name in sys.modules if name.partition(".")[0] in BARRED]
print("trained")
"""


def python(source):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, timeout=300
    )


def test_two_steps_train_where_audio_plot_and_metric_packages_are_barred():
    done = python(BARRIER + TRAINING)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["trained"]


@pytest.mark.parametrize("package", HEAVY)
def test_the_barrier_bars(package):
    done = python(
        BARRIER
        + f"""
import importlib
try:
    importlib.import_module({package!r})
except AssertionError as error:
    print(error)
"""
    )
    assert done.stdout.strip() == f"barred: {package}", done.stderr


def test_an_import_inside_a_library_function_meets_the_barrier():
    use = "from dynse.audio.files import read_audio\nread_audio(__import__('os').devnull)"
    assert "barred: so" in python(BARRIER + use).stderr
