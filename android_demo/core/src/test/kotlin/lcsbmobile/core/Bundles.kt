package lcsbmobile.core

import lcsbmobile.core.bundle.AdapterLayout
import lcsbmobile.core.bundle.AdapterMatrix
import lcsbmobile.core.bundle.LoraConfig
import lcsbmobile.core.bundle.MANIFEST_FILE
import lcsbmobile.core.io.directFloats
import org.junit.Assert.assertThrows
import java.io.File
import java.nio.FloatBuffer
import java.nio.file.Files

// The bundles that tests read, which scripts/testing/export_test_bundles.py wrote, and copies of them to spoil.

private val opened = HashMap<String, Bundle>()

internal val bundleDirectories: List<File> =
    File(System.getProperty("test.bundles")).listFiles { file -> File(file, MANIFEST_FILE).isFile }.orEmpty().sortedBy { it.name }

internal fun openBundle(name: String): Bundle = opened.getOrPut(name) { Bundle.open(bundleDirectories.first { it.name == name }) }

internal fun initialAdapter(bundle: Bundle): FloatBuffer =
    directFloats(bundle.manifest.adapter.size).also { bundle.readInitialAdapter(it) }

/** Layers of these sizes. */
internal fun layoutOf(vararg sizes: Int): AdapterLayout =
    AdapterLayout(LoraConfig(), sizes.associate { "of$it" to listOf(AdapterMatrix("x.lora_A", listOf(1, it), 0)) }, sizes.map { "of$it" })

internal fun <T> inScratch(use: (File) -> T): T {
    val directory = Files.createTempDirectory("lcsb").toFile()
    try {
        return use(directory)
    } finally {
        directory.deleteRecursively()
    }
}

/** What [act] throws, which must be of [fault] and one printable line. */
internal fun refusal(fault: Fault, act: () -> Unit): String {
    val error = assertThrows(LcsbException::class.java) { act() }
    val message = error.message ?: ""
    check(error.fault == fault) { "expected $fault, found ${error.fault}: $message" }
    check(message.length < 4000 && message.none { it < ' ' || it in '\u007f'..'\u009f' }) { "no printable line: $message" }
    return message
}
