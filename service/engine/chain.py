"""The graphs of a task one after the other, as one function of tensors: what the Open Inference Protocol calls a model."""

from __future__ import annotations

from dataclasses import dataclass

from service.contract.manifest import Port
from service.engine.store import Model, Roles


@dataclass(frozen=True)
class Stage:
    """One graph of a chain.

    Attributes:
        takes: by the graph's input, the tensor that goes in.
    """

    graph: str
    takes: dict[str, str]


@dataclass(frozen=True)
class Chain:
    """Stages in order; `inputs` are what no stage before gives, `outputs` what the last one gives."""

    stages: tuple[Stage, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def chain_of(model: Model, task: str, roles: Roles) -> Chain:
    """The chain of a model's task, in the order in which the task declares its roles."""
    stages, inputs, given = [], dict[str, Port](), set[str]()
    outputs: tuple[Port, ...] = ()
    for name, role in roles.items():
        if name not in model.manifest.tasks[task]:
            continue
        graph = model.manifest.graphs[model.manifest.tasks[task][name]]
        takes = {port.name: role.takes.get(port.name, port.name) for port in graph.inputs}
        inputs |= {takes[port.name]: port for port in graph.inputs if takes[port.name] not in given}
        given |= {port.name for port in graph.outputs}
        outputs = graph.outputs
        stages.append(Stage(model.manifest.tasks[task][name], takes))
    return Chain(tuple(stages), tuple(inputs.values()), outputs)
