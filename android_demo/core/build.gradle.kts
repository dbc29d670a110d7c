plugins {
    alias(libs.plugins.kotlin.jvm)
    alias(libs.plugins.kotlin.serialization)
}

kotlin {
    explicitApi()
    jvmToolchain(17)
    compilerOptions { allWarningsAsErrors.set(true) }
}

dependencies {
    implementation(libs.serialization.json)
    // the APK takes ai.onnxruntime from the Android archive; on a desktop it is the JVM's
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
