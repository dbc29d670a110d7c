// The model of Android Studio's sync: the scripts run on Gradle's, AGP's and the Kotlin plugin's own classes, and what they make of the projects is looked at.
import com.android.build.api.dsl.ApplicationExtension
import com.android.build.api.dsl.LibraryExtension
import org.gradle.api.Project
import org.gradle.api.internal.project.ProjectInternal
import org.gradle.api.plugins.JavaPluginExtension
import org.gradle.api.publish.PublishingExtension
import org.gradle.api.publish.maven.MavenPublication
import org.gradle.api.tasks.SourceSetContainer
import org.gradle.api.tasks.testing.Test
import org.gradle.testfixtures.ProjectBuilder
import java.io.File
import kotlin.system.exitProcess

private var passed = 0
private val faults = mutableListOf<String>()

private fun check(what: String, found: () -> Boolean) {
    val error = try {
        if (found()) null else "not so"
    } catch (error: Throwable) { // a class that is missing is an Error
        generateSequence<Throwable>(error) { it.cause }.joinToString(": ") { it.message ?: it.javaClass.name }
    }
    if (error == null) passed++ else faults += "$what: $error"
}

private class Build(directory: File, out: File) {
    val root = builder("lcsb-mobile-demo", directory).withGradleUserHomeDir(out).build()
    val core = module("core")
    val coreAndroid = module("core-android")
    val app = module("app")

    private fun builder(name: String, directory: File) = ProjectBuilder.builder().withName(name).withProjectDir(directory)

    private fun module(name: String): Project = builder(name, root.projectDir.resolve(name)).withParent(root).build().also { project ->
        File("../gradle.properties").readLines().map { it.split("=") }.filter { "." !in it[0] }.forEach { (key, value) -> project.setProperty(key, value) }
    }
}

private fun Project.evaluated(script: Project.() -> Unit) {
    script()
    (this as ProjectInternal).evaluate()
}

private fun Project.needs(task: String) = tasks.getByName(task).let { one -> one.taskDependencies.getDependencies(one).map { it.name } }

private fun Project.run(task: String) = tasks.getByName(task).let { one -> one.actions.forEach { it.execute(one) } }

private fun Project.testProperties(task: String) = (tasks.getByName(task) as Test).systemProperties.keys

private fun Project.publication(name: String) = extensions.getByType(PublishingExtension::class.java).publications.getByName(name) as MavenPublication

private fun Project.dependenciesOf(configuration: String) = configurations.getByName(configuration).dependencies.map { "${it.group}:${it.name}:${it.version}" }

private fun checkCore(core: Project) {
    check("core asks for no toolchain") { !core.extensions.getByType(JavaPluginExtension::class.java).toolchain.languageVersion.isPresent }
    check("core's tests are given bundles and golden files") { core.testProperties("test").containsAll(setOf("test.bundles", "test.data")) }
    check("core is published with its sources and KDoc") {
        val publication = core.publication("core")
        val name = "${publication.groupId}:${publication.artifactId}:${publication.version}"
        name == "lcsbmobile:core:1.0" && publication.artifacts.map { it.classifier }.toSet() == setOf(null, "sources", "javadoc")
    }
    check("core is compiled against what stands for ExecuTorch, and published without") {
        val stand = core.rootDir.resolve("executorch/src/main/java/org/pytorch/executorch/Module.java")
        stand in core.extensions.getByType(SourceSetContainer::class.java).getByName("executorch").java.files &&
            core.extensions.getByType(SourceSetContainer::class.java).getByName("main").java.files.none { it == stand }
    }
    check("core's KDoc is Dokka's") { "dokkaGeneratePublicationHtml" in core.needs("kdocJar") }
}

private fun checkCoreAndroid(library: Project) {
    check("core-android brings core and the runtime") {
        "lcsbmobile:core:1.0" in library.dependenciesOf("api") &&
            library.dependenciesOf("runtimeOnly").any { it.startsWith("com.microsoft.onnxruntime:onnxruntime-android:") }
    }
    check("core-android gives an app its rules for R8") {
        val rules = library.extensions.getByType(LibraryExtension::class.java).defaultConfig.consumerProguardFiles.single()
        "-keep class ai.onnxruntime." in rules.readText()
    }
    check("core-android is published") { library.publication("coreAndroid").let { it.groupId == "lcsbmobile" && it.artifactId == "core-android" } }
}

private fun checkApp(app: Project, bundle: File) {
    check("the app has the serialization plugin") { app.pluginManager.hasPlugin("org.jetbrains.kotlin.plugin.serialization") }
    check("the app's Kotlin is compiled with it") {
        app.dependenciesOf("kotlinCompilerPluginClasspathDebug").any { "serialization" in it }
    }
    for (variant in listOf("Debug", "Release")) {
        check("$variant's assets are made first") { "bundleAssets" in app.needs("merge${variant}Assets") }
    }
    check("the app's tests are given bundles and a folder for pictures") {
        app.testProperties("testDebugUnitTest").containsAll(setOf("test.bundles", "screenshots"))
    }
    check("without the bundle the assets fail, with the command") {
        val error = runCatching { app.run("bundleAssets") }.exceptionOrNull()
        error != null && "make app-bundle" in error.message.orEmpty()
    }
    check("the assets are the bundle and the sample messages") {
        bundle.mkdirs()
        bundle.resolve("manifest.json").writeText("{}")
        app.run("bundleAssets")
        val assets = app.tasks.getByName("bundleAssets").outputs.files.singleFile
        assets.walk().filter { it.isFile }.map { it.relativeTo(assets).path }.toSet() == setOf("tiny/manifest.json", "sample.jsonl")
    }
    val release = app.extensions.getByType(ApplicationExtension::class.java).buildTypes.getByName("release")
    check("a release is minified") { release.isMinifyEnabled && "minifyReleaseWithR8" in app.tasks.names }
    check("the app's own rules are there") { release.proguardFiles.any { it.name == "rules.pro" && it.isFile } }
    check("a release is signed, with the debug key when none is given") { release.signingConfig?.name == "debug" }
}

private fun checkTasks(build: Build, documents: List<File>) {
    for (document in documents) {
        val words = Regex("(?<!\\w):([a-z-]+):(\\w+)").findAll(document.readText()).map { it.groupValues.drop(1) }
        val named = words.filter { (module) -> build.root.findProject(module) != null }.toSet()
        check("tasks that ${document.name} names are there") {
            val missing = named.filter { (module, task) -> task !in build.root.project(module).tasks.names }
            if (named.isEmpty() || missing.isNotEmpty()) error("of ${named.size} not $missing")
            true
        }
    }
}

/** The tree to configure, a folder for Gradle's own files, and the documents that name tasks. */
fun main(arguments: Array<String>) {
    check("the build is looked at") { run(arguments).let { true } }
    faults.forEach { println("FAILED: $it") }
    println("$passed passed, ${faults.size} failed, 0 skipped")
    exitProcess(if (faults.isEmpty()) 0 else 1) // Gradle's threads would keep the process
}

private fun run(arguments: Array<String>) {
    val (copy, out) = arguments.map { File(it).absoluteFile }
    val build = Build(copy.resolve("android_demo"), out)
    check("the root is configured") { build.root.rootScript().let { true } }
    for ((project, script) in listOf(build.core to Project::coreScript, build.coreAndroid to Project::coreAndroidScript, build.app to Project::appScript)) {
        check("$project is configured") { project.evaluated(script).let { true } }
    }
    if (faults.isEmpty()) {
        checkCore(build.core)
        checkCoreAndroid(build.coreAndroid)
        checkApp(build.app, copy.resolve("build/app-bundle/tiny"))
        checkTasks(build, arguments.drop(2).map(::File))
    }
}
