"""A `.mlpackage`: which functions it has, what they take and return, and their operations.

Of MIL what the programs of a fine-tune consist of: functions of one block of operations on tensors of known shapes. `mlmodel/format/` in
coremltools' repository is the specification.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lcsb_mobile.bundle.files import MODEL_BYTES
from lcsb_mobile.errors import BundleError
from lcsb_mobile.io.bounded import one_line, read_bounded
from lcsb_mobile.mil.protobuf import protobuf
from lcsb_mobile.mil.weight_file import WeightFile

MANIFEST_BYTES = 2**16
TENSOR_BYTES = 2**30  # of one value
WEIGHTS = "@model_path/weights/weight.bin"
DATA = "com.apple.CoreML"
COMPRESSED = "constexpr_blockwise_shift_scale"
NUMBERS = {"FLOAT16": "float16", "FLOAT32": "float32", "INT8": "int8", "UINT8": "uint8", "INT32": "int32", "BOOL": "bool"}
PACKED = {"INT4": "int4", "UINT4": "uint4"}  # which constants alone are


@dataclass(frozen=True)
class TensorType:
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"

    @property
    def nbytes(self) -> int:
        """As an array; a type of 4 bits takes a byte there."""
        return math.prod(self.shape) * (np.dtype(self.dtype).itemsize if self.dtype in NUMBERS.values() else 1)


@dataclass(frozen=True)
class Blob:
    """A constant in the file of weights."""

    offset: int
    type: TensorType


@dataclass(frozen=True)
class Name:
    """Of a value that the function takes, or an operation before has made."""

    name: str


Operand = Name | Blob | np.ndarray | str


@dataclass(frozen=True)
class Operation:
    """`operands`: a parameter has several where it takes a list. `results`: by name."""

    kind: str
    name: str
    operands: Mapping[str, tuple[Operand, ...]]
    results: Mapping[str, TensorType]

    @property
    def decompresses(self) -> bool:
        """Whether its result is a weight, of integers."""
        data = self.operands["data"][0] if self.kind == COMPRESSED else None
        return isinstance(data, Blob) and "int" in data.type.dtype


@dataclass(frozen=True)
class Function:
    name: str
    inputs: Mapping[str, TensorType]
    outputs: Mapping[str, TensorType]
    operations: tuple[Operation, ...]


class Package:
    """Functions are read when they are asked for. `names`: of all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._model = protobuf("Model_pb2").Model()
        self._types = protobuf("MIL_pb2").DataType
        data = _data_path(path)
        try:
            self._model.ParseFromString(read_bounded(data / "model.mlmodel", MODEL_BYTES))
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
        except Exception as error:  # protobuf's DecodeError, whose module coremltools' version of protobuf decides
            raise BundleError(f"{path}: not a package of Core ML: {one_line(error)}") from error
        if self._model.WhichOneof("Type") != "mlProgram":
            raise BundleError(f"{path}: expected an ML program, found {self._model.WhichOneof('Type')}")
        self._described = {function.name: function for function in self._model.description.functions}
        self.names = tuple(self._model.mlProgram.functions)
        self.weights = WeightFile(data / "weights" / "weight.bin")

    def function(self, name: str) -> Function:
        """Raises BundleError for one that is not there, or not as this reader knows them."""
        if name not in self._model.mlProgram.functions or name not in self._described:
            raise BundleError(f"{self.path}: it has no function {name!r}; export the bundle again")
        raw = self._model.mlProgram.functions[name]
        try:
            inputs = {x.name: self._type(x.type) for x in raw.inputs}
            block = raw.block_specializations[raw.opset]
            operations = tuple(self._operation(operation) for operation in block.operations)
            outputs = self._checked(inputs, operations, block.outputs)
            self._check_interface(name, inputs, outputs)
        except ValueError as error:
            raise BundleError(f"{self.path}: function {name}: {one_line(error)}; export the bundle again") from error
        return Function(name, inputs, outputs, operations)

    # Of one function; what is wrong is a ValueError

    def _checked(self, inputs: Mapping[str, TensorType], operations: Sequence[Operation], outputs: Sequence[str]) -> dict[str, TensorType]:
        """The outputs' types. Every name is given once, and before it is used."""
        known = dict(inputs)
        for operation in operations:
            for operand in (x for several in operation.operands.values() for x in several):
                if isinstance(operand, Name) and operand.name not in known:
                    raise ValueError(f"{operation.name} takes {operand.name!r}, which nothing before it gives")
            if again := operation.results.keys() & known.keys():
                raise ValueError(f"{operation.name} gives {', '.join(sorted(again))}, which is given before")
            known.update(operation.results)
        if missing := [name for name in outputs if name not in known]:
            raise ValueError(f"it returns {', '.join(missing)}, which nothing gives")
        return {name: known[name] for name in outputs}

    def _check_interface(self, name: str, inputs: Mapping[str, TensorType], outputs: Mapping[str, TensorType]) -> None:
        """What the package says to whoever loads it, against what the program does."""
        arrays = protobuf("FeatureTypes_pb2").ArrayFeatureType.ArrayDataType
        for side, found in (("input", inputs), ("output", outputs)):
            features = {x.name: x.type.multiArrayType for x in getattr(self._described[name], side)}
            said = {key: TensorType(arrays.Name(x.dataType).lower(), tuple(x.shape)) for key, x in features.items()}
            if said != found:
                texts = (", ".join(f"{key} {x}" for key, x in tensors.items()) for tensors in (said, found))
                raise ValueError("its {}s are described as {}, and are {}".format(side, *texts))

    def _operation(self, raw: Any) -> Operation:
        name = raw.outputs[0].name if raw.outputs else raw.type
        if raw.blocks:
            raise ValueError(f"{name}: expected no blocks within an operation")
        operands = {key: tuple(self._operand(x) for x in argument.arguments) for key, argument in raw.inputs.items()}
        if raw.type == "const":
            operands = {"val": (self._value(raw.attributes["val"]),)}
        return Operation(raw.type, name, operands, {x.name: self._type(x.type) for x in raw.outputs})

    def _operand(self, raw: Any) -> Operand:
        return Name(raw.name) if raw.WhichOneof("binding") == "name" else self._value(raw.value)

    def _type(self, raw: Any, among: Mapping[str, str] = NUMBERS) -> TensorType:
        tensor = raw.tensorType
        dtype = self._types.Name(tensor.dataType)
        shape = tuple(dimension.constant.size for dimension in tensor.dimensions)
        if raw.WhichOneof("type") != "tensorType" or dtype not in {**among, "STRING": ""} or len(shape) != tensor.rank or 0 in shape:
            raise ValueError(f"expected tensors of known shapes of {', '.join(among.values())}, found {one_line(raw)}")
        found = TensorType(among.get(dtype, "string"), shape)
        if found.nbytes > TENSOR_BYTES:
            raise ValueError(f"expected tensors of at most {TENSOR_BYTES} bytes, found {found}")
        return found

    def _value(self, raw: Any) -> Operand:
        type_ = self._type(raw.type, NUMBERS | PACKED)
        if raw.WhichOneof("value") == "blobFileValue":
            if raw.blobFileValue.fileName != WEIGHTS:
                raise ValueError(f"expected weights in {WEIGHTS}, found {raw.blobFileValue.fileName!r}")
            return Blob(raw.blobFileValue.offset, type_)
        return _immediate(raw.immediateValue.tensor, type_)


def _data_path(path: Path) -> Path:
    """Where the model of a package lies, as its manifest says; the weights lie beside it."""
    try:
        manifest = json.loads(read_bounded(path / "Manifest.json", MANIFEST_BYTES))
        place = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"]
    except OSError as error:
        raise BundleError(f"{path}: not a package: Manifest.json cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path}: not a package: malformed Manifest.json ({one_line(repr(error))})") from error
    if place != f"{DATA}/model.mlmodel":
        raise BundleError(f"{path}: expected its model at {DATA}/model.mlmodel, found {one_line(place)}")
    return path / "Data" / DATA


def _immediate(raw: Any, type_: TensorType) -> np.ndarray | str:
    """A constant that stands in the program."""
    held = raw.WhichOneof("value")
    if type_.dtype == "string":
        if held != "strings" or len(raw.strings.values) != 1 or type_.shape:
            raise ValueError("expected one string")
        return str(raw.strings.values[0])
    expected = {"float32": "floats", "int32": "ints", "bool": "bools"}.get(type_.dtype, "bytes")
    if held != expected or type_.dtype not in NUMBERS.values():
        raise ValueError(f"expected {type_.dtype} as {expected}, found {held}")
    content = getattr(raw, expected).values
    values = np.frombuffer(content, type_.dtype) if expected == "bytes" else np.array(content, type_.dtype)
    if values.size != math.prod(type_.shape):
        raise ValueError(f"expected {type_}, found {values.size} elements")
    return values.reshape(type_.shape)
