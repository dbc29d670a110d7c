"""One training step of a bundle in plain Python: what a host loop in any language does. Needs numpy and onnxruntime, nothing of ours.

    python examples/onnxruntime_step.py BUNDLE [STEP]

runs recorded step STEP (0) of the bundle's golden trace and prints its loss and gradient norms beside the recorded ones.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

bundle = Path(sys.argv[1])
manifest = json.loads((bundle / "manifest.json").read_text())
golden = json.loads((bundle / "golden.json").read_text())
weights = np.memmap(bundle / "weights.bin", np.uint8, "r")
table = {tensor["name"]: tensor for tensor in manifest["weights"]}
layers, kinds = manifest["model"]["num_hidden_layers"], manifest["model"]["layer_kinds"]
sessions = {}


def weight(name, layer):
    """A tensor of weights.bin in place; of a stacked one the layer's slice."""
    tensor = table[name]
    size = int(np.prod(tensor["shape"])) * np.dtype(tensor["dtype"]).itemsize
    array = weights[tensor["offset"] : tensor["offset"] + size].view(tensor["dtype"]).reshape(tensor["shape"])
    return array[layer] if name.startswith("layers.") else array


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


def step(train, propagate, batch, adapter):
    """The loss, and layer -> gradient float32 [n] of the trained layers."""
    embedded = run("embed", **batch)
    attention = [{name: embedded[f"{name}.{kind}"] for name in ("cos", "sin", "mask")} for kind in range(max(kinds) + 1)]
    h, saved, gradients = embedded["h"], {}, {}
    for layer in range(layers):
        if layer in propagate:
            saved[layer] = h
        h = run("block_forward", layer, h=h, adapter=adapter[layer], **attention[kinds[layer]])["h_next"]
    result = run("head", h=h, labels=batch["labels"])
    g = result["g"]
    for layer in range(layers - 1, min(train) - 1, -1):
        if layer in propagate:  # any other layer passes g on unchanged, and nothing of it is read
            back = run("block_backward", layer, h=saved.pop(layer), g=g, adapter=adapter[layer], **attention[kinds[layer]])
            g = back["g_next"]
            if layer in train:
                gradients[layer] = back["d_adapter"]
    return float(result["loss"]), gradients


if __name__ == "__main__":
    recorded = golden["steps"] + golden["run"][:1]  # those from the initial adapter
    chosen = recorded[int(sys.argv[2]) if len(sys.argv) > 2 else 0]
    length = 8 + int.from_bytes((bundle / "adapter.safetensors").read_bytes()[:8], "little")  # safetensors: header, then the data
    header = json.loads((bundle / "adapter.safetensors").read_bytes()[8:length])
    data = (bundle / "adapter.safetensors").read_bytes()[length:]
    adapter = np.zeros((layers, manifest["adapter"]["size"]), np.float32)
    for layer in range(layers):
        for matrix in manifest["adapter"]["matrices"]:
            start, stop = header[f"base_model.model.model.layers.{layer}.{matrix['name']}.weight"]["data_offsets"]
            adapter[layer, matrix["offset"] :][: (stop - start) // 4] = np.frombuffer(data[start:stop], np.float32)
    batch = {name: np.array(x, np.int64) for name, x in golden["batches"][chosen["batch"]].items()}
    loss, gradients = step(set(chosen["subset"]["train"]), set(chosen["subset"]["propagate"]), batch, adapter)
    norms = {layer: float(np.linalg.norm(gradients[layer])) for layer in sorted(gradients)}
    print(json.dumps({"loss": loss, "recorded_loss": chosen["loss"], "norms": norms, "recorded_norms": chosen["gradient_norms"]}))
