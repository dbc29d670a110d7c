"""The files beside the weights, over made-up directories: what AutoTokenizer and GenerationConfig make of them is what a bundle has."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers
import transformers
from helpers.checkpoints import VOCABULARY, write_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from lcsb_mobile.errors import TokenizerError
from lcsb_mobile.export.checkpoints.side_files import carry_files, copy_tokenizer
from lcsb_mobile.text.tokenizer import Tokenizer

ROOM = 40  # ids above the tokenizer's, as of a padded embedding
TEXTS = ("<tool>1</tool> <img>the<s> moon</s><|end|>\n", "a <tool>", "<x><y> <tool> <z>", "<pad><unk> the<end>\n", "")
TOKENS = ("<tool>", "</tool>", "<img>", "<|end|>", "<x>", "<y>", "<z>", "<end>", "<s>", "</s>", "the", "<pad>")
BARE = Path(tempfile.mkdtemp())
write_tokenizer(BARE)


def added(content: str, **fields: Any) -> dict[str, Any]:
    return {"content": content, "lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True} | fields


contents = st.sampled_from(TOKENS)
strip = st.fixed_dictionaries({"rstrip": st.booleans(), "normalized": st.booleans(), "special": st.booleans()})
objects = st.builds(lambda content, fields: added(content, **fields), contents, strip)
typed = objects.map(lambda fields: {"__type": "AddedToken", **fields})
decoders = st.dictionaries(st.integers(VOCABULARY, VOCABULARY + 9).map(str), objects, max_size=4)
named = st.dictionaries(st.sampled_from(("eos_token", "bos_token", "pad_token", "sep_token", "image_token")), contents | typed, max_size=3)
extra = st.lists(contents, max_size=3, unique=True)
ends = st.none() | st.integers(0, 20) | st.lists(st.integers(0, 20), min_size=1, max_size=3)


@st.composite
def directories(draw: st.DrawFn) -> dict[str, Any]:
    """File name -> content. `tokenizer.json` is what has to be added to one, and its post-processor."""
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "bos_token": "<s>"} | draw(named)
    for key, values in (
        ("added_tokens_decoder", decoders),
        ("additional_special_tokens", extra),
        ("extra_special_tokens", extra | st.dictionaries(st.sampled_from(("tool_token", "x_token")), contents, max_size=2)),
        ("add_bos_token", st.booleans()),
    ):
        if draw(st.booleans()):
            config[key] = draw(values)
    model: dict[str, Any] = {"model_type": "llama"}
    if draw(st.booleans()):
        model["eos_token_id"] = draw(ends)
    files: dict[str, Any] = {
        "config.json": model,
        "tokenizer_config.json": config,
        "tokenizer.json": (draw(extra), draw(st.sampled_from((None, "<s> $A", "<s> $A </s>", "$A")))),
    }
    optional: dict[str, st.SearchStrategy[Any]] = {
        "special_tokens_map.json": st.builds(lambda n, e: n | ({"additional_special_tokens": e} if e else {}), named.map(plain), extra),
        "added_tokens.json": st.dictionaries(contents, st.integers(VOCABULARY, VOCABULARY + 9), max_size=3),
        "generation_config.json": ends.map(lambda value: {} if value is None else {"eos_token_id": value}),
    }
    return files | {name: draw(content) for name, content in optional.items() if draw(st.booleans())}


def plain(tokens: dict[str, Any]) -> dict[str, Any]:
    """As `special_tokens_map.json` has them: without the type."""
    return {
        name: {key: field for key, field in value.items() if key not in ("__type", "special")} if isinstance(value, dict) else value
        for name, value in tokens.items()
    }


@contextmanager
def written(files: dict[str, Any]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as path:
        directory = Path(path)
        for name, content in files.items():
            if name != "tokenizer.json":
                (directory / name).write_text(json.dumps(content))
        tokens, template = files["tokenizer.json"]
        backend = tokenizers.Tokenizer.from_file(str(BARE / "tokenizer.json"))
        backend.add_tokens(tokens)
        if template is not None:
            backend.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", 1), ("</s>", 2)])
        backend.save(str(directory / "tokenizer.json"))
        yield directory


@settings(max_examples=150, deadline=None, derandomize=True)
@given(directories())
def test_a_bundle_has_what_transformers_makes_of_a_directory(files: dict[str, Any]) -> None:
    with written(files) as directory:
        theirs = transformers.AutoTokenizer.from_pretrained(directory)
        try:
            copy_tokenizer(directory, directory / "bundle")
        except TokenizerError as error:  # `<s>` before a text, and another bos_token
            assert "begin with bos_token alone" in str(error) and theirs.bos_token != "<s>"
            return
        ours = Tokenizer.open(directory / "bundle", VOCABULARY + ROOM)
        for text in TEXTS:
            assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), text
            assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text, add_special_tokens=False), skip_special_tokens=True)
            assert ours.encode_prompt(text) == without_end(theirs, theirs.encode(text))
        assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
        assert ours.end_ids == stated_ends(directory) | {theirs.eos_token_id}


def without_end(tokenizer: Any, ids: list[int]) -> list[int]:
    """A prompt is to be gone on with, so what a post-processor puts behind it is left out."""
    return ids[: len(ids) - (len(tokenizer.encode("")) - (tokenizer.encode("")[:1] == [1]))]


def stated_ends(directory: Path) -> frozenset[int]:
    """As `PreTrainedModel.from_pretrained` comes by them."""
    name = "generation_config.json" if (directory / "generation_config.json").exists() else "config.json"
    config = transformers.GenerationConfig.from_pretrained(directory, config_file_name=name, _from_model_config=name == "config.json")
    ends = config.eos_token_id
    return frozenset(ends if isinstance(ends, list) else [] if ends is None else [ends])


@settings(max_examples=25, deadline=None)
@given(directories())
def test_what_is_carried_along_reads_alike(files: dict[str, Any]) -> None:
    with written(files) as directory, tempfile.TemporaryDirectory() as target:
        carry_files(directory, Path(target))
        shutil.copyfile(directory / "config.json", Path(target) / "config.json")
        first, second = (transformers.AutoTokenizer.from_pretrained(path) for path in (directory, target))
        assert [first.encode(text) for text in TEXTS] == [second.encode(text) for text in TEXTS]
        assert stated_ends(directory) == stated_ends(Path(target))
