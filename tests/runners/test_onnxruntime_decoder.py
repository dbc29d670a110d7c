"""Generation with a cache: at every position the logits of the whole sequence, whatever was prefilled and whatever came before."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.captured import TILE
from helpers.onnxruntime_bundles import Exported, MakeExported
from helpers.tiny_models import ARCHITECTURES, SEQ_LEN, packed_batch, subset

from lcsb_mobile.runners.block_runner import BlockRunner
from lcsb_mobile.runners.decoding import whole_sequence
from lcsb_mobile.runners.onnxruntime import OnnxRuntime

IDS = [int(token) for token in np.random.default_rng(0).integers(4, 131, SEQ_LEN)]


def open_runner(case: Exported) -> BlockRunner:
    return BlockRunner(case.bundle, OnnxRuntime(case.bundle, 1))


def whole(runner: BlockRunner, adapter: np.ndarray, ids: list[int] = IDS) -> list[np.ndarray]:
    """Logits after each token by passes over the whole sequence."""
    return [runner.next_logits(whole_sequence(ids, SEQ_LEN), position, adapter) for position in range(SEQ_LEN)]


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """float32 on both sides; products of one row and of T rows sum in another order. Measured: 8e-7 of the largest, Gemma 2.8e-6."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=8e-6 * float(np.abs(expected).max()))


@pytest.mark.parametrize("name", [*ARCHITECTURES, "llama-untied"])
def test_every_position(programs: MakeExported, name: str) -> None:
    """A prompt of one token, of some, beyond the windows of 5, of all that there is room for; then token by token to the last place. Qwen 2
    and Gemma 3 have layers with a window."""
    case = programs(name, tile=TILE) if name != "llama-untied" else programs(name, 8, 4)
    runner, eager = open_runner(case), case.model.runner()
    expected = whole(runner, case.adapter)
    for position in (0, 7, SEQ_LEN - 1):
        assert_close(expected[position], eager.next_logits(whole_sequence(IDS, SEQ_LEN), position, case.adapter))
    for prompt in (1, 4, 11, SEQ_LEN):
        decoder = runner.decoder(case.adapter)
        assert_close(decoder.start(IDS[:prompt]), expected[prompt - 1])
        for position in range(prompt, SEQ_LEN):
            assert_close(decoder.extend(IDS[position]), expected[position])


def test_windows_matter(programs: MakeExported) -> None:
    """So that the test above sees them: two kinds of layers, and a token that has left the windows still counts for the others."""
    for name in ("qwen2", "gemma3"):
        config = programs(name, tile=TILE).model.config
        assert {kind.window for kind in config.attention_kinds.values()} == {None, 5} and len(set(config.layer_types)) == 2
    case = programs("gemma3", tile=TILE)
    runner = open_runner(case)
    changed = [IDS[0] + 1, *IDS[1:]]
    first, second = runner.decoder(case.adapter), runner.decoder(case.adapter)
    a, b = first.start(IDS[:12]), second.start(changed[:12])
    assert np.abs(a - b).max() > 1e-3 * np.abs(a).max()


def test_a_decoder_starts_again(programs: MakeExported) -> None:
    """After a longer sequence: what that left in the cache is not attended to."""
    case = programs("llama", tile=TILE)
    runner, other = open_runner(case), IDS[::-1]
    expected = whole(runner, case.adapter, other)
    decoder = runner.decoder(case.adapter)
    decoder.start(IDS)
    assert_close(decoder.start(other[:3]), expected[2])
    for position in range(3, 8):
        assert_close(decoder.extend(other[position]), expected[position])


def test_decoders_and_steps_do_not_disturb_each_other(programs: MakeExported) -> None:
    """Two sequences in turn with different adapters on one runner, and a step between two tokens: bit for bit as each alone."""
    case = programs("gemma3", tile=TILE)
    runner, adapters, sequences = open_runner(case), (case.adapter, -case.adapter), (IDS, IDS[::-1])

    def alone(adapter: np.ndarray, ids: list[int]) -> list[np.ndarray]:
        decoder = runner.decoder(adapter)
        return [decoder.start(ids[:4]), *(decoder.extend(token) for token in ids[4:8])]

    expected = [alone(*pair) for pair in zip(adapters, sequences, strict=True)]
    decoders = [runner.decoder(adapter) for adapter in adapters]
    found = [[decoder.start(ids[:4])] for decoder, ids in zip(decoders, sequences, strict=True)]
    for position in range(4, 8):
        runner.step(subset([0, 2]), packed_batch(), case.adapter)
        for decoder, ids, logits in zip(decoders, sequences, found, strict=True):
            logits.append(decoder.extend(ids[position]))
    for logits, same in zip(found, expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(logits, same, strict=True))
    assert not np.array_equal(expected[0][0], expected[1][0])
