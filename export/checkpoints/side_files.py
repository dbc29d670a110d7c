"""The files beside a checkpoint's weights: what transformers' AutoTokenizer and GenerationConfig make of them, in two files.

The rules are those of transformers 5 (`PreTrainedTokenizerBase._from_pretrained`, `TokenizersBackend`, `GenerationConfig.from_pretrained`),
which stands beside them in the tests; nothing is imported of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from lcsb_mobile.errors import CheckpointError, TokenizerError
from lcsb_mobile.io.bounded import one_line, refused_as
from lcsb_mobile.text.tokenizer import CONFIG_FILE, TEMPLATE_FILE, TOKENIZER_FILE

GENERATION_FILE = "generation_config.json"  # end tokens, sampling
MODEL_FILE = "config.json"
SPECIAL_FILE = "special_tokens_map.json"  # of checkpoints older than `added_tokens_decoder`, which makes nothing of it; likewise the next
ADDED_FILE = "added_tokens.json"
VOCABULARIES = ("tokenizer.model", "vocab.json", "merges.txt")  # as converters and tokenizers in Python read them
PROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json", "chat_template.json")  # of pictures
CARRIED = (TOKENIZER_FILE, CONFIG_FILE, TEMPLATE_FILE, SPECIAL_FILE, ADDED_FILE, GENERATION_FILE, *VOCABULARIES, *PROCESSORS)
MORE_TEMPLATES = "additional_chat_templates"  # a folder

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
EXTRA, OLD_EXTRA = "extra_special_tokens", "additional_special_tokens"  # transformers 5's name and the one before it
DECODER = "added_tokens_decoder"  # id -> token, in `tokenizer_config.json`
PROBES = "a1."  # one of them is a token of any vocabulary


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises CheckpointError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(content, ensure_ascii=False).encode()  # a ValueError for half a surrogate pair, which JSON can hold and no file
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; a Hugging Face checkpoint has one") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as JSON ({error}); download it again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def copy_tokenizer(source: Path, target: Path) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` into `target`, which is made if need be.

    Tokens that only a file beside `tokenizer.json` lists are added to it. `tokenizer_config.json` has besides its own: the special tokens
    of `special_tokens_map.json`, the template of `chat_template.jinja`, `eos_token_id`, what ends a text, and `add_bos_token`, whether the
    post-processor begins one. Raises TokenizerError when there is no `tokenizer.json`, a file cannot be read or means what no bundle says.
    """
    path = _tokenizer_file(source)
    with refused_as(TokenizerError, f"{path}: not a tokenizer; download it again"):
        backend = tokenizers.Tokenizer.from_file(str(path))
    settings = _settings(source)
    if settings.get("split_special_tokens"):
        raise TokenizerError(
            f"{source / CONFIG_FILE}: split_special_tokens: expected false, found true, which would take chat templates apart"
        )
    with refused_as(TokenizerError, f"{source}: added tokens that cannot be read"):
        before = _listed(backend)
        backend.add_tokens(_tokens_to_add(backend, settings, _added_tokens(source, settings, backend)))
    _state_beginning(backend, settings, source)
    settings |= _template(source) | _ends(source)
    target.mkdir(parents=True, exist_ok=True)
    if _listed(backend) != before:
        backend.save(str(target / TOKENIZER_FILE), pretty=False)
    else:
        shutil.copyfile(path, target / TOKENIZER_FILE)
    (target / CONFIG_FILE).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def carry_files(source: Path, target: Path) -> None:
    """Copies what stands beside the weights as it is, so that whatever reads `source` reads `target` alike. Raises TokenizerError
    when there is no `tokenizer.json`."""
    _tokenizer_file(source)
    for name in CARRIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if (source / MORE_TEMPLATES).is_dir():
        shutil.copytree(source / MORE_TEMPLATES, target / MORE_TEMPLATES)


def _tokenizer_file(source: Path) -> Path:
    path = source / TOKENIZER_FILE
    if not path.is_file():
        raise TokenizerError(f"{source}: no tokenizer.json; save a fast one with transformers' AutoTokenizer.save_pretrained")
    return path


def _optional(path: Path) -> dict[str, Any]:
    """Empty when there is no such file. Raises TokenizerError."""
    try:
        return read_object(path) if path.exists() else {}
    except CheckpointError as error:
        raise TokenizerError(str(error)) from error


def _listed(backend: tokenizers.Tokenizer) -> dict[int, str]:
    return {index: repr(token) for index, token in backend.get_added_tokens_decoder().items()}


def _settings(source: Path) -> dict[str, Any]:
    """`tokenizer_config.json`, over which an older checkpoint's `special_tokens_map.json` goes, but for names of the model's own."""
    settings = _optional(source / CONFIG_FILE)
    if OLD_EXTRA in settings and not settings.get(EXTRA):
        settings[EXTRA] = settings.pop(OLD_EXTRA)
    names = [name for name in settings if name.endswith("_token") and name not in NAMED and isinstance(settings[name], str)]
    own = {name: settings.pop(name) for name in names}
    mapped = {} if DECODER in settings else _optional(source / SPECIAL_FILE)
    for name, value in mapped.items():
        if name != EXTRA and isinstance(value, dict):
            mapped[name] = {**value, "special": True}
    for lists in (settings, mapped):
        if isinstance(lists.get(EXTRA), dict):  # names of its own, each with a token
            own |= lists.pop(EXTRA)
    if isinstance(mapped.get(EXTRA), list):
        known = settings.get(EXTRA) or []
        mapped[EXTRA] = [*known, *(token for token in mapped[EXTRA] if token not in known)]
    return settings | mapped | own


def _added_tokens(source: Path, settings: Mapping[str, Any], backend: tokenizers.Tokenizer) -> list[tuple[int, tokenizers.AddedToken]]:
    """With the id that `added_tokens_decoder` gives each, or an older checkpoint's `added_tokens.json`, and then `tokenizer.json`."""
    if DECODER in settings:
        return [(int(index), _token(token)) for index, token in settings[DECODER].items()]
    special = {
        token.content for token in (*(_token(settings[name]) for name in NAMED if settings.get(name)), *_tokens(settings.get(EXTRA)))
    }
    older = [
        (int(index), tokenizers.AddedToken(content, normalized=content not in special, special=content in special))
        for content, index in _optional(source / ADDED_FILE).items()
    ]
    return [*older, *backend.get_added_tokens_decoder().items()]


def _tokens_to_add(
    backend: tokenizers.Tokenizer, settings: Mapping[str, Any], added: Sequence[tuple[int, tokenizers.AddedToken]]
) -> list[tokenizers.AddedToken]:
    """What goes over the tokens of `tokenizer.json`: `added` by their ids, then the special tokens by name and the extra ones that neither
    lists. A token that has a name is special, and one that is called special anywhere stays it."""
    extra = settings.get(EXTRA if EXTRA in settings else OLD_EXTRA)
    by_content = {token.content: token for _, token in added}
    named = {name: by_content.get(token.content, token) if name in NAMED else token for name, token in _named(settings).items()}
    listed = backend.get_added_tokens_decoder().values()
    tokens = [token for _, token in sorted(dict(added).items())]
    known = {token.content for token in (*listed, *tokens)}
    more = {repr(token): token for token in (*named.values(), *_tokens(extra)) if token.content not in known}
    tokens += more.values()
    special = {token.content for token in (*named.values(), *(token for token in (*listed, *tokens) if token.special))}
    for token in tokens:
        token.special = token.special or token.content in special
    return tokens


def _named(settings: Mapping[str, Any]) -> dict[str, tokenizers.AddedToken]:
    """By its name: the usual ones, then those of the model's own, such as `image_token`."""
    own = [name for name in settings if name.endswith("_token") and name not in NAMED]
    values = {name: settings[name] for name in (*NAMED, *own) if settings.get(name)}
    return {name: _token(value) for name, value in values.items() if isinstance(value, str | dict) and name not in (EXTRA, OLD_EXTRA)}


def _tokens(value: Any) -> list[tokenizers.AddedToken]:
    return [_token(token) for token in value] if isinstance(value, list) else []


def _token(value: Any) -> tokenizers.AddedToken:
    """From a string, which is special, or an object with the fields of AddedToken."""
    if isinstance(value, str):
        return tokenizers.AddedToken(value, special=True)
    return tokenizers.AddedToken(**{name: field for name, field in value.items() if name != "__type"})


def _state_beginning(backend: tokenizers.Tokenizer, settings: dict[str, Any], source: Path) -> None:
    """Sets `add_bos_token` to what the post-processor does, which decides it for AutoTokenizer, whatever the setting was; and `bos_token`
    where nothing else names it. Raises TokenizerError where a text begins with other tokens than that."""
    stated = _named(settings).get("bos_token")
    bos = None if stated is None else backend.token_to_id(stated.content)
    first = _first_ids(backend)
    settings["add_bos_token"] = bool(first)
    if first and stated is None:
        settings["bos_token"], bos = backend.id_to_token(first[0]), first[0]
    if first and first != [bos]:
        tokens = one_line(" ".join(map(str, map(backend.id_to_token, first))), 80)
        raise TokenizerError(f"{source / TOKENIZER_FILE}: post_processor: expected a text to begin with bos_token alone, found {tokens}")


def _first_ids(backend: tokenizers.Tokenizer) -> list[int]:
    """What the post-processor puts before a text."""
    for probe in PROBES:
        alone = backend.encode(probe, add_special_tokens=False).ids
        if alone:
            ids = backend.encode(probe, add_special_tokens=True).ids
            return ids[: next((start for start in range(len(ids)) if ids[start : start + len(alone)] == alone), 0)]
    return []


def _template(source: Path) -> dict[str, str]:
    path = source / TEMPLATE_FILE
    if not path.is_file():
        return {}
    try:
        return {"chat_template": path.read_text(encoding="utf-8")}
    except ValueError as error:
        raise TokenizerError(f"{path}: not UTF-8 ({error}); download it again") from error


def _ends(source: Path) -> dict[str, Any]:
    """`eos_token_id` of `generation_config.json`; where there is no such file, of `config.json` or its `text_config`."""
    if (source / GENERATION_FILE).exists():
        ends = _optional(source / GENERATION_FILE).get("eos_token_id")
    else:
        model = _optional(source / MODEL_FILE)
        text = model.get("text_config")
        ends = model.get("eos_token_id")
        if ends is None and isinstance(text, dict):
            ends = text.get("eos_token_id")
    return {} if ends is None else {"eos_token_id": ends}
