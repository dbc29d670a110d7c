"""One `.mlpackage` of many functions, written as they come: their weights at once into the one file of all, each once.

coremltools' own way from several functions to one package (`save_multifunction`) reads every one back, compares all constants and takes
minutes and gigabytes; and it would write a layer's function anew for each layer. Here a function is built once for each program of a kind
of layers; of each layer it is a copy that points to other weights.

The file of weights, as `MILBlob/Blob/StorageFormat.hpp` in coremltools' repository specifies it: a header of 64 bytes with the number of
tensors and the version 2; then for each tensor 64 bytes of metadata and its data, both at multiples of 64.
"""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lcsb_mobile.bundle.programs import plain_name
from lcsb_mobile.bundle.weights import LAYERS, MappedWeights
from lcsb_mobile.errors import UnsupportedModelError
from lcsb_mobile.export.coreml.constants import Array, Constant, Table
from lcsb_mobile.export.coreml.lowering import FEW, Lowered, Program, lower
from lcsb_mobile.io.bounded import one_line
from lcsb_mobile.targets import MIL_DATA

SPECIFICATION_VERSION = 9  # iOS 18, the first with many functions and int4
OPSET = "CoreML8"
ALIGNMENT, SENTINEL, VERSION = 64, 0xDEADBEEF, 2
TYPES = {"float16": 1, "float32": 2, "uint8": 3, "int8": 4, "int4": 8, "int32": 14}  # of MILBlob/Blob/BlobDataType.hpp
WEIGHTS = "@model_path/weights/weight.bin"
ITEM = "com.apple.CoreML"


class WeightFile:
    """Tensors one after the other, each once. `offsets`: where the metadata of each stands."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.offsets = file, dict[object, int]()
        file.write(bytes(ALIGNMENT))

    def add(self, key: object, dtype: str, content: np.ndarray) -> int:
        offset = self.offsets[key] = -(-self.file.tell() // ALIGNMENT) * ALIGNMENT
        self.file.write(bytes(offset - self.file.tell()))
        self.file.write(struct.pack("<IIQQ", SENTINEL, TYPES[dtype], content.nbytes, offset + ALIGNMENT).ljust(ALIGNMENT, b"\0"))
        self.file.write(content.data)
        return offset

    def close(self) -> None:
        self.file.write(bytes(-self.file.tell() % ALIGNMENT))
        self.file.seek(0)
        self.file.write(struct.pack("<II", len(self.offsets), VERSION))
        self.file.close()


class Package:
    """`add` functions, then `finish`. `weights`: of `weights.bin`, by name."""

    def __init__(self, directory: Path, weights: MappedWeights) -> None:
        from coremltools import proto

        self.weights, self.directory = weights, directory
        (directory / MIL_DATA / "weights").mkdir(parents=True)
        self.model = proto.Model_pb2.Model(specificationVersion=SPECIFICATION_VERSION)
        self.model.mlProgram.version = 1
        self.file = WeightFile((directory / MIL_DATA / "weights" / "weight.bin").open("wb"))

    def add(self, program: Program, functions: Mapping[str, int | None]) -> int:
        """`functions`: name -> the layer's number within its kind, for weights of layers. Returns the bytes of a function's values while it
        runs. Raises UnsupportedModelError for what Core ML does not take."""
        lowered = lower(program)
        template, constants = _translated(lowered, program.name)
        interface = _interface(template, program)
        for name, number in functions.items():
            function = self.model.mlProgram.functions[name]
            function.CopyFrom(template)
            for value in blob_values(function):
                value.blobFileValue.offset = self._stored(constants[value.blobFileValue.offset], number)
            self.model.description.functions.add(name=name).MergeFrom(interface)
        return lowered.working_bytes

    def _stored(self, constant: Constant, number: int | None) -> int:
        key = (constant, number if isinstance(constant, Table) and constant.weight.startswith(LAYERS) else None)
        if key not in self.file.offsets:
            dtype = "int4" if isinstance(constant, Table) and constant.nibbles else constant.dtype
            self.file.add(key, dtype, constant.content(self.weights, key[1]))
        return self.file.offsets[key]

    def finish(self, default: str, versions: Mapping[str, str]) -> None:
        """`default`: the function that is loaded where none is named. `versions`: of what it was written with."""
        self.file.close()
        description = self.model.description
        description.defaultFunctionName = default
        description.metadata.shortDescription = "The programs of a fine-tune, which a loop over the layers calls."
        description.metadata.userDefined.update(versions)
        (self.directory / MIL_DATA / "model.mlmodel").write_bytes(self.model.SerializeToString(deterministic=True))
        items = {name: str(uuid.uuid5(uuid.NAMESPACE_OID, f"{ITEM}/{name}")).upper() for name in ("model.mlmodel", "weights")}
        entries = {item: {"author": ITEM, "description": "", "name": name, "path": f"{ITEM}/{name}"} for name, item in items.items()}
        manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": items["model.mlmodel"]}
        (self.directory / "Manifest.json").write_text(json.dumps(manifest, indent=4) + "\n", encoding="utf-8")


def blob_values(function: Any) -> Iterator[Any]:
    """What stands in the file of weights: values of constants, and operands of operators on them."""
    for operation in function.block_specializations[OPSET].operations:
        if operation.type == "const":
            values = [operation.attributes["val"]]
        else:
            values = [binding.value for argument in operation.inputs.values() for binding in argument.arguments]
        yield from (value for value in values if value.WhichOneof("value") == "blobFileValue")


def _translated(lowered: Lowered, where: str) -> tuple[Any, list[Constant]]:
    """A function as the file has it, but for the offsets of weights: each is the number of a constant in the list."""
    from coremltools.converters.mil.backend.mil import helper
    from coremltools.converters.mil.backend.mil.load import MILProtoExporter
    from coremltools.converters.mil.mil import Program as MilProgram

    constants: dict[Constant, int] = {}

    class Exporter(MILProtoExporter):  # type: ignore[misc]
        def get_milproto_value(self, var: Any) -> Any:
            constant = lowered.constants.get(var.op.name)
            if constant is None and isinstance(var.val, np.ndarray) and var.val.size >= FEW and var.val.dtype.name in TYPES:
                constant = Array.of(var.val)  # such as the bias of zeros that an operator has
            if constant is None:
                return helper.create_immediate_value(var)
            number = constants.setdefault(constant, len(constants))
            return helper.create_file_value_tensor(WEIGHTS, number, var.shape, helper.types_to_proto_primitive(var.dtype))

    program = MilProgram()
    try:
        program.add_function(where, lowered.function)
        program._check_early_error_out_for_invalid_program()
        translated = Exporter(program, "", SPECIFICATION_VERSION).convert_function(lowered.function, OPSET)
    except (ValueError, TypeError) as error:
        raise UnsupportedModelError(f"{where}: coremltools refuses it: {one_line(error)}") from error
    return translated, list(constants)


def _interface(function: Any, program: Program) -> Any:
    """What a function takes and returns, by the function itself; it is checked against what the bundle says, since Core ML's tools have
    turned types that an interface does not hold into others without a word."""
    from coremltools import proto

    block = function.block_specializations[OPSET]
    made = {output.name: output.type for operation in block.operations for output in operation.outputs}
    sides = ({x.name: x.type for x in function.inputs}, {name: made[name] for name in block.outputs})
    interface = proto.Model_pb2.FunctionDescription()
    for features, types, described in zip((interface.input, interface.output), sides, (program.inputs, program.outputs)):
        expected = {plain_name(x.name): (x.dtype.upper(), tuple(x.shape)) for x in described}
        found = {
            name: (proto.MIL_pb2.DataType.Name(x.tensorType.dataType), tuple(d.constant.size for d in x.tensorType.dimensions))
            for name, x in types.items()
        }
        if found != expected:
            raise UnsupportedModelError(f"{program.name}: expected a function of {expected}, found {found}")
        for x in described:
            feature = features.add(name=plain_name(x.name), shortDescription=x.meaning)
            feature.type.multiArrayType.shape.extend(x.shape)
            feature.type.multiArrayType.dataType = proto.FeatureTypes_pb2.ArrayFeatureType.ArrayDataType.Value(x.dtype.upper())
    return interface
