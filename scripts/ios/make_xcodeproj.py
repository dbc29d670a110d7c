"""Writes `ios_demo/LCSBMobile.xcodeproj`, and checks what it wrote.

    python scripts/ios/make_xcodeproj.py [DIRECTORY]

A project of Xcode 16 and later (objectVersion 77): `App/` is a synchronized folder, so a file that comes or goes changes nothing here, and
all else is the local package beside the project. The same script gives the same bytes. That Xcode opens the project was not seen: none ran
here.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from check_xcodeproj import faults

ROOT = Path(__file__).parents[2]
IOS_DEMO = ROOT / "ios_demo"
PROJECT = "LCSBMobile.xcodeproj"
NAME = "LCSBMobile"
IDENTIFIER = "lcsbmobile.app"
PRODUCTS = ("AppUI", "AppModel", "LCSBKit")  # of Package.swift: what the files in App/ import
NOT_MEMBERS = ("Info.plist", "LCSBMobile.entitlements")  # of App/: what the build settings name
DEMO = "$(SRCROOT)/../build/app-bundle/tiny"  # `make app-bundle` writes it
MESSAGES = "$(SRCROOT)/../lcsb_mobile/tiny/messages.jsonl"
RESOURCES = "$(TARGET_BUILD_DIR)/$(UNLOCALIZED_RESOURCES_FOLDER_PATH)"
EVERY_ACTION = "2147483647"

# Xcode has no folder reference that is called otherwise in the app than on disk, nor one that may be missing.
COPY_DEMO = """set -e
rm -rf "$SCRIPT_OUTPUT_FILE_0"
mkdir -p "$SCRIPT_OUTPUT_FILE_0"
cp "$SCRIPT_INPUT_FILE_1" "$SCRIPT_OUTPUT_FILE_0/sample.jsonl"
if [ -d "$SCRIPT_INPUT_FILE_0" ]; then
    cp -R "$SCRIPT_INPUT_FILE_0" "$SCRIPT_OUTPUT_FILE_0/tiny"
else
    echo "warning: no tiny model rides in the app; run make app-bundle in the repository's root"
fi
"""

COMMON = {
    "ALWAYS_SEARCH_USER_PATHS": "NO",
    "CLANG_ENABLE_MODULES": "YES",
    "ENABLE_USER_SCRIPT_SANDBOXING": "NO",  # a folder is copied
    "IPHONEOS_DEPLOYMENT_TARGET": "17.0",
    "LOCALIZATION_PREFERS_STRING_CATALOGS": "YES",
    "SDKROOT": "iphoneos",
    "SWIFT_EMIT_LOC_STRINGS": "NO",  # the catalogs are written by hand; Xcode would add and mark keys
    "SWIFT_VERSION": "6.0",
}
DEBUG = {"ENABLE_TESTABILITY": "YES", "ONLY_ACTIVE_ARCH": "YES", "SWIFT_OPTIMIZATION_LEVEL": "-Onone"}
RELEASE = {"SWIFT_COMPILATION_MODE": "wholemodule", "VALIDATE_PRODUCT": "YES"}
APP = {
    "ASSETCATALOG_COMPILER_APPICON_NAME": "AppIcon",
    "ASSETCATALOG_COMPILER_GLOBAL_ACCENT_COLOR_NAME": "AccentColor",
    "CODE_SIGN_ENTITLEMENTS": "App/LCSBMobile.entitlements",
    "CODE_SIGN_STYLE": "Automatic",
    "CURRENT_PROJECT_VERSION": "1",
    "GENERATE_INFOPLIST_FILE": "YES",
    "INFOPLIST_FILE": "App/Info.plist",
    "INFOPLIST_KEY_UIApplicationSceneManifest_Generation": "YES",
    "INFOPLIST_KEY_UILaunchScreen_Generation": "YES",
    "INFOPLIST_KEY_UISupportedInterfaceOrientations_iPad": "UIInterfaceOrientationPortrait UIInterfaceOrientationPortraitUpsideDown "
    "UIInterfaceOrientationLandscapeLeft UIInterfaceOrientationLandscapeRight",
    "INFOPLIST_KEY_UISupportedInterfaceOrientations_iPhone": "UIInterfaceOrientationPortrait UIInterfaceOrientationLandscapeLeft "
    "UIInterfaceOrientationLandscapeRight",
    "MARKETING_VERSION": "0.1",
    "PRODUCT_BUNDLE_IDENTIFIER": IDENTIFIER,
    "PRODUCT_NAME": "$(TARGET_NAME)",
    "TARGETED_DEVICE_FAMILY": "1,2",
}

Tree = dict[str, Any]


def identity(key: str) -> str:
    """24 hexadecimal digits, the same each time."""
    return hashlib.sha256(key.encode()).hexdigest()[:24].upper()


class Objects(dict[str, Tree]):
    """A project's objects by their identities, which `add` makes of a name."""

    def add(self, key: str, isa: str, **fields: Any) -> str:
        self[identity(key)] = {"isa": isa, **fields}
        return identity(key)

    def phase(self, isa: str, files: list[str], **fields: Any) -> str:
        return self.add(isa, isa, buildActionMask=EVERY_ACTION, files=files, runOnlyForDeploymentPostprocessing="0", **fields)

    def configurations(self, owner: str, debug: Tree, release: Tree) -> str:
        both = [
            self.add(f"{owner} {name}", "XCBuildConfiguration", name=name, buildSettings=settings)
            for name, settings in (("Debug", debug), ("Release", release))
        ]
        return self.add(
            f"{owner} configurations",
            "XCConfigurationList",
            buildConfigurations=both,
            defaultConfigurationIsVisible="0",
            defaultConfigurationName="Release",
        )


def make_project() -> Tree:
    objects = Objects()
    package = objects.add("package", "XCLocalSwiftPackageReference", relativePath=".")
    products = [objects.add(f"product {name}", "XCSwiftPackageProductDependency", package=package, productName=name) for name in PRODUCTS]
    linked = [objects.add(f"link {product}", "PBXBuildFile", productRef=product) for product in products]
    app = objects.add(
        "app",
        "PBXFileReference",
        explicitFileType="wrapper.application",
        includeInIndex="0",
        path=f"{NAME}.app",
        sourceTree="BUILT_PRODUCTS_DIR",
    )
    apart = objects.add(
        "apart", "PBXFileSystemSynchronizedBuildFileExceptionSet", membershipExceptions=list(NOT_MEMBERS), target=identity("target")
    )
    folder = objects.add("folder", "PBXFileSystemSynchronizedRootGroup", exceptions=[apart], path="App", sourceTree="<group>")
    made = objects.add("made", "PBXGroup", children=[app], name="Products", sourceTree="<group>")
    main = objects.add("main", "PBXGroup", children=[folder, made], sourceTree="<group>")
    copy = objects.phase(
        "PBXShellScriptBuildPhase",
        [],
        name="The tiny model and the sample messages",
        alwaysOutOfDate="1",
        inputPaths=[DEMO, MESSAGES],
        outputPaths=[f"{RESOURCES}/demo"],
        shellPath="/bin/sh",
        shellScript=COPY_DEMO,
    )
    target = objects.add(
        "target",
        "PBXNativeTarget",
        name=NAME,
        productName=NAME,
        productType="com.apple.product-type.application",
        productReference=app,
        buildConfigurationList=objects.configurations("target", APP, APP),
        buildPhases=[
            objects.phase("PBXSourcesBuildPhase", []),
            objects.phase("PBXFrameworksBuildPhase", linked),
            objects.phase("PBXResourcesBuildPhase", []),
            copy,
        ],
        buildRules=[],
        dependencies=[],
        fileSystemSynchronizedGroups=[folder],
        packageProductDependencies=products,
    )
    project = objects.add(
        "project",
        "PBXProject",
        attributes={"BuildIndependentTargetsInParallel": "1", "LastUpgradeCheck": "1600"},
        buildConfigurationList=objects.configurations("project", COMMON | DEBUG, COMMON | RELEASE),
        developmentRegion="en",
        hasScannedForEncodings="0",
        knownRegions=["en", "de", "Base"],
        mainGroup=main,
        minimizedProjectReferenceProxies="1",
        packageReferences=[package],
        preferredProjectObjectVersion="77",
        productRefGroup=made,
        projectDirPath="",
        projectRoot="",
        targets=[target],
    )
    return {"archiveVersion": "1", "classes": {}, "objectVersion": "77", "objects": dict(objects), "rootObject": project}


def written(value: Any, indent: int = 0) -> str:
    """As an old-style property list."""
    pad, end = "\t" * (indent + 1), "\t" * indent
    if isinstance(value, dict):
        return "{\n" + "".join(f"{pad}{written(key)} = {written(each, indent + 1)};\n" for key, each in value.items()) + end + "}"
    if isinstance(value, list):
        return "(\n" + "".join(f"{pad}{written(each, indent + 1)},\n" for each in value) + end + ")"
    if re.fullmatch(r"[A-Za-z0-9_./]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def project_text(tree: Tree) -> str:
    """The objects by kind between the comments that Xcode writes, which some readers need."""
    sections = ""
    for isa in sorted({each["isa"] for each in tree["objects"].values()}):
        ours = sorted((key, each) for key, each in tree["objects"].items() if each["isa"] == isa)
        body = "".join(f"\t\t{key} = {written(each, 2)};\n" for key, each in ours)
        sections += f"\n/* Begin {isa} section */\n{body}/* End {isa} section */\n"
    lines = {key: written(value, 1) for key, value in tree.items()} | {"objects": "{\n" + sections + "\t}"}
    return "// !$*UTF8*$!\n{\n" + "".join(f"\t{key} = {value};\n" for key, value in lines.items()) + "}\n"


def scheme_text() -> str:
    """The scheme that `xcodebuild -scheme LCSBMobile` builds, runs and archives."""
    reference = (
        f'<BuildableReference BuildableIdentifier="primary" BlueprintIdentifier="{identity("target")}" BuildableName="{NAME}.app" '
        f'BlueprintName="{NAME}" ReferencedContainer="container:{PROJECT}"/>'
    )
    runnable = f'<BuildableProductRunnable runnableDebuggingMode="0">{reference}</BuildableProductRunnable>'
    every = 'buildForTesting="YES" buildForRunning="YES" buildForProfiling="YES" buildForArchiving="YES" buildForAnalyzing="YES"'
    foundation = "Xcode.DebuggerFoundation"
    debugger = f'selectedDebuggerIdentifier="{foundation}.Debugger.LLDB" selectedLauncherIdentifier="{foundation}.Launcher.LLDB"'
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Scheme LastUpgradeVersion="1600" version="1.7">
   <BuildAction parallelizeBuildables="YES" buildImplicitDependencies="YES">
      <BuildActionEntries>
         <BuildActionEntry {every}>{reference}</BuildActionEntry>
      </BuildActionEntries>
   </BuildAction>
   <TestAction buildConfiguration="Debug" {debugger}/>
   <LaunchAction buildConfiguration="Release" {debugger}>{runnable}</LaunchAction>
   <ProfileAction buildConfiguration="Release">{runnable}</ProfileAction>
   <AnalyzeAction buildConfiguration="Debug"/>
   <ArchiveAction buildConfiguration="Release" revealArchiveInOrganizer="YES"/>
</Scheme>
"""


def files() -> dict[str, str]:
    """What the project's directory holds."""
    return {"project.pbxproj": project_text(make_project()), f"xcshareddata/xcschemes/{NAME}.xcscheme": scheme_text()}


def main(directory: Path) -> int:
    for name, text in files().items():
        path = directory / PROJECT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    found = faults(directory, PROJECT)
    print("\n".join(found) or f"{directory / PROJECT}: {len(make_project()['objects'])} objects")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else IOS_DEMO))
