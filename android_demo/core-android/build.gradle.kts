// core with what it needs on a phone: ONNX Runtime's Android archive, and the rules that keep R8 off it. No code of its own.
plugins {
    alias(libs.plugins.android.library)
    `maven-publish`
}

android {
    namespace = "lcsbmobile.core.android"
    compileSdk = 36
    defaultConfig {
        minSdk = 26
        consumerProguardFiles("consumer-rules.pro")
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    publishing { singleVariant("release") { withSourcesJar() } }
}

dependencies {
    api(project(":core"))
    runtimeOnly(libs.onnxruntime.android)
}

publishing {
    publications.register("coreAndroid", MavenPublication::class.java) {
        afterEvaluate { from(components.getByName("release")) }
    }
}
