"""Tensors of the Open Inference Protocol: JSON, and the binary tensor data extension."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.contract.manifest import Port
from service.problems import from_validation, invalid

HEADER_LENGTH = "Inference-Header-Content-Length"
DATATYPES = {"uint8": "UINT8", "int32": "INT32", "int64": "INT64", "float32": "FP32"}
_LENGTH = re.compile("[0-9]{1,12}")
_BOUNDS = {"uint8": (0, 255), "int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Parameters(_Part):
    binary_data_size: int | None = Field(default=None, ge=0)
    binary_data: bool = False
    binary_data_output: bool = False
    classification: int | None = None


class InputTensor(_Part):
    name: str
    shape: list[Annotated[int, Field(ge=0, le=2**31)]] = Field(max_length=8)
    datatype: str
    parameters: Parameters = Parameters()
    data: list[Any] | None = Field(default=None, description="flat or nested, in row-major order; absent when binary")


class OutputRequest(_Part):
    name: str
    parameters: Parameters = Parameters()


class InferenceRequest(_Part):
    """`POST /v2/models/{name}/infer`."""

    id: str | None = Field(default=None, max_length=256)
    parameters: Parameters = Parameters()
    inputs: list[InputTensor] = Field(min_length=1, max_length=16)
    outputs: list[OutputRequest] = Field(default=[], max_length=16)


class OutputTensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[int | float]


class InferenceResponse(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


@dataclass(frozen=True)
class Asked:
    """A request whose tensors are arrays."""

    id: str | None
    arrays: dict[str, np.ndarray]
    outputs: list[tuple[str, bool]]
    """(name, as binary)"""


def parse(content: bytes, header_length: str | None, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> Asked:
    """Reads a request's body against the ports of the model.

    Raises:
        ProblemError: 422, whatever does not fit.
    """
    if header_length is not None and not (_LENGTH.fullmatch(header_length) and int(header_length) <= len(content)):
        raise invalid(["header", HEADER_LENGTH], f"{header_length[:40]} is not a length within the body")
    head = len(content) if header_length is None else int(header_length)
    try:
        request = InferenceRequest.model_validate_json(content[:head])
    except ValidationError as error:
        raise from_validation(error) from error
    arrays = _arrays(request, memoryview(content)[head:], {port.name: port for port in inputs})
    known = [port.name for port in outputs]
    for index, wanted in enumerate(request.outputs):
        if wanted.name not in known:
            raise invalid(["body", "outputs", index, "name"], f"there is no output {wanted.name[:80]}; there is: {', '.join(known)}")
        if wanted.parameters.classification:
            raise invalid(["body", "outputs", index, "parameters", "classification"], "is not supported")
    asked = [(wanted.name, wanted.parameters.binary_data) for wanted in request.outputs]
    return Asked(request.id, arrays, asked or [(name, request.parameters.binary_data_output) for name in known])


def _arrays(request: InferenceRequest, binary: memoryview, ports: dict[str, Port]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for index, tensor in enumerate(request.inputs):
        place: list[str | int] = ["body", "inputs", index]
        port = ports.get(tensor.name)
        if port is None or tensor.name in arrays:
            raise invalid([*place, "name"], f"{tensor.name[:80]}: the inputs are {', '.join(ports)}, each once")
        if tensor.datatype != DATATYPES[port.dtype]:
            raise invalid([*place, "datatype"], f"is {tensor.datatype[:20]}; {port.name} is {DATATYPES[port.dtype]}")
        if tuple(tensor.shape[1:]) != port.item or not tensor.shape or tensor.shape[0] < 1:
            raise invalid([*place, "shape"], f"is {tensor.shape}; {port.name} is [n, {', '.join(map(str, port.item))}] with n from 1 on")
        size = tensor.parameters.binary_data_size
        if size is None:
            arrays[port.name] = _from_json(tensor, port, place)
        else:
            arrays[port.name] = _from_binary(tensor, port, binary[:size], size, place)
            binary = binary[size:]
    if missing := ports.keys() - arrays.keys():
        raise invalid(["body", "inputs"], f"lack {', '.join(sorted(missing))}")
    if binary:
        raise invalid(["body"], f"{len(binary)} bytes follow the last tensor")
    if len({len(array) for array in arrays.values()}) > 1:
        raise invalid(["body", "inputs"], "differ in their first dimension")
    for index, tensor in enumerate(request.inputs):
        if not np.isfinite(arrays[tensor.name]).all():
            raise invalid(["body", "inputs", index], "has values that are not finite")
    return arrays


def _from_json(tensor: InputTensor, port: Port, place: list[str | int]) -> np.ndarray:
    if tensor.data is None:
        raise invalid(place, "has neither data nor binary_data_size")
    numbers = _flat(tensor.data, place)
    if len(numbers) != math.prod(tensor.shape):
        raise invalid([*place, "data"], f"has {len(numbers)} numbers, not {math.prod(tensor.shape)}")
    values = np.array(numbers)
    if values.dtype.kind not in "iuf":
        raise invalid([*place, "data"], "has numbers that are too large")
    if port.dtype in _BOUNDS:
        low, high = _BOUNDS[port.dtype]
        if values.dtype.kind == "f" or (values < low).any() or (values > high).any():
            raise invalid([*place, "data"], f"has values that are no {DATATYPES[port.dtype]}")
    elif (np.abs(values) > np.finfo(np.float32).max).any():
        raise invalid([*place, "data"], "has values that are no FP32")
    return values.astype(port.dtype).reshape(tensor.shape)


def _flat(data: list[Any], place: list[str | int]) -> list[int | float]:
    """The numbers of a list, flat or nested evenly, in row-major order; NumPy is not let near anything else, which it might make huge."""
    while data and isinstance(data[0], list):
        if not all(isinstance(row, list) and len(row) == len(data[0]) for row in data):
            raise invalid([*place, "data"], "is nested unevenly")
        data = list(chain.from_iterable(data))
    if not set(map(type, data)) <= {int, float}:
        raise invalid([*place, "data"], "is not of numbers alone")
    return data


def _from_binary(tensor: InputTensor, port: Port, content: memoryview, size: int, place: list[str | int]) -> np.ndarray:
    expected = math.prod(tensor.shape) * np.dtype(port.dtype).itemsize
    if size != expected or len(content) != size:
        raise invalid([*place, "parameters", "binary_data_size"], f"is {size}; {expected} bytes are due and {len(content)} are there")
    return np.frombuffer(content, np.dtype(port.dtype).newbyteorder("<")).astype(port.dtype).reshape(tensor.shape)


def render(asked: Asked, outputs: dict[str, np.ndarray], model: str, version: str) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON when tensors follow it in binary."""
    described, binary = [], []
    for name, as_binary in asked.outputs:
        array = np.ascontiguousarray(outputs[name])
        one: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": DATATYPES[str(array.dtype)]}
        if as_binary:
            binary.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
            one["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            one["data"] = array.ravel().tolist()
        described.append(one)
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": described}
    if asked.id is not None:
        answer["id"] = asked.id
    head = json.dumps(answer).encode()
    return head + b"".join(binary), len(head) if binary else None
