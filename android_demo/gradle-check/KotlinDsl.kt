// What Gradle generates for these scripts or the Kotlin DSL provides, as far as they use it, over the real objects. libs.* is checked against the version
// catalog by tests/android/test_builds.py.
import com.android.build.api.dsl.ApplicationExtension
import com.android.build.api.dsl.LibraryExtension
import com.android.build.api.variant.ApplicationAndroidComponentsExtension
import org.gradle.api.NamedDomainObjectProvider
import org.gradle.api.Project
import org.gradle.api.artifacts.dsl.DependencyHandler
import org.gradle.api.plugins.JavaPluginExtension
import org.gradle.api.publish.PublishingExtension
import org.gradle.api.tasks.SourceSetContainer
import org.gradle.api.tasks.TaskContainer
import org.gradle.api.tasks.TaskProvider
import org.gradle.api.tasks.testing.Test
import org.jetbrains.kotlin.gradle.dsl.KotlinJvmProjectExtension
import java.io.File

private val tables = HashMap<String, MutableMap<String, String>>().also { tables ->
    var table = ""
    for (line in File("../gradle/libs.versions.toml").readLines()) {
        if (line.startsWith("[")) table = line.trim('[', ']')
        if (" = " in line) tables.getOrPut(table) { HashMap() }[line.substringBefore(" = ")] = line.substringAfter(" = ")
    }
}

private fun entry(table: String, alias: String, key: String): String =
    Regex("$key = \"(.*?)\"").find(tables.getValue(table).getValue(alias))!!.groupValues[1]

private fun library(alias: String): String =
    entry("libraries", alias, "module") + ":" + tables.getValue("versions").getValue(entry("libraries", alias, "version.ref")).trim('"')

private fun plugin(alias: String): String = entry("plugins", alias, "id")

class Catalog {
    val plugins = Plugins()
    val onnxruntime = Runtimes()
    val serialization = Serialization()
    val abi = Abi()
    val test = AndroidTests()
    val junit = library("junit")
    val mockito = library("mockito")
    val robolectric = library("robolectric")
}

class Plugins {
    val android = Android()
    val kotlin = KotlinPlugins()
    val dokka = plugin("dokka")
}

class Android {
    val application = plugin("android-application")
    val library = plugin("android-library")
}

class KotlinPlugins {
    val jvm = plugin("kotlin-jvm")
    val serialization = plugin("kotlin-serialization")
}

class Runtimes {
    val android = library("onnxruntime-android")
    val jvm = library("onnxruntime-jvm")
}

class Serialization {
    val json = library("serialization-json")
}

class Abi {
    val tools = library("abi-tools")
}

class AndroidTests {
    val runner = library("test-runner")
}

val libs = Catalog()

class PluginSpec {
    val used = mutableListOf<PluginUse>()
    val `maven-publish`: PluginUse get() = alias("maven-publish")

    fun alias(id: String): PluginUse = PluginUse(id).also { used += it }
}

class PluginUse(val id: String, var applied: Boolean = true) {
    infix fun apply(apply: Boolean): PluginUse = also { applied = apply }
}

fun Project.plugins(use: PluginSpec.() -> Unit) {
    for (plugin in PluginSpec().apply(use).used.filter { it.applied }) {
        if (plugin.id == libs.plugins.dokka) standForDokka() else pluginManager.apply(plugin.id)
    }
}

/** Dokka's plugin runs on the Kotlin DSL's own classes, which no registry has. Its task is all that the scripts use. */
private fun Project.standForDokka() {
    tasks.register("dokkaGeneratePublicationHtml") { outputs.dir(layout.buildDirectory.dir("dokka/html")) }
}

// In the script of a library `android` is of this type; check.sh renames it there.
fun Project.androidLibrary(configure: LibraryExtension.() -> Unit) = extensions.getByType(LibraryExtension::class.java).configure()

fun Project.android(configure: ApplicationExtension.() -> Unit) = extensions.getByType(ApplicationExtension::class.java).configure()

fun Project.androidComponents(configure: ApplicationAndroidComponentsExtension.() -> Unit) =
    extensions.getByType(ApplicationAndroidComponentsExtension::class.java).configure()

fun Project.java(configure: JavaPluginExtension.() -> Unit) = extensions.getByType(JavaPluginExtension::class.java).configure()

fun Project.kotlin(configure: KotlinJvmProjectExtension.() -> Unit) = extensions.getByType(KotlinJvmProjectExtension::class.java).configure()

val Project.sourceSets: SourceSetContainer get() = extensions.getByType(SourceSetContainer::class.java)

fun Project.publishing(configure: PublishingExtension.() -> Unit) = extensions.getByType(PublishingExtension::class.java).configure()

fun Project.dependencies(configure: DependencyHandler.() -> Unit) = dependencies.configure()

val TaskContainer.test: TaskProvider<Test> get() = named("test", Test::class.java)

operator fun <T : Any> NamedDomainObjectProvider<T>.invoke(configure: T.() -> Unit) = configure { configure() }

fun DependencyHandler.api(what: Any) = add("api", what)

fun DependencyHandler.implementation(what: Any) = add("implementation", what)

fun DependencyHandler.compileOnly(what: Any) = add("compileOnly", what)

fun DependencyHandler.runtimeOnly(what: Any) = add("runtimeOnly", what)

fun DependencyHandler.testImplementation(what: Any) = add("testImplementation", what)

fun DependencyHandler.androidTestImplementation(what: Any) = add("androidTestImplementation", what)

fun DependencyHandler.project(path: String): Any = project(mapOf("path" to path))
