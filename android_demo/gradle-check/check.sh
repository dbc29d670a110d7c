#!/bin/bash
# check.sh: a model of the sync with Android Studio. There is no Gradle where this runs, so each script is wrapped in a function (KotlinDsl.kt stands
# for what Gradle generates), compiled against the real APIs of Gradle, AGP, Kotlin's plugin and Dokka, and run on their real classes by Gradle's own
# ProjectBuilder (Sync.kt). That configures the projects as a sync does, and resolves and builds nothing. Gradle's classes are of the newest version
# on Maven Central that has all in one jar, and say that they are the wrapper's. Exit code 3, and one line that says why: Maven, a JDK or an artifact
# is not to be had. Any other exit code but 0: something is broken.
set -euo pipefail
cd "$(dirname "$0")"
../../scripts/android/toolchain.sh
m2=${M2:-$HOME/.m2/repository}
catalog() { sed -n "s/^$1 = \"\(.*\)\"/\1/p" ../gradle/libs.versions.toml; }
kotlin=$(catalog kotlin)
agp=$(catalog agp)
plugin=$(sed -n 's|.*<artifactId>maven-dependency-plugin</artifactId><version>\(.*\)</version>.*|\1|p' ../pom.xml)
gradle=$(sed -n 's/.*gradle-\(.*\)-bin.zip/\1/p' ../gradle/wrapper/gradle-wrapper.properties)
out=${1:-../target/gradle-check}
rm -rf "$out" && mkdir -p "$out/classes" "$out/sources"
out=$(cd "$out" && pwd)
mkdir -p "$m2"
short="-XX:TieredStopAtLevel=1 -XX:+UseSerialGC" # these end before the optimizing compiler earns what it costs

maven() { # MAVEN_ARGUMENT...; the versions are for pom.xml, which every goal reads; AGP may be on Google's repository alone
    mvn -B -q -ntp -Dmaven.repo.local="$m2" -Dagp.version="$agp" -Dkotlin.version="$kotlin" "$@" >"$out/log" 2>&1 && return
    sed "s/$(printf '\033')\[[0-9;]*m//g" "$out/log" >"$out/plain" && mv "$out/plain" "$out/log" # escapes for colours
    local reason
    reason=$(../../scripts/testing/not_to_be_had.sh "$out/log" || grep -m 1 -o 'Could not find artifact com.android.tools[^ ]*' "$out/log") || {
        cat "$out/log" >&2
        echo "gradle-check: Maven failed: $*" >&2
        exit 1
    }
    echo "gradle-check: $reason" >&2
    exit 3
}
maven -f pom.xml "org.apache.maven.plugins:maven-dependency-plugin:$plugin:build-classpath" -Dmdep.outputFile="$out/classpath" -DincludeTypes=jar
for artifact in kotlin-compiler-embeddable kotlin-sam-with-receiver-compiler-plugin-embeddable; do
    file=$m2/org/jetbrains/kotlin/$artifact/$kotlin/$artifact-$kotlin.jar
    [ -f "$file" ] || maven "org.apache.maven.plugins:maven-dependency-plugin:$plugin:get" -Dartifact="org.jetbrains.kotlin:$artifact:$kotlin"
done
jar() { echo "$m2/org/jetbrains/kotlin/$1/$kotlin/$1-$kotlin.jar"; }
loaded=$(find "$m2/org/jetbrains" -name 'kotlin-reflect-*.jar' -o -name 'annotations-13.0.jar' -o -name 'kotlinx-coroutines-core-jvm-*.jar' | paste -sd: -)
loaded="$loaded:$(jar kotlin-compiler-embeddable):$(jar kotlin-stdlib):$(jar kotlin-script-runtime):$(jar kotlin-daemon-embeddable)"
classpath=$(cat "$out/classpath")

wrap() { # NAME FILE RECEIVER: the script as a function, its imports before it and what Gradle imports by itself
    grep '^import ' "$2" || true
    printf 'import org.gradle.api.%s\n' '*' 'file.*' 'publish.maven.MavenPublication' 'tasks.*' 'tasks.bundling.Jar'
    echo "fun $3.$1() {"
    grep -v '^import ' "$2"
    echo "}"
}
wrap rootScript ../build.gradle.kts Project >"$out/sources/Root.kt"
wrap coreScript ../core/build.gradle.kts Project >"$out/sources/Core.kt"
wrap coreAndroidScript ../core-android/build.gradle.kts Project | sed 's/^android {/androidLibrary {/' >"$out/sources/CoreAndroid.kt"
wrap appScript ../app/build.gradle.kts Project >"$out/sources/App.kt"
wrap settingsScript ../settings.gradle.kts org.gradle.api.initialization.Settings >"$out/sources/Settings.kt"
java $short -Xmx1g -cp "$loaded" org.jetbrains.kotlin.cli.jvm.K2JVMCompiler -no-stdlib -no-reflect -nowarn -jvm-target 17 \
    -Xplugin="$(jar kotlin-sam-with-receiver-compiler-plugin-embeddable)" \
    -P plugin:org.jetbrains.kotlin.samWithReceiver:annotation=org.gradle.api.HasImplicitReceiver -d "$out/classes" -cp "$classpath" \
    KotlinDsl.kt Sync.kt "$out"/sources/*.kt || exit 1
echo "settings.gradle.kts, build.gradle.kts, core, core-android and app: names and types as in Gradle's, AGP $agp's and Kotlin $kotlin's API"

# Gradle looks for its own modules beside the sources of each, when it is not installed.
modules=
for module in base-services core-api core stdlib-java-extensions logging dependency-management; do
    mkdir -p "$out/modules/$module/build/resources/main"
    printf 'runtime=\nprojects=\n' >"$out/modules/$module/build/resources/main/gradle-$module-classpath.properties"
    modules=$modules:$out/modules/$module/build/resources/main
done
mkdir -p "$out/version/org/gradle" "$out/sdk" "$out/tree/lcsb_mobile/tiny" "$out/tree/android_demo"
printf 'versionNumber=%s\nbaseVersion=%s\nbuildTimestamp=20260101000000+0000\nbuildTimestampIso=2026-01-01 00:00:00 UTC\ncommitId=none\nisSnapshot=false\n' \
    "$gradle" "$gradle" >"$out/version/org/gradle/build-receipt.properties"
cp ../../lcsb_mobile/tiny/messages.jsonl "$out/tree/lcsb_mobile/tiny/"
(cd .. && tar -cf - --exclude=target --exclude=build --exclude=.gradle --exclude=local.properties --exclude="*.gradle.kts" .) | tar -xf - -C "$out/tree/android_demo"
ANDROID_HOME=$out/sdk ANDROID_USER_HOME=$out/android java $short -Xmx1g --add-opens java.base/java.lang=ALL-UNNAMED --add-opens java.base/java.util=ALL-UNNAMED \
    -cp "$out/version:$out/classes$modules:$classpath" SyncKt "$out/tree" "$out/gradle" ../README.md ../../.github/workflows/android.yml >"$out/sync.log" 2>&1 || {
    grep -E '^(FAILED|Exception|Caused)|passed' "$out/sync.log" || tail -n 30 "$out/sync.log"
    exit 1
}
grep passed "$out/sync.log"
