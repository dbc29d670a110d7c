"""`apk.py OUTPUT.apk [LIBS]`: the demo app as an installable file, without Gradle: dexed, aligned, signed, verified, with sizes.

After `mvn package` in android_demo. LIBS: a folder with `lib/ABI/*.so`, ONNX Runtime's native libraries out of its Android archive, which
is on Google's repository alone. Without them the file installs and cannot train: then this is a check of the packaging, and says so. Needs
apksigner and aapt (Debian's packages of these names) and r8, which Maven fetches; it may be on Google's repository only.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

DEMO = Path(__file__).parents[2] / "android_demo"
REPOSITORY = Path.home() / ".m2/repository"
R8 = "com.android.tools:r8:9.5.28"
RULES = [DEMO / "core-android/consumer-rules.pro", DEMO / "app/rules.pro"]  # Gradle's build has the same ones
PAGE = 16384  # of phones whose pages are 16 KiB: a native library is mapped out of the file
FIXED_TIME = (1981, 1, 1, 1, 1, 2)  # what is packed twice is the same file
ALIGNMENT_FIELD = 0xD935  # of a zip entry: apksigner keeps the alignment that it states


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    output, libraries = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else None
    resources = DEMO / "app/target/res.apk"
    if not resources.exists():
        sys.exit(f"{resources}: not there; build the app first: mvn -f android_demo/pom.xml package")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        aligned = work / "aligned.apk"
        pack(resources, dex(work), libraries, aligned)
        sign(aligned, output, work)
    verify(output)
    if libraries is None:
        print("without ONNX Runtime's native libraries: a check of the packaging; this file cannot train")


def artifact(name: str) -> Path:
    """A file of Maven's local repository, fetched when it is not there."""
    group, module, version = name.split(":")
    path = REPOSITORY / group.replace(".", "/") / module / version / f"{module}-{version}.jar"
    if not path.exists():
        run("mvn", "-B", "-q", "-ntp", "dependency:get", f"-Dartifact={name}", "-Dtransitive=false")
    return path


def version(name: str) -> str:
    found = re.search(rf"<{re.escape(name)}>(.*)</", (DEMO / "pom.xml").read_text())
    assert found, name
    return found[1]


def dex(work: Path) -> list[Path]:
    """Everything that the app runs, as Dalvik code: its own classes, the libraries', and the Java half of ONNX Runtime."""
    jars = [DEMO / module / "target" / f"{module}-1.0.jar" for module in ("core", "app")]
    jars.append(artifact(f"org.jetbrains.kotlin:kotlin-stdlib:{version('kotlin.version')}"))
    jars += [
        artifact(f"org.jetbrains.kotlinx:kotlinx-serialization-{name}-jvm:{version('serialization.version')}") for name in ("core", "json")
    ]
    jars.append(classes_of(artifact(f"com.microsoft.onnxruntime:onnxruntime:{version('onnxruntime.version')}"), work / "runtime.jar"))
    framework = artifact(f"org.robolectric:android-all:{version('android.all.version')}")
    framework_rules = work / "framework.pro"
    framework_rules.write_text("-dontwarn java.**,javax.**,org.intellij.**,org.jetbrains.**\n")  # not in android-all
    rules = [part for path in (*RULES, DEMO / "app/target/rules.pro", framework_rules) for part in ("--pg-conf", path)]
    arguments = ["--release", "--min-api", "26", "--lib", framework, *rules, "--output", work]
    run("java", "-Xmx2g", "-cp", artifact(R8), "com.android.tools.r8.R8", *arguments, *jars)
    return sorted(work.glob("classes*.dex"))


def classes_of(jar: Path, target: Path) -> Path:
    """Without the desktop's native libraries, which are 100 MB."""
    with zipfile.ZipFile(jar) as source, zipfile.ZipFile(target, "w") as result:
        for entry in source.infolist():
            if entry.filename.endswith(".class") and entry.filename != "module-info.class":
                result.writestr(entry.filename, source.read(entry))
    return target


def pack(resources: Path, code: list[Path], libraries: Path | None, target: Path) -> None:
    with zipfile.ZipFile(resources) as source, zipfile.ZipFile(target, "w") as result:
        for entry in source.infolist():
            add(result, entry.filename, source.read(entry), entry.compress_type)
        for path in code:
            add(result, path.name, path.read_bytes(), zipfile.ZIP_DEFLATED)
        for path in sorted(libraries.glob("lib/*/*.so")) if libraries else ():
            add(result, str(path.relative_to(libraries)), path.read_bytes(), zipfile.ZIP_STORED)  # type: ignore[arg-type]


def add(archive: zipfile.ZipFile, name: str, content: bytes, compression: int) -> None:
    """What is stored begins at a multiple of 4, a library at one of a page."""
    entry = zipfile.ZipInfo(name, FIXED_TIME)
    entry.compress_type = compression
    if compression == zipfile.ZIP_STORED:
        multiple = PAGE if name.endswith(".so") else 4
        header = 30 + len(name.encode()) + 6
        padding = -(archive.fp.tell() + header) % multiple  # type: ignore[union-attr]
        entry.extra = struct.pack("<HHH", ALIGNMENT_FIELD, 2 + padding, multiple) + bytes(padding)
    archive.writestr(entry, content)


def sign(source: Path, target: Path, work: Path) -> None:
    """With a key of this run: enough to install it on a phone of one's own."""
    store, password = work / "key.jks", "android"
    options = ["-keyalg", "RSA", "-keysize", "2048", "-validity", "10000", "-dname", "CN=Debug"]
    run("keytool", "-genkeypair", "-keystore", store, "-storepass", password, "-keypass", password, "-alias", "debug", *options)
    run("apksigner", "sign", "--ks", store, "--ks-pass", f"pass:{password}", "--out", target, source)
    target.with_name(target.name + ".idsig").unlink(missing_ok=True)


def verify(path: Path) -> None:
    run("apksigner", "verify", "--min-sdk-version", "26", path)
    badging = run("aapt", "dump", "badging", path, check=False)
    for line in badging.splitlines():
        if re.match(r"package|sdkVersion|targetSdk|launchable|locales|native-code", line):
            print(line)
    misplaced = [name for name, start, multiple in stored(path) if start % multiple]
    if misplaced:
        sys.exit(f"{path}: not aligned: {', '.join(misplaced)}")
    with zipfile.ZipFile(path) as archive:
        parts = {"code": r"classes.*\.dex", "assets": "assets/.*", "native libraries": "lib/.*"}
        sizes = {
            name: sum(entry.compress_size for entry in archive.infolist() if re.fullmatch(pattern, entry.filename))
            for name, pattern in parts.items()
        }
    print(f"{path}: {path.stat().st_size:,} bytes; " + ", ".join(f"{name} {size:,}" for name, size in sizes.items()))


def stored(path: Path) -> Iterator[tuple[str, int, int]]:
    """Of each entry that is not compressed: name, where its bytes begin, of what they are to begin at a multiple."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for entry in archive.infolist():
            if entry.compress_type == zipfile.ZIP_STORED:
                file.seek(entry.header_offset + 26)
                name, extra = struct.unpack("<HH", file.read(4))
                yield entry.filename, entry.header_offset + 30 + name + extra, PAGE if entry.filename.endswith(".so") else 4


def run(*command: str | Path, check: bool = True) -> str:
    try:
        result = subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        sys.exit(f"{command[0]} is not on the PATH; on Debian: apt-get install aapt apksigner default-jdk-headless maven")
    if check and result.returncode:
        sys.exit(f"{command[0]}: {(result.stderr or result.stdout).strip()}")
    return result.stdout


if __name__ == "__main__":
    main()
