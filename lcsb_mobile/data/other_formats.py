"""Files that are not JSON lines but could be: recognised by how they begin, and answered with the one command that turns them into it.

The commands need nothing but a shell with Python and iconv. Android's and iOS' readers say the same, word for word.
"""

from __future__ import annotations

import shlex

from lcsb_mobile.data.line_record import NOT_UTF8, REQUIRED, utf16

SHOWN_BYTES = 4096  # of a first line that is looked at
DELIMITERS = (",", ";", "\t")
CSV_KEYS = [form for form in REQUIRED if form[0] not in ("messages", "conversations")]  # a cell holds no array

ARRAY = "print(*map(json.dumps, json.load(open(sys.argv[1], 'rb'))), sep='\\n')"
# A line that is a brace alone ends an object: within a string JSON has no line's end, and what is within an object is indented.
INDENTED = "print(*(json.dumps(json.loads(x + '}')) for x in open(sys.argv[1], encoding='utf-8-sig').read().split('\\n}')[:-1]), sep='\\n')"
CSV = "print(*map(json.dumps, csv.DictReader(open(sys.argv[1], encoding='utf-8-sig', newline=''){delimiter})), sep='\\n')"


def other_format(raw: bytes, file: str) -> str | None:
    """What a file is whose first line that is not blank is `raw`, or begins so, and the command that makes it JSON lines; None for JSON
    lines, and for what is not known."""
    target = shlex.quote(_target(file))
    source = shlex.quote(file)
    if (encoding := utf16(raw)) is not None:
        return f"{NOT_UTF8}: iconv -f {encoding} -t UTF-8 {source} > {target}"
    line = raw[:SHOWN_BYTES].decode("utf-8-sig", "replace").strip()
    if line.startswith("[") and line[1:].lstrip()[:1] in ("", "{"):
        return _answer("a JSON array", "json, sys", ARRAY, source, target)
    if line == "{":
        return _answer("JSON over several lines", "json, sys", INDENTED, source, target)
    if (delimiter := _delimiter(line)) is not None:
        argument = "" if delimiter == "," else f", delimiter={delimiter!r}"
        return _answer("CSV", "csv, json, sys", CSV.format(delimiter=argument), source, target)
    return None


def _answer(what: str, modules: str, program: str, source: str, target: str) -> str:
    return f'{what}; expected one JSON object a line: python3 -c "import {modules}; {program}" {source} > {target}'


def _target(file: str) -> str:
    """Beside the file, and never the file itself."""
    directory, slash, name = file.rpartition("/")
    stem = name[: name.rindex(".")] if "." in name[1:] else name
    return f"{directory}{slash}{stem}.lines.jsonl"


def _delimiter(line: str) -> str | None:
    """What parts the columns of a table whose first line names those of a form."""
    for delimiter in DELIMITERS:
        names = {name.strip().strip('"') for name in line.split(delimiter)}
        if any(names.issuperset(form) for form in CSV_KEYS):
            return delimiter
    return None
