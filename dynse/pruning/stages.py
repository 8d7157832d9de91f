"""A traced program in stages, of which those alone run again whose inputs have changed.

Equations that depend on the same ones of the inputs that will be changed are a stage. What they
read comes from stages that depend on fewer, so that these go first. All of them run once and give
the program's own values; with another value for one input, the stages that depend on it run again
and take the rest from those: what comes before that input is used, and branches beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Var

Values = dict[Var, Any]
# Of each variable that a stage reads, as `vmap` has it.
Axes = tuple[int | None, ...]


class _Stage(NamedTuple):
    """Equations that depend on the same inputs.

    Attributes:
        places: of these inputs.
        reads: variables of other stages and inputs.
        writes: variables that other stages read, or the result.
        compiled: `axes -> (*values read) -> values written`.
    """

    places: frozenset[int]
    reads: list[Var]
    writes: list[Var]
    compiled: Callable[[Axes], Callable[..., list[jax.Array]]]


class Stages:
    """A program of one result, each stage compiled once (and once more for each way to map it).

    Args:
        program: `jax.jit(function).trace(...).jaxpr`.
        places: of the inputs that will be changed, among the leaves of all arguments.
    """

    def __init__(self, program: ClosedJaxpr, places: Sequence[int]) -> None:
        self._inputs = program.jaxpr.invars
        self._constants = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
        (self._result,) = program.jaxpr.outvars
        self._stages = _cut(program.jaxpr, places)

    def run(self, inputs: Sequence[Any]) -> Values:
        """The program's own values.

        Args:
            inputs: the leaves of all arguments.
        """
        own = self._constants | dict(zip(self._inputs, inputs, strict=True))
        for stage in self._stages:
            own |= _run(stage, own, {}, None)
        return own

    def run_changed(self, own: Values, changes: Mapping[int, Any], axis: int | None) -> jax.Array:
        """The result for other values of some inputs.

        Args:
            own: from `run`.
            changes: place to value.
            axis: 0 where those are many values, side by side; the result is as many then, or a
                single one where it depends on none of them.
        """
        changed = {self._inputs[place]: value for place, value in changes.items()}
        for stage in self._stages:
            if not stage.places.isdisjoint(changes):
                changed |= _run(stage, own, changed, axis)
        return changed.get(self._result, own[self._result])


def _run(stage: _Stage, own: Values, changed: Values, axis: int | None) -> Values:
    axes = tuple(axis if variable in changed else None for variable in stage.reads)
    values = [(changed if variable in changed else own)[variable] for variable in stage.reads]
    return dict(zip(stage.writes, stage.compiled(axes)(*values), strict=True))


def _cut(jaxpr: Any, places: Sequence[int]) -> list[_Stage]:
    """The stages, each after those that it reads from."""
    depends = dict.fromkeys([*jaxpr.invars, *jaxpr.constvars], frozenset())
    depends |= {jaxpr.invars[place]: frozenset([place]) for place in places}
    parts: dict[frozenset[int], list[Any]] = {}
    for equation in jaxpr.eqns:
        on = frozenset().union(*(depends[variable] for variable in _variables([equation])))
        depends |= dict.fromkeys(equation.outvars, on)
        parts.setdefault(on, []).append(equation)
    needed, stages = set(jaxpr.outvars), []
    for on in sorted(parts, key=len, reverse=True):
        made = dict.fromkeys(variable for one in parts[on] for variable in one.outvars)
        reads = [one for one in dict.fromkeys(_variables(parts[on])) if one not in made]
        writes = [variable for variable in made if variable in needed]
        needed.update(reads)
        part = jaxpr.replace(
            constvars=(),
            invars=reads,
            outvars=writes,
            eqns=parts[on],
            debug_info=jaxpr.debug_info.with_unknown_names(),
        )
        stages.append(_Stage(on, reads, writes, functools.cache(functools.partial(_compile, part))))
    return stages[::-1]


def _variables(equations: Iterable[Any]) -> list[Var]:
    """That these read, without literals."""
    return [atom for one in equations for atom in one.invars if isinstance(atom, Var)]


def _compile(part: Any, axes: Axes) -> Callable[..., list[jax.Array]]:
    run = functools.partial(jax.core.eval_jaxpr, part, ())
    return jax.jit(jax.vmap(run, axes) if 0 in axes else run)
