"""One training step of a bundle in plain Python: what a host loop in any language does. Needs numpy and onnxruntime, nothing of ours.

    python examples/onnxruntime_step.py BUNDLE [STEP]

runs recorded step STEP (0) of the bundle's golden trace and prints its loss and gradient norms beside the recorded ones.
"""

import json
import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # looked at by the import: official builds from 1.29 on report to Microsoft
import onnxruntime as ort

bundle = Path(sys.argv[1])
manifest = json.loads((bundle / "manifest.json").read_text())
golden = json.loads((bundle / "golden.json").read_text())
weights = np.memmap(bundle / "weights.bin", np.uint8, "r")
table = {tensor["name"]: tensor for tensor in manifest["weights"]}
layers, kinds = manifest["layers"], {kind["name"]: kind for kind in manifest["kinds"]}
givers = {value: number for number, layer in enumerate(layers) for value in layer["gives"].values()}
sessions = {}


def weight(name, layer):
    """A tensor of weights.bin in place; of a stacked one the layer's slice, by its number in its kind."""
    tensor = table[name]
    size = int(np.prod(tensor["shape"])) * np.dtype(tensor["dtype"]).itemsize
    array = weights[tensor["offset"] : tensor["offset"] + size].view(tensor["dtype"]).reshape(tensor["shape"])
    return array[layers[layer]["number"]] if name.startswith("layers.") else array


def run(program, layer=None, **feeds):
    """Runs a program; returns its outputs by name."""
    graph = manifest["graphs"][program]
    if program not in sessions:
        options = ort.SessionOptions()
        for key, entry in manifest["runtime"]["session_config"].items():
            options.add_session_config_entry(key, entry)
        sessions[program] = ort.InferenceSession(bundle / graph["file"], options, providers=["CPUExecutionProvider"])
    inputs = {x["name"]: weight(x["weight"], layer) if x["weight"] else feeds[x["name"]] for x in graph["inputs"]}
    values = {name: ort.OrtValue.ortvalue_from_numpy(np.asarray(x)) for name, x in inputs.items()}
    outputs = [x["name"] for x in graph["outputs"]]
    return dict(zip(outputs, (x.numpy() for x in sessions[program].run_with_ort_values(outputs, values)), strict=True))


def run_layer(role, number, tables, crossing, **feeds):
    """A layer's program, with what it reads and takes."""
    layer = layers[number]
    bound = {name: tables[table] for name, table in layer["reads"].items() if table in tables}
    bound |= {name: crossing[value] for name, value in layer["takes"].items()}
    return run(f"{layer['kind']}_{role}", number, **bound, **feeds)


def step(train, propagate, batch, adapter):
    """The loss, and layer -> gradient float32 [n] of the trained layers. `adapter`: each layer's vector."""
    tables = run("embed", **batch)
    h, saved, gradients, crossing, sums = tables["h"], {}, {}, {}, {}
    for number, layer in enumerate(layers):
        if number in propagate:
            saved[number] = h
        forward = run_layer("forward", number, tables, crossing, h=h, adapter=adapter[number])
        h = forward["h_next"]
        crossing |= {value: forward[name] for name, value in layer["gives"].items()}
    result = run("head", h=h, labels=batch["labels"])
    g = result["g"]
    for number in range(len(layers) - 1, min(train) - 1, -1):
        if number in propagate:  # any other layer passes g on unchanged, and nothing of it is read
            layer, kind = layers[number], kinds[layers[number]["kind"]]
            shapes = {x["name"]: x["shape"] for x in manifest["graphs"][f"{layer['kind']}_forward"]["outputs"]}
            owed = {name: sums.pop(layer["gives"].get(name), None) for name in kind["gives"]}
            owed = {f"d_{name}": np.zeros(shapes[name], np.float32) if d is None else d for name, d in owed.items()}
            back = run_layer("backward", number, tables, crossing, h=saved.pop(number), g=g, adapter=adapter[number], **owed)
            g = back["g_next"]
            for name, value in layer["takes"].items():
                if givers[value] in propagate and givers[value] >= min(train):
                    sums[value] = sums.get(value, 0) + back[f"d_{name}"]
            if number in train:
                gradients[number] = back["d_adapter"]
    return float(result["loss"]), gradients


if __name__ == "__main__":
    recorded = golden["steps"] + golden["run"][:1]  # those from the initial adapter
    chosen = recorded[int(sys.argv[2]) if len(sys.argv) > 2 else 0]
    length = 8 + int.from_bytes((bundle / "adapter.safetensors").read_bytes()[:8], "little")  # safetensors: header, then the data
    header = json.loads((bundle / "adapter.safetensors").read_bytes()[8:length])
    data = (bundle / "adapter.safetensors").read_bytes()[length:]
    prefix, adapter = manifest["model"]["tensor_prefix"], []
    for number, layer in enumerate(layers):
        adapter.append(np.zeros(kinds[layer["kind"]]["size"], np.float32))
        for matrix in kinds[layer["kind"]]["matrices"]:
            start, stop = header[f"base_model.model.{prefix}layers.{number}.{matrix['name']}.weight"]["data_offsets"]
            adapter[number][matrix["offset"] :][: (stop - start) // 4] = np.frombuffer(data[start:stop], np.float32)
    batch = {name: np.array(x, np.int64) for name, x in golden["batches"][chosen["batch"]].items()}
    loss, gradients = step(set(chosen["subset"]["train"]), set(chosen["subset"]["propagate"]), batch, adapter)
    norms = {layer: float(np.linalg.norm(gradients[layer])) for layer in sorted(gradients)}
    print(json.dumps({"loss": loss, "recorded_loss": chosen["loss"], "norms": norms, "recorded_norms": chosen["gradient_norms"]}))
