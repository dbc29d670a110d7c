#!/bin/bash
# aapt2.sh FRAMEWORK_JAR TARGET TINY_BUNDLE MIN_SDK TARGET_SDK: src/main/res, the manifest and the assets -> TARGET/res.apk, TARGET/AndroidManifest.xml,
# TARGET/rules.pro (which classes R8 must keep, as the manifest and layouts name them) and TARGET/generated-sources/r/lcsbmobile/app/R.java. Gradle does the same by itself.
set -euo pipefail
cd "$(dirname "$0")"
framework=$1 out=$2 bundle=$3 min_sdk=$4 target_sdk=$5

if ! command -v aapt2 >/dev/null; then
    echo "aapt2 is missing. On Debian or Ubuntu: apt-get install -y --no-install-recommends aapt. Elsewhere: put the SDK's build-tools on the PATH." >&2
    exit 1
fi
if [ ! -f "$bundle/manifest.json" ]; then
    echo "$bundle: no bundle there. Write it with make device-bundles, or give another one with -Dtiny.bundle=DIRECTORY." >&2
    exit 1
fi

rm -rf "$out/assets"
mkdir -p "$out/assets/tiny" "$out/generated-sources/r"
cp "$bundle"/* "$out/assets/tiny/"
cp ../../lcsb_mobile/tiny/messages.jsonl "$out/assets/sample.jsonl"
# The application's package and how libraries are packed stand in build.gradle.kts; aapt2 wants them here.
sed -e 's|<manifest |<manifest package="lcsbmobile.app" android:versionCode="1" android:versionName="1.0" |' \
    -e 's|<application |<application android:extractNativeLibs="false" |' src/main/AndroidManifest.xml >"$out/AndroidManifest.xml"
aapt2 compile --dir src/main/res -o "$out/res.zip"
# Assets are stored, not compressed: their sizes are asked for before they are copied. Debian's aapt2 is of Android 10: it knows neither <property> (API 31) nor two kinds
# of tables in newer frameworks, and needs none of them.
aapt2 link --warn-manifest-validation -I "$framework" --manifest "$out/AndroidManifest.xml" --min-sdk-version "$min_sdk" --target-sdk-version "$target_sdk" -A "$out/assets" \
    -0 onnx -0 bin -0 json -0 jsonl -0 safetensors --java "$out/generated-sources/r" --proguard "$out/rules.pro" -o "$out/res.apk" "$out/res.zip" 2> >(grep -v -e 'unexpected chunk type 518' -e 'Unknown chunk type' -e 'unexpected element <property>' >&2)
