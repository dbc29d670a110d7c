#!/bin/bash
# check.sh: types the Gradle scripts against the real APIs of Gradle, AGP and the Kotlin plugin. There is no Gradle where this runs: each
# script is wrapped in a function, and Stubs.kt stands for what Gradle generates (plugins, libs, accessors). So it proves names and types of
# what the scripts use, not that Gradle builds them. Exit code 3, and one line that says why: Maven, a JDK or an API is not to be had. Any
# other exit code but 0: something is broken.
set -euo pipefail
cd "$(dirname "$0")"
../../scripts/android/toolchain.sh
m2=${M2:-$HOME/.m2/repository}
kotlin=$(sed -n 's|.*<kotlin.version>\(.*\)</kotlin.version>.*|\1|p' ../pom.xml)
agp=$(sed -n 's/^agp = "\(.*\)"/\1/p' ../gradle/libs.versions.toml)
plugin=$(sed -n 's|.*<artifactId>maven-dependency-plugin</artifactId><version>\(.*\)</version>.*|\1|p' ../pom.xml)
out=${1:-../target/gradle-check}
rm -rf "$out" && mkdir -p "$out/classes"

# The newest Gradle API on Maven Central is older than the Gradle of the wrapper; what the scripts use is in both.
gradle_api=dev.gradleplugins:gradle-api:8.11.1
agp_api=com.android.tools.build:gradle-api:$agp
stdlib=org.jetbrains.kotlin:kotlin-stdlib:$kotlin
compiler=org.jetbrains.kotlin:kotlin-compiler-embeddable:$kotlin
script_runtime=org.jetbrains.kotlin:kotlin-script-runtime:$kotlin
daemon=org.jetbrains.kotlin:kotlin-daemon-embeddable:$kotlin
receiver=org.jetbrains.kotlin:kotlin-sam-with-receiver-compiler-plugin-embeddable:$kotlin
plugins=(org.jetbrains.kotlin:kotlin-gradle-plugin-api:"$kotlin" org.jetbrains.kotlin:kotlin-gradle-plugin:"$kotlin" org.jetbrains.kotlin:kotlin-tooling-core:"$kotlin")
jar() { # GROUP:NAME:VERSION...: the files of the artifacts, as a class path
    local group name version
    for artifact in "$@"; do
        IFS=: read -r group name version <<<"$artifact"
        echo "$m2/$(echo "$group" | tr . /)/$name/$version/$name-$version.jar"
    done | paste -sd: -
}
mkdir -p "$m2"
fetch() { # MAVEN_ARGUMENT...; AGP's newest API may be on Google's repository alone
    mvn -B -q -ntp -Dmaven.repo.local="$m2" "org.apache.maven.plugins:maven-dependency-plugin:$plugin:get" "$@" >"$out/log" 2>&1 && return
    sed "s/$(printf '\033')\[[0-9;]*m//g" "$out/log" >"$out/plain" && mv "$out/plain" "$out/log" # escapes for colours
    local reason
    reason=$(../../scripts/testing/not_to_be_had.sh "$out/log" || grep -m 1 'Could not find artifact com.android.tools.build:' "$out/log") || {
        cat "$out/log" >&2
        echo "gradle-check: fetching failed: $*" >&2
        exit 1
    }
    echo "gradle-check: $reason" >&2
    exit 3
}
for artifact in "$gradle_api" "$agp_api" "$stdlib" "$compiler" "$script_runtime" "$daemon" "$receiver" "${plugins[@]}"; do
    [ -f "$(jar "$artifact")" ] || fetch -Dartifact="$artifact" -Dtransitive=false
done
# The compiler with what it needs; Maven's build of the core has brought them too.
[ -n "$(find "$m2/org/jetbrains" -name 'kotlin-reflect-*.jar')" ] || fetch -Dartifact="$compiler"
loaded=$(find "$m2/org/jetbrains" -name 'kotlin-reflect-*.jar' -o -name 'annotations-13.0.jar' -o -name 'kotlinx-coroutines-core-jvm-*.jar' | paste -sd: -)
loaded="$loaded:$(jar "$compiler" "$stdlib" "$script_runtime" "$daemon")"
api=$(jar "$gradle_api" "$agp_api" "$stdlib" "${plugins[@]}")

wrap() { # NAME FILE RECEIVER: the script as a function
    echo "import org.gradle.api.*"
    echo "import org.gradle.api.tasks.Copy"
    echo "fun $3.$1() {"
    cat "$2"
    echo "}"
}
wrap rootScript ../build.gradle.kts Project >"$out/Root.kt"
wrap coreScript ../core/build.gradle.kts Project >"$out/Core.kt"
wrap appScript ../app/build.gradle.kts Project >"$out/App.kt"
wrap settingsScript ../settings.gradle.kts org.gradle.api.initialization.Settings >"$out/Settings.kt"
java -Xmx1g -cp "$loaded" org.jetbrains.kotlin.cli.jvm.K2JVMCompiler -no-stdlib -no-reflect -nowarn -jvm-target 17 \
    -Xplugin="$(jar "$receiver")" \
    -P plugin:org.jetbrains.kotlin.samWithReceiver:annotation=org.gradle.api.HasImplicitReceiver -d "$out/classes" -cp "$api" \
    Stubs.kt "$out"/*.kt || exit 1
echo "settings.gradle.kts, build.gradle.kts, core/build.gradle.kts, app/build.gradle.kts: names and types as in Gradle's, AGP $agp's and Kotlin $kotlin's API"
echo "4 passed, 0 failed, 0 skipped"
