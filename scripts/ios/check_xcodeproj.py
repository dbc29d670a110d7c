"""Whether an Xcode project hangs together: what can be told without Xcode."""

from __future__ import annotations

import plistlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Tree = dict[str, Any]
ASSETS = {"ASSETCATALOG_COMPILER_APPICON_NAME": "appiconset", "ASSETCATALOG_COMPILER_GLOBAL_ACCENT_COLOR_NAME": "colorset"}
TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|\s+|([{}()=;,])|"((?:[^"\\]|\\.)*)"|([A-Za-z0-9_./]+)', re.DOTALL)


def parsed(text: str) -> Any:
    """An old-style property list, of which all leaves are strings. Raises ValueError where it is none."""
    tokens, at = [], 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"no property list at {text[at : at + 20]!r}")
        mark, quoted, plain = found.groups()
        if mark or plain is not None or quoted is not None:
            tokens.append((mark, plain if quoted is None else re.sub(r"\\(.)", lambda each: {"n": "\n"}.get(each[1], each[1]), quoted)))
        at = found.end()
    rest = iter([*tokens, ("end", None)])
    value = _value(next(rest), rest)
    if next(rest)[0] != "end":
        raise ValueError("more than one value")
    return value


def _value(token: tuple[str | None, Any], rest: Iterator[tuple[str | None, Any]]) -> Any:
    mark, text = token
    if mark == "(":
        return list(_items(rest))
    if mark == "{":
        return dict(_entries(rest))
    if mark is not None:
        raise ValueError(f"expected a value, found {mark}")
    return text


def _expect(mark: str, rest: Iterator[tuple[str | None, Any]]) -> None:
    found, text = next(rest)
    if found != mark:
        raise ValueError(f"expected {mark}, found {found or text}")


def _items(rest: Iterator[tuple[str | None, Any]]) -> Iterator[Any]:
    while (token := next(rest))[0] != ")":
        yield _value(token, rest)
        _expect(",", rest)


def _entries(rest: Iterator[tuple[str | None, Any]]) -> Iterator[tuple[str, Any]]:
    while (token := next(rest))[0] != "}":
        _expect("=", rest)
        yield _value(token, rest), _value(next(rest), rest)
        _expect(";", rest)


def strings(value: Any) -> Iterator[str]:
    """All leaves."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from strings(each)
    else:
        yield value


def faults(directory: Path, project: str) -> list[str]:
    """What is wrong with the project of that name in the directory, which Package.swift and App/ lie in."""
    tree = parsed((directory / project / "project.pbxproj").read_text("utf-8"))
    objects: dict[str, Tree] = tree["objects"]
    used = {text for each in objects.values() for text in strings(each) if re.fullmatch(r"[0-9A-F]{24}", text)} | {tree["rootObject"]}
    found = [f"{key}: used, and there is no such object" for key in used - objects.keys()]
    found += [f"{key}: {objects[key]['isa']} is used by nothing" for key in objects.keys() - used]
    found += [f"{path}: named, and there is no such file" for path in sorted(_named(objects)) if not (directory / path).exists()]
    linked = [each["productName"] for each in objects.values() if each["isa"] == "XCSwiftPackageProductDependency"]
    return found + _in_package(directory, linked) + _in_info(directory)


def _named(objects: dict[str, Tree]) -> set[str]:
    """Every path that the project names."""
    paths = set()
    for each in objects.values():
        settings = each.get("buildSettings", {})
        paths |= {settings[name] for name in ("INFOPLIST_FILE", "CODE_SIGN_ENTITLEMENTS") if name in settings}
        paths |= {f"App/Assets.xcassets/{settings[name]}.{kind}/Contents.json" for name, kind in ASSETS.items() if name in settings}
        if each["isa"] == "XCLocalSwiftPackageReference":
            paths.add(f"{each['relativePath']}/Package.swift")
        if each["isa"] == "PBXFileSystemSynchronizedRootGroup":
            apart = [path for key in each["exceptions"] for path in objects[key]["membershipExceptions"]]
            paths |= {each["path"]} | {f"{each['path']}/{path}" for path in apart}
    return paths


def _in_package(directory: Path, products: list[str]) -> list[str]:
    package = (directory / "Package.swift").read_text("utf-8")
    libraries = set(re.findall(r'\.library\(name: "(\w+)"', package))
    imported = {
        name for path in (directory / "App").rglob("*.swift") for name in re.findall(r"^import (\w+)", path.read_text("utf-8"), re.M)
    }
    found = [f"{name}: linked, and no library of Package.swift" for name in products if name not in libraries]
    return found + [f"{name}: imported in App/, and not linked" for name in sorted(imported & libraries - set(products))]


def _in_info(directory: Path) -> list[str]:
    """Background tasks whose identifiers the code and Info.plist do not both have: the system ends an app that registers another."""
    info = plistlib.loads((directory / "App/Info.plist").read_bytes())
    prefix = "$(PRODUCT_BUNDLE_IDENTIFIER)."
    allowed = set(info.get("BGTaskSchedulerPermittedIdentifiers", []))
    code = "\n".join(path.read_text("utf-8") for path in (directory / "App").rglob("*.swift"))
    used = {prefix + name for name in re.findall(r'taskIdentifier\("(\w+)"\)', code)}
    found = [f"{name}: in App/, and not among BGTaskSchedulerPermittedIdentifiers" for name in sorted(used - allowed)]
    return found + [f"{name}: permitted, and not used in App/" for name in sorted(allowed - used)]
