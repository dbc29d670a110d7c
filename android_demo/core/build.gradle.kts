import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.kotlin.jvm)
    alias(libs.plugins.kotlin.serialization)
    alias(libs.plugins.dokka)
    `maven-publish`
}

// No toolchain: Gradle would look for a JDK 17 beside the one that Android Studio brings.
java {
    sourceCompatibility = JavaVersion.VERSION_17
    targetCompatibility = JavaVersion.VERSION_17
    withSourcesJar()
}

kotlin {
    explicitApi()
    compilerOptions {
        jvmTarget.set(JvmTarget.JVM_17)
        freeCompilerArgs.add("-Xjdk-release=17")
        allWarningsAsErrors.set(true)
    }
}

// What core uses of org.pytorch:executorch-android, whose archive is Android's alone; an app that runs bundles of target executorch has that.
val executorch = sourceSets.create("executorch") { java.setSrcDirs(listOf("../executorch/src/main/java")) }

dependencies {
    implementation(libs.serialization.json)
    compileOnly(executorch.output)
    testImplementation(executorch.output)
    // an app takes ai.onnxruntime from core-android; on a desktop it is the JVM's
    compileOnly(libs.onnxruntime.jvm)
    testImplementation(libs.onnxruntime.jvm)
    testImplementation(libs.abi.tools)
    testImplementation(libs.junit)
}

tasks.test {
    maxHeapSize = "1g"
    systemProperty("test.bundles", rootDir.resolve("../build/device-bundles").path)
    systemProperty("test.data", rootDir.resolve("../tests/golden").path)
}

val kdoc = tasks.register("kdocJar", Jar::class.java) {
    archiveClassifier.set("javadoc")
    from(tasks.named("dokkaGeneratePublicationHtml"))
}

publishing {
    publications.register("core", MavenPublication::class.java) {
        from(components.getByName("java"))
        artifact(kdoc)
    }
}
