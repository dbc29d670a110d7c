"""The peer: LoRA steps in eager PyTorch with peft, float32, gradient checkpointing; `python -m lcsb_mobile.bench.torch_peer`."""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from typing import Any

import msgspec
import peft
import torch
import transformers

from lcsb_mobile.bench.jobs import LEARNING_RATE, SEED, StepsResult, TorchJob
from lcsb_mobile.config import AdamWConfig, ModelConfig
from lcsb_mobile.export.models.smollm3 import NO_ROPE
from lcsb_mobile.measuring.memory import MemorySampler, process_memory


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=TorchJob)
    transformers.logging.set_verbosity_error()
    torch.manual_seed(SEED)
    torch.set_num_threads(job.threads)
    base, _ = process_memory()
    clock = defaultdict[str, float](float)
    with MemorySampler() as sampler:
        model, optimizer = make_model(job)
        tokens = torch.randint(job.model.vocab_size, (1, job.seq_len))
        step(model, optimizer, tokens, defaultdict(float))
        losses, seconds = [], []
        for _ in range(job.steps):
            start = time.perf_counter()
            losses.append(step(model, optimizer, tokens, clock))
            seconds.append(time.perf_counter() - start)
    result = StepsResult(
        pid=os.getpid(),
        runtime="torch",
        runtime_version=str(torch.__version__),
        losses=tuple(losses),
        step_seconds=tuple(seconds),
        phase_seconds={name: total / job.steps for name, total in clock.items()},
        base_bytes=base,
        peak_anonymous_bytes=sampler.peak_anonymous,
        peak_rss_bytes=sampler.peak_rss,
    )
    print(msgspec.json.encode(result).decode())


def make_model(job: TorchJob) -> tuple[Any, torch.optim.Optimizer]:
    """Random float32 weights, LoRA on the matrices that the bundle adapts, AdamW."""
    model: Any = transformers.AutoModelForCausalLM.from_config(hf_config(job.model), dtype=torch.float32)
    model.config.use_cache = False
    lora = peft.LoraConfig(r=job.rank, lora_alpha=job.alpha, target_modules=list(job.modules), task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, lora)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model, torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=AdamWConfig().weight_decay)


def hf_config(model: ModelConfig) -> Any:
    """What decides speed and memory: RoPE's base and scaling are left to the defaults."""
    fields = {name: getattr(model, name) for name in transformers_fields(model)}
    windows = [kind.window for kind in model.attention_kinds.values() if kind.window]
    if windows or len(set(model.layer_types)) > 1:
        fields["layer_types"] = list(model.layer_types)
    if windows:
        fields["sliding_window"] = windows[0]
    rotary = [name not in model.attention_kinds or model.attention_kinds[name].rotary for name in model.layer_types]
    if not all(rotary):  # the layer types have the names of their own that `models.smollm3` gives them
        fields |= {"no_rope_layers": [int(turned) for turned in rotary], "use_sliding_window": bool(windows)}
        fields["layer_types"] = [name.removesuffix(NO_ROPE) for name in model.layer_types]
    if model.linear_attention is not None:
        heads = msgspec.structs.asdict(model.linear_attention)
        fields |= {f"linear_{name}": value for name, value in heads.items() if name != "chunk"}
        fields["linear_conv_kernel_dim"] = model.conv_kernel
    elif model.conv_kernel:
        fields |= {"conv_L_cache": model.conv_kernel, "block_auto_adjust_ff_dim": False}
    fields["pad_token_id"] = None  # Phi-3's default lies beyond a small vocabulary
    return transformers.AutoConfig.for_model(model.model_type, **fields)


def transformers_fields(model: ModelConfig) -> list[str]:
    """Those of ModelConfig that have the names of transformers' own."""
    ours = {"model_type", "attention_kinds", "layer_types", "rotary_dim", "qkv_bias", "output_bias", "mlp_bias", "query_scale"}
    ours |= {"embedding_scale", "conv_kernel", "linear_attention", "tensor_prefix"}
    ours |= {"residual_multiplier", "logits_scaling", "attn_logit_softcapping", "final_logit_softcapping"}
    return [name for name in model.__struct_fields__ if name not in ours]


def step(model: Any, optimizer: torch.optim.Optimizer, tokens: torch.Tensor, clock: dict[str, float]) -> float:
    """One step; adds each phase's seconds to the clock. The head is in torch's forward and backward."""
    times = [time.perf_counter()]
    loss = model(input_ids=tokens, labels=tokens).loss
    times.append(time.perf_counter())
    loss.backward()
    times.append(time.perf_counter())
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], AdamWConfig().clip_norm)
    optimizer.step()
    optimizer.zero_grad()
    times.append(time.perf_counter())
    for name, start, stop in zip(("forward", "backward", "optimizer"), times, times[1:]):
        clock[name] += stop - start
    return float(loss.detach())


if __name__ == "__main__":
    main()
