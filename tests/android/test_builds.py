"""The two builds of android_demo agree: Maven's, which needs nothing of Google's repository, and Gradle's. And core's packages stand in one
order. No build is run here."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it there

DEMO = Path(__file__).parents[2] / "android_demo"
MAVEN = "{http://maven.apache.org/POM/4.0.0}"
ANDROID = "{http://schemas.android.com/apk/res/android}"
CATALOG = tomllib.loads((DEMO / "gradle/libs.versions.toml").read_text())
SCRIPTS = [DEMO / folder / "build.gradle.kts" for folder in (".", "core", "core-android", "app")]

# Where one artifact has another name for the desktop's JVM than for Android, and what Maven alone needs.
ON_ANDROID = {"com.microsoft.onnxruntime:onnxruntime": "com.microsoft.onnxruntime:onnxruntime-android"}
MAVEN_ALONE = {
    "org.jetbrains.kotlin:kotlin-stdlib",  # Gradle's Kotlin plugin adds it
    "org.robolectric:android-all",  # AGP compiles against the SDK's android.jar
    "lcsbmobile:shim",  # stands for androidx.test, which Google's repository has
    "lcsbmobile:executorch",  # Gradle's core compiles the same sources as a source set
}
# What Gradle alone needs: the tests on a device.
GRADLE_ALONE = {"androidx.test:runner"}
VERSIONS_OF_GRADLE_ALONE = {"agp", "dokka", "test-runner"}

CORE = "lcsbmobile.core"
CORE_SOURCES = DEMO / "core/src/main/kotlin/lcsbmobile/core"
# In the order of the data flow: each uses only what stands before it. With a capital, a file of the root package, which is core's API.
CORE_ORDER = (
    *("Faults", "io", "text", "bundle", "adapter", "Bundle", "data", "runtime", "training", "Verdict", "checkpoint"),
    *("Generate", "RunOptions", "RunRecords", "RunControl", "runs", "Compare", "TrainingRun"),
)


def pom(module: str) -> ElementTree.Element:
    return ElementTree.parse(DEMO / module / "pom.xml").getroot()


def properties(module: str) -> dict[str, str]:
    return {node.tag.removeprefix(MAVEN): node.text or "" for node in pom(module).find(f"{MAVEN}properties") or ()}


def maven_dependencies(module: str) -> set[str]:
    nodes = pom(module).findall(f"{MAVEN}dependencies/{MAVEN}dependency")
    return {f"{node.findtext(f'{MAVEN}groupId')}:{node.findtext(f'{MAVEN}artifactId')}" for node in nodes}


def gradle_dependencies(module: str) -> dict[str, set[str]]:
    """Module names by configuration; another module of the build as `lcsbmobile:NAME`."""
    found: dict[str, set[str]] = {}
    script = (DEMO / module / "build.gradle.kts").read_text()
    for configuration, library, project in re.findall(r"(\w+)\((?:libs\.([\w.]+)|project\(\":([\w-]+)\"\))\)", script):
        if configuration != "alias":
            name = f"lcsbmobile:{project}" if project else CATALOG["libraries"][library.replace(".", "-")]["module"]
            found.setdefault(configuration, set()).add(name)
    return found


def test_versions_agree() -> None:
    """Every version of the catalog that Maven uses too is the same there."""
    stated = {name.removesuffix(".version"): value for name, value in properties(".").items() if name.endswith(".version")}
    for name, version in CATALOG["versions"].items():
        assert name in VERSIONS_OF_GRADLE_ALONE or stated[name] == version, name
    assert set(stated) - set(CATALOG["versions"]) == {"android.all"}


def test_what_the_scripts_use_is_in_the_catalog_and_all_of_it_is_used() -> None:
    used = {name for script in SCRIPTS for name in re.findall(r"libs\.([\w.]+)", script.read_text())}
    plugins = {name.removeprefix("plugins.").replace(".", "-") for name in used if name.startswith("plugins.")}
    libraries = {name.replace(".", "-") for name in used if not name.startswith("plugins.")}
    assert plugins == set(CATALOG["plugins"])
    assert libraries == set(CATALOG["libraries"])
    assert {entry["version"]["ref"] for kind in ("libraries", "plugins") for entry in CATALOG[kind].values()} == set(CATALOG["versions"])


@pytest.mark.parametrize("module", ["core", "app"])
def test_dependencies_agree(module: str) -> None:
    gradle = set[str]().union(*gradle_dependencies(module).values()) - GRADLE_ALONE
    if module == "app":  # Gradle's takes core and the runtime as one archive
        assert "lcsbmobile:core-android" in gradle_dependencies(module)["implementation"]
        gradle = gradle - {"lcsbmobile:core-android"} | set[str]().union(*gradle_dependencies("core-android").values())
    maven = maven_dependencies(module) - MAVEN_ALONE
    assert {ON_ANDROID.get(name, name) for name in maven} == {ON_ANDROID.get(name, name) for name in gradle}


def test_what_stands_for_executorch_is_in_no_app() -> None:
    """The app looks for its classes to say whether it has the library."""
    scopes = {
        module: node.findtext(f"{MAVEN}scope")
        for module in ("core", "app", "cli")
        for node in pom(module).iter(f"{MAVEN}dependency")
        if node.findtext(f"{MAVEN}artifactId") == "executorch"
    }
    assert scopes == {"core": "provided"}
    script = (DEMO / "core/build.gradle.kts").read_text()
    assert '"../executorch/src/main/java"' in script and re.findall(r"(\w+)\(executorch\.output\)", script) == [
        "compileOnly",
        "testImplementation",
    ]


def test_the_apk_takes_the_runtime_of_android_and_core_neither() -> None:
    assert gradle_dependencies("core-android") == {
        "api": {"lcsbmobile:core"},
        "runtimeOnly": {"com.microsoft.onnxruntime:onnxruntime-android"},
    }
    assert "com.microsoft.onnxruntime:onnxruntime" in gradle_dependencies("core")["compileOnly"]


def test_source_folders_and_manifest_are_where_gradle_looks() -> None:
    for module in ("core", "app"):
        for kind, tag in (("main", "sourceDirectory"), ("test", "testSourceDirectory")):
            folder = pom(module).findtext(f"{MAVEN}build/{MAVEN}{tag}")
            assert folder == f"src/{kind}/kotlin" and (DEMO / module / folder).is_dir()
    assert (DEMO / "app/src/main/AndroidManifest.xml").is_file() and (DEMO / "app/src/main/res/values/strings.xml").is_file()
    assert re.findall(r"include\((.*)\)", (DEMO / "settings.gradle.kts").read_text()) == ['":core", ":core-android", ":app"']


def test_numbers_of_the_app_agree() -> None:
    script, stated = (DEMO / "app/build.gradle.kts").read_text(), properties("app")
    for gradle, maven in (("minSdk", "min.sdk"), ("targetSdk", "target.sdk")):
        assert re.findall(rf"{gradle} = (\d+)", script) == [stated[maven]]
    library = (DEMO / "core-android/build.gradle.kts").read_text()
    for number in ("compileSdk", "minSdk"):
        assert re.findall(rf"{number} = \d+", library) == re.findall(rf"{number} = \d+", script)
    application = re.findall(r'(?:namespace|applicationId) = "(.*)"', script)
    assert application == ["lcsbmobile.app", "lcsbmobile.app"] and 'package="lcsbmobile.app"' in (DEMO / "app/aapt2.sh").read_text()


def test_the_rules_for_r8_stand_once() -> None:
    """`make apk` gives R8 the files that Gradle gives it."""
    assert 'consumerProguardFiles("consumer-rules.pro")' in (DEMO / "core-android/build.gradle.kts").read_text()
    assert (
        'proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "rules.pro")' in (DEMO / "app/build.gradle.kts").read_text()
    )
    packing = (DEMO.parent / "scripts/android/apk.py").read_text()
    assert 'RULES = [DEMO / "core-android/consumer-rules.pro", DEMO / "app/rules.pro"]' in packing and "-keep" not in packing
    assert "-keep class ai.onnxruntime.** { *; }" in (DEMO / "core-android/consumer-rules.pro").read_text().splitlines()


def test_gradles_properties() -> None:
    """The modules are published under Maven's name; and Robolectric brings AndroidX, which AGP refuses unless it is told of it."""
    stated = dict(line.split("=", 1) for line in (DEMO / "gradle.properties").read_text().splitlines())
    names = {"group": pom(".").findtext(f"{MAVEN}groupId"), "version": pom(".").findtext(f"{MAVEN}version")}
    assert {name: stated[name] for name in names} == names
    assert stated["android.useAndroidX"] == "true"


def test_tests_read_nothing_that_one_build_alone_writes() -> None:
    """AGP writes test_config.properties by itself: another one in the tests' resources would be found before it."""
    assert not list((DEMO / "app/src/test").rglob("test_config.properties"))
    for path in (DEMO / "app/src/test").rglob("*.kt"):
        assert not re.search(r'"(?:target|build)/', path.read_text()), path


def test_no_permission_to_use_the_network() -> None:
    manifest = ElementTree.parse(DEMO / "app/src/main/AndroidManifest.xml").getroot()
    permissions = {node.get(f"{ANDROID}name", "") for node in manifest.iter("uses-permission")}
    assert permissions and not any("INTERNET" in name or "NETWORK" in name for name in permissions)


def test_core_knows_no_android() -> None:
    """But for one class, which is asked for by its name: it alone can set a variable of the process."""
    sources = list((DEMO / "core").rglob("*.kt"))
    assert len(sources) > 20
    for path in sources:
        assert not re.search(r"\bandroidx?\.", path.read_text().replace('Class.forName("android.system.Os")', "")), path


def declared(source: str) -> set[str]:
    """The names that a Kotlin file offers to others: its top-level declarations, which alone stand at the beginning of a line."""
    modifiers = r"^(?!private\b)(?:(?:internal|public|sealed|open|data|enum|abstract|const|inline|fun(?= interface)) )*"
    kinds = r"(?:class|interface|object|typealias|val|fun)(?: <[^>]*>)? (?:\w+\.)?"
    return set(re.findall(modifiers + kinds + r"(\w+)", source, re.MULTILINE))


def test_packages_of_core_stand_in_an_order() -> None:
    sources = {path.relative_to(CORE_SOURCES): path.read_text() for path in CORE_SOURCES.rglob("*.kt")}
    part = {path: path.parts[0] if len(path.parts) > 1 else path.stem for path in sources}
    assert set(part.values()) == set(CORE_ORDER)
    root = {name: path.stem for path, source in sources.items() if len(path.parts) == 1 for name in declared(source)}
    faults = set[str]()
    for path, source in sources.items():
        assert source.startswith(f"package {'.'.join((CORE, *path.parts[:-1]))}\n"), path
        code = re.sub(r"/\*.*?\*/|//[^\n]*", "", source, flags=re.DOTALL)
        names = re.findall(rf"\b{CORE}\.(\w+)", code.split("\n", 1)[1])
        used = {root.get(name, name) for name in names}
        if len(path.parts) == 1:  # within a package nothing is imported
            used |= {root[word] for word in re.findall(r"\w+", code) if word in root}
        for other in used - {part[path]}:
            if CORE_ORDER.index(other) >= CORE_ORDER.index(part[path]):
                faults.add(f"{path} uses {other}, which stands after {part[path]}")
    assert not faults, sorted(faults)
