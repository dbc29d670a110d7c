"""Makefile and shell scripts run on a Mac: GNU make 3.81, bash 3.2, and the BSD form of cp, sed, date and the others.

A list of what is known to fail there, each with what to write instead. It is no proof: no Mac runs here. What only Linux has may be
used after `command -v` was asked for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted(
    path
    for pattern in ("Makefile", ".ci/run", "scripts/**/*.sh", "android_demo/**/*.sh", "ios_demo/**/*.sh", "web_demo/**/*.sh")
    for path in ROOT.glob(pattern)
    if not {"node_modules", "target", "build"} & set(path.relative_to(ROOT).parts)
)

LONG_OPTIONS = "basename|cat|chmod|chown|comm|cp|cut|date|df|dirname|du|head|id|install|ln|ls|mkdir|mktemp|mv|od|paste|readlink|rm|rmdir"
LONG_OPTIONS += "|sed|seq|sort|split|stat|tail|tee|touch|tr|uname|uniq|wc"
DEBIAN = ("apt-get", "apt-cache", "dpkg", "dpkg-deb")  # asking for one of them is asking for all
ABSENT = ("fallocate", "flock", "free", "getent", "ionice", "ldd", "lscpu", "md5sum", "nproc", "numfmt", "pidof", "python", "realpath")
ABSENT += ("setsid", "sha256sum", "shuf", "strace", "tac", "taskset", "timeout", "truncate", "unshare", "watch", "xdg-open", *DEBIAN)


@dataclass(frozen=True)
class Rule:
    """`pattern` finds `bad`, which fails on a Mac, and not `good`, which works on both. `only`: in files whose name ends so."""

    what: str
    pattern: str
    instead: str
    bad: str
    good: str
    only: str = ""


def flag(command: str, letters: str) -> str:
    """One of the letters among a command's short options, which come before its other words."""
    return rf"\b{command}\s+(?:-\w+\s+)*-\w*[{letters}]"


def starts(command: str) -> str:
    """Where a shell looks for a command; `command` is a pattern."""
    before = r"^[\s@+-]*|[;&|({!`]\s*|\b(?:then|do|else|exec|env|nice|sudo|time|xargs)\s+"
    return rf"(?:{before}){command}(?=\s|$|[;|&)])"


RULES = (
    # Commands
    Rule(
        "a long option of GNU's",
        starts(f"(?:{LONG_OPTIONS})") + r"[^|;&#]*?(?<!\S)--[a-z]",
        "the short one",
        "a | sort --unique x",
        "python3 -m pip install --quiet x | sort -u",
    ),
    Rule("cp -s, -u, -t, -T", flag("cp", "sutT"), "cp -R; ln -s", "cp -rs $(CURDIR)/a b", "cp -R a b"),
    Rule("ln -r, -t, -T", flag("ln", "rtT"), "ln -s with a path that is written out", "ln -sr a b", "ln -sfn a b"),
    Rule("mv -t, -T", flag("mv", "tT"), "mv FILE... DIRECTORY", "mv -t b a", "mv -f a b"),
    Rule("sed -i", flag("sed", "i"), "sed … FILE >NEW && mv NEW FILE", "sed -i s/a/b/ x", "sed -n s/a/b/p x"),
    Rule("sed -r", flag("sed", "r"), "sed -E", "sed -nr 's/(a)/b/p'", "sed -nE 's/(a)/b/p'"),
    Rule(
        "an escape of GNU's in sed",
        r"\bsed\b[^|;&]*(?:'[^']*\\[+?|swbtn][^']*'|\"[^\"]*\\[+?|swbtn][^\"]*\")",
        "sed -E, [[:space:]], a literal character",
        r"sed 's/a\+/b/' x",
        r"sed 's/\(a\)\.*$/\1/' x",
    ),
    Rule("grep -P", flag("grep", "P"), "grep -E", "grep -oP 'a' x", "grep -oE 'a' x"),
    Rule("readlink -f, -e, -m", flag("readlink", "fem"), 'cd "$(dirname …)" && pwd -P', "readlink -f x", "readlink x"),
    Rule("mktemp -p, -t", flag("mktemp", "pt"), 'mktemp -d "${TMPDIR:-/tmp}/x.XXXXXX"', "mktemp -dp x", 'mktemp -d "$t/x.XXXXXX"'),
    Rule("date -d, -I, %N, %-d", r"\bdate\b[^|;&)]*(?:\s-\w*[dI]|%N|%-)", "date -u +%Y-%m-%d; Python", "date +%s%N", "date -u +%s"),
    Rule("stat -c, -f", flag("stat", "cf"), "wc -c <FILE; Python", "stat -c %s x", "wc -c <x"),
    Rule("xargs -r, -d, -a", flag("xargs", "rda"), "a loop; xargs -0", "xargs -0r rm", "xargs -0 rm"),
    Rule("find's -printf, -regextype", r"\bfind\b[^|;&]*\s-(?:printf|regextype)\b", "-exec, a loop", "find . -printf x", "find . -print"),
    Rule("find without a path", r"\bfind\s+-(?!H|L|P)\w", "find .", "find -name x", "find . -name x"),
    Rule("head -n -N", r"\bhead\s+(?:-\w+\s+)*-[nc]\s*-\d", "sed '$d'", "head -n -1 x", "head -n 1 x"),
    Rule("head -c with a unit", r"\bhead\s+(?:-\w+\s+)*-c\s*\d+[A-Za-z]", "bytes as a number", "head -c 1K x", "head -c 1024 x"),
    Rule("paste without a file", r"\bpaste\s+(?:-\w+\S*\s*)+(?=[;|)&]|$)", "paste -sd: -", "ls | paste -sd:)", "ls | paste -sd: -)"),
    Rule("du -b", flag("du", "b"), "du -sk", "du -sb x", "du -sk x"),
    Rule("df -B, -T", flag("df", "BT"), "df -Pk", "df -BM x", "df -Pk x"),
    Rule("install -D, -t", flag("install", "Dt"), "mkdir -p, then cp", "install -Dm644 a b", "install -m644 a b"),
    Rule("touch -d", flag("touch", "d"), "touch -t, touch -r", "touch -d yesterday x", "touch -t 202001010000 x"),
    Rule("base64 -w", flag("base64", "w"), "base64 | tr -d '\\n'", "base64 -w0 x", "base64 <x"),
    Rule("echo -e", flag("echo", "e"), "printf", r"echo -e 'a\n'", r"printf 'a\n'"),
    Rule("cat -A", flag("cat", "A"), "cat -etv", "cat -A x", "cat -etv x"),
    Rule("uname -o", flag("uname", "oi"), "uname -s", "uname -o", "uname -sm"),
    Rule(
        "an option of GNU tar's",
        r"\btar\b[^|;&]*\s--(?:transform|sort|owner|group|mtime|wildcards)",
        "Python's tarfile",
        "tar -c --sort=name x",
        "tar --extract --directory x",
    ),
    Rule("a file of Linux' kernel", r"(?<![\w.])/(?:proc|sys|dev/shm)/", "ps, uname, sysctl", "cat /proc/cpuinfo", "cat a/proc/x"),
    # bash
    Rule("an array with names", r"\b(?:declare|local|typeset)\s+-\w*A", "a case, or a file", "declare -A jar", "declare -a jar"),
    Rule("a reference to a name", r"\b(?:declare|local|typeset)\s+-\w*n", "eval, or another form", "local -n x=y", "local x=y"),
    Rule("mapfile", r"\b(?:mapfile|readarray)\b", "while IFS= read -r", "mapfile -t x", "while IFS= read -r x"),
    Rule("a change of case", r"\$\{\w+(?:\[[^]]*\])?(?:,|\^)", "tr", "${x,,}", "${x%,}"),
    Rule("&>> or |&", r"&>>|\|&", ">>FILE 2>&1; 2>&1 |", "a |& b", "a 2>&1 | b"),
    Rule("coproc", r"\bcoproc\b", "a named pipe", "coproc a", "a &"),
    Rule("shopt of bash 4", r"\bshopt\s+-s\s+(?:globstar|lastpipe|inherit_errexit)", "find", "shopt -s globstar", "shopt -s nullglob"),
    Rule("printf %(…)T", r"printf\s+\S*%\(", "date", "printf '%(%F)T'", "printf '%s' x"),
    Rule("[[ -v", r"\[\[?\s+-v\s", "[ -n \"${x+set}\" ]", "[[ -v x ]]", '[ -n "${x+set}" ]'),
    Rule("wait -n", r"\bwait\s+-n", "wait PID", "wait -n", 'wait "$!"'),
    Rule("${x@…}", r"\$\{\w+@\w\}", "printf %q", "${x@Q}", "${x[@]}"),
    Rule("a variable of newer bash", r"\$\{?(?:EPOCHSECONDS|EPOCHREALTIME|BASHPID|SRANDOM)\b", "date +%s; $$", "$EPOCHSECONDS", "$SECONDS"),
    Rule("{name}> as a descriptor", r"\bexec\s+\{\w+\}[<>]", "exec 9>", "exec {lock}>x", "exec 9>x"),
    Rule("a negative index", r"\$\{\w+\[-\d|\$\{\w+:[^}:]*:\s*-\d", "count from the front; %", "${x:0:-1}", "${x%?}"),
    Rule("read with a fraction of a second", r"\bread\s[^|;&]*-t\s*\d*\.\d", "whole seconds", "read -t 0.5 x", "read -t 1 x"),
    Rule("case that falls through", r";;?&(?!&)", "the commands again", "a) b ;;&", "a) b ;;"),
    Rule(  # until bash 4.2 the backslash stays
        "a backslash in a quoted substitution",
        r'"[^"\n]*\$\{\w+//?[^/}]+/[^}]*\\[^}]*\}',
        "tr; the slash in a variable",
        r'path="$m2/${group//./\/}/x"',
        'path="$m2/$(echo "$group" | tr . /)/x"',
    ),
    # make
    Rule("a function of newer make", r"\$\((?:file|guile|let|intcmp)\s", "a recipe", "$(file >x,y)", "$(firstword x)", "Makefile"),
    Rule(
        "a variable of newer make",
        r"\.(?:ONESHELL|RECIPEPREFIX|SHELLFLAGS|SHELLSTATUS|EXTRA_PREREQS|WAIT)\b",
        "one line that goes on in the next",
        ".ONESHELL:",
        ".PHONY: a",
        "Makefile",
    ),
    Rule("!= or ::=", r"^[\w.-]+\s*(?:!=|:::?=)", ":= $(shell …)", "x != date", "x := $(shell date)", "Makefile"),
    Rule("grouped targets", r"^[^\t=]*&:", "a stamp that both need", "a b &: c", "a b: c", "Makefile"),
    Rule("define with a sign, or undefine", r"^(?:define\s+\S+\s*[:+?]?=|undefine\b)", "define NAME", "define x =", "define x", "Makefile"),
    Rule("an option of newer make", r"\$\(MAKE\).*(?:--output-sync|\s-O\b|--trace)", "none", "$(MAKE) -O x", "$(MAKE) x", "Makefile"),
    Rule(
        "what only bash knows, in a recipe",
        r"^\t.*(?:\[\[ |<<<|[<>]\(|\{\w+,[\w,]+\}|\bsource )",
        "what sh knows",
        "\t[[ -f x ]]",
        "\t[ -f x ]",
        "Makefile",
    ),
)  # fmt: skip


def lines(text: str) -> list[tuple[int, str]]:
    """Numbered lines without comments; one that goes on in the next is one line."""
    found: list[tuple[int, str]] = []
    goes_on = False
    for number, line in enumerate(text.splitlines(), start=1):
        line = re.sub(r"(?:^|(?<=\s))#.*", "", line)
        if goes_on:
            first, before = found.pop()
            number, line = first, f"{before} {line.strip()}"
        goes_on = line.endswith("\\")
        found.append((number, line.removesuffix("\\")))
    return found


def is_asked_for(command: str, text: str) -> bool:
    names = "|".join(map(re.escape, DEBIAN if command in DEBIAN else (command,)))
    return bool(re.search(rf"command -v (?:{names})\b|\bfor \w+ in [^;\n]*(?<![\w-])(?:{names})(?![\w-])[^;\n]*; do\s+command -v", text))


def empty_arrays(text: str) -> list[str]:
    """Arrays that may be empty and are used as if they were not, which is an unbound variable under `set -u` before bash 4.4."""
    if not re.search(r"^set -\w*u|nounset", text, re.MULTILINE):
        return []
    return [name for name in re.findall(r"\b(\w+)=\(\)", text) if re.search(rf'(?<!\+)"\$\{{{name}\[@\]\}}"', text)]


def findings(name: str, text: str) -> list[str]:
    found = [f'{name}: "${{{array}[@]}}" may be empty; instead: ${{{array}[@]+"${{{array}[@]}}"}}' for array in empty_arrays(text)]
    for number, line in lines(text):
        for rule in RULES:
            if name.endswith(rule.only) and re.search(rule.pattern, line):
                found.append(f"{name}:{number}: {rule.what}; instead: {rule.instead}")
        for command in ABSENT:
            if re.search(starts(re.escape(command)), line) and not is_asked_for(command, text):
                found.append(f"{name}:{number}: {command} is not on a Mac; ask `command -v {command}` first, or use another")
    return found


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_runs_on_a_mac(path: Path) -> None:
    found = findings(str(path.relative_to(ROOT)), path.read_text("utf-8"))
    assert not found, "\n".join(found)


def test_there_are_scripts() -> None:
    assert {"Makefile", ".ci/run", "scripts/testing/arm64_python.sh"} <= {str(path.relative_to(ROOT)) for path in SCRIPTS}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.what)
def test_every_rule_finds_what_it_is_for(rule: Rule) -> None:
    name = rule.only or "script.sh"
    assert findings(name, rule.bad) == [f"{name}:1: {rule.what}; instead: {rule.instead}"]
    assert findings(name, rule.good) == []


def test_what_only_linux_has_is_asked_for_first() -> None:
    assert findings("x.sh", "a | sha256sum | cut -c 1-12") == [
        "x.sh:1: sha256sum is not on a Mac; ask `command -v sha256sum` first, or use another"
    ]
    assert findings("x.sh", "(flock 9)")[0].startswith("x.sh:1: flock")
    assert not findings("x.sh", "command -v flock >/dev/null || exit 3\nflock 9")
    assert not findings("x.sh", 'for tool in apt-get flock tar; do\n    command -v "$tool"\ndone\nflock 9\ndpkg-deb x')
    assert not findings("x.sh", '"$python" a; .venv/bin/python b; echo python; x-flock 9')


def test_arrays_that_may_be_empty() -> None:
    used = 'set -euo pipefail\nmore=()\na "${more[@]}"'
    assert findings("x.sh", used)[0].startswith('x.sh: "${more[@]}" may be empty')
    assert not findings("x.sh", used.replace('"${more[@]}"', '${more[@]+"${more[@]}"}'))
    assert not findings("x.sh", used.replace("more=()", "more=(a)"))


def test_comments_and_lines_that_go_on() -> None:
    assert findings("x.sh", "true  # sed -i is not for Macs\n# cp -rs\n") == []
    assert findings("x.sh", "true\nsort \\\n    --unique x") == ["x.sh:2: a long option of GNU's; instead: the short one"]
