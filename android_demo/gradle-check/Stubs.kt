// What Gradle generates for these scripts or the Kotlin DSL provides, as far as they use it. libs.* is checked against the version catalog by
// tests/android/test_builds.py.
import com.android.build.api.dsl.ApplicationExtension
import org.gradle.api.Project
import org.gradle.api.artifacts.dsl.DependencyHandler
import org.gradle.api.tasks.TaskContainer
import org.gradle.api.tasks.TaskProvider
import org.gradle.api.tasks.testing.Test
import org.jetbrains.kotlin.gradle.dsl.KotlinJvmProjectExtension

class Catalog {
    val plugins = Plugins()
    val onnxruntime = Runtimes()
    val serialization = Serialization()
    val abi = Abi()
    val junit = "junit"
    val mockito = "mockito"
    val robolectric = "robolectric"
}

class Plugins {
    val android = Android()
    val kotlin = KotlinPlugins()
}

class Android {
    val application = "android-application"
}

class KotlinPlugins {
    val jvm = "kotlin-jvm"
    val serialization = "kotlin-serialization"
}

class Runtimes {
    val android = "onnxruntime-android"
    val jvm = "onnxruntime-jvm"
}

class Abi {
    val tools = "abi-tools"
}

class Serialization {
    val json = "serialization-json"
}

val Project.libs: Catalog get() = Catalog()

class PluginSpec {
    fun alias(id: String): PluginUse = PluginUse(id)
}

class PluginUse(val id: String) {
    infix fun apply(apply: Boolean): PluginUse = this
}

fun Project.plugins(use: PluginSpec.() -> Unit) = PluginSpec().use()

fun Project.android(configure: ApplicationExtension.() -> Unit) = extensions.getByType(ApplicationExtension::class.java).configure()

fun Project.kotlin(configure: KotlinJvmProjectExtension.() -> Unit) = extensions.getByType(KotlinJvmProjectExtension::class.java).configure()

fun Project.dependencies(configure: DependencyHandler.() -> Unit) = dependencies.configure()

val TaskContainer.test: TaskProvider<Test> get() = named("test", Test::class.java)

operator fun <T : Any> org.gradle.api.NamedDomainObjectProvider<T>.invoke(configure: T.() -> Unit) = configure { configure() }

fun DependencyHandler.implementation(what: Any) = add("implementation", what)

fun DependencyHandler.compileOnly(what: Any) = add("compileOnly", what)

fun DependencyHandler.testImplementation(what: Any) = add("testImplementation", what)

fun DependencyHandler.project(path: String): Any = project(mapOf("path" to path))
