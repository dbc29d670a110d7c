import org.gradle.api.tasks.PathSensitivity
import javax.inject.Inject

plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.serialization)
}

// A release is signed with the key that these name, in ~/.gradle/gradle.properties or by -P; without them with the debug key.
val keyStore = providers.gradleProperty("lcsb.keyStore")

android {
    namespace = "lcsbmobile.app"
    compileSdk = 36
    defaultConfig {
        applicationId = "lcsbmobile.app"
        minSdk = 26
        targetSdk = 35
        versionCode = 1
        versionName = "1.0"
        testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
    }
    signingConfigs {
        if (keyStore.isPresent) {
            create("given") {
                storeFile = file(keyStore.get())
                storePassword = providers.gradleProperty("lcsb.keyStorePassword").get()
                keyAlias = providers.gradleProperty("lcsb.keyAlias").get()
                keyPassword = providers.gradleProperty("lcsb.keyPassword").get()
            }
        }
    }
    buildTypes {
        getByName("release") {
            isMinifyEnabled = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"), "rules.pro")
            signingConfig = signingConfigs.getByName(if (keyStore.isPresent) "given" else "debug")
        }
    }
    // stored: their sizes are asked for before they are copied
    androidResources { noCompress += listOf("onnx", "bin", "json", "jsonl", "safetensors") }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    packaging { jniLibs { useLegacyPackaging = false } }
    testOptions {
        unitTests {
            isIncludeAndroidResources = true
            all {
                it.maxHeapSize = "2g"
                it.jvmArgs(listOf("lang", "util", "io").map { name -> "--add-opens=java.base/java.$name=ALL-UNNAMED" })
                it.systemProperty("test.bundles", rootDir.resolve("../build/device-bundles").path)
                it.systemProperty("screenshots", layout.buildDirectory.dir("screenshots").get().asFile.path)
            }
        }
    }
}

/** The tiny bundle and the sample messages, which ride in the assets. */
abstract class BundleAssets : DefaultTask() {
    @get:InputFiles
    @get:PathSensitive(PathSensitivity.RELATIVE)
    abstract val bundle: ConfigurableFileCollection

    @get:InputFile
    @get:PathSensitive(PathSensitivity.NONE)
    abstract val messages: RegularFileProperty

    @get:OutputDirectory
    abstract val assets: DirectoryProperty

    @get:Inject
    abstract val files: FileSystemOperations

    @TaskAction
    fun copy() {
        val directory = bundle.singleFile
        if (!directory.resolve("manifest.json").isFile) {
            throw GradleException("$directory: no bundle there. Write it with: make app-bundle, in the repository's root")
        }
        files.sync {
            from(directory) { into("tiny") }
            from(messages) { rename { "sample.jsonl" } }
            into(assets)
        }
    }
}

val bundleAssets = tasks.register("bundleAssets", BundleAssets::class.java) {
    bundle.from(rootDir.resolve("../build/app-bundle/tiny"))
    messages.set(rootDir.resolve("../lcsb_mobile/tiny/messages.jsonl"))
}

androidComponents {
    onVariants { it.sources.assets?.addGeneratedSourceDirectory(bundleAssets, BundleAssets::assets) }
}

dependencies {
    implementation(project(":core-android"))
    implementation(libs.serialization.json)
    testImplementation(libs.onnxruntime.jvm)
    testImplementation(libs.junit)
    testImplementation(libs.mockito)
    testImplementation(libs.robolectric)
    androidTestImplementation(libs.junit)
    androidTestImplementation(libs.test.runner)
}
