plugins {
    alias(libs.plugins.android.application)
}

android {
    namespace = "lcsbmobile.app"
    compileSdk = 36
    defaultConfig {
        applicationId = "lcsbmobile.app"
        minSdk = 26
        targetSdk = 35
        versionCode = 1
        versionName = "1.0"
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }
    // stored: their sizes are asked for before they are copied
    androidResources { noCompress += listOf("onnx", "bin", "json", "jsonl", "safetensors") }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    packaging { jniLibs { useLegacyPackaging = false } }
    testOptions { unitTests { isIncludeAndroidResources = true } }
    sourceSets.getByName("main").assets.srcDir(layout.buildDirectory.dir("bundle-assets"))
}

// The tiny bundle, which `make app-bundle` writes, and the sample messages ride in the assets.
val bundleAssets = tasks.register("bundleAssets", Copy::class.java) {
    from(rootDir.resolve("../build/app-bundle/tiny")) { into("tiny") }
    from(rootDir.resolve("../lcsb_mobile/tiny/messages.jsonl")) { rename { "sample.jsonl" } }
    into(layout.buildDirectory.dir("bundle-assets"))
}

tasks.named("preBuild") { dependsOn(bundleAssets) }

dependencies {
    implementation(project(":core"))
    implementation(libs.serialization.json)
    implementation(libs.onnxruntime.android)
    testImplementation(libs.onnxruntime.jvm)
    testImplementation(libs.junit)
    testImplementation(libs.mockito)
    testImplementation(libs.robolectric)
}
