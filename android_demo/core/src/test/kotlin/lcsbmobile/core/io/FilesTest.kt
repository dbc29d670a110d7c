package lcsbmobile.core.io

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.jsonPrimitive
import lcsbmobile.core.Fault
import lcsbmobile.core.RunVectors
import lcsbmobile.core.refused
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer

class FilesTest {
    @get:Rule
    val folder = TemporaryFolder()
    private val vectors = RunVectors.read()

    private fun names() = folder.root.list().orEmpty().sorted()

    @Test
    fun `a write that fails in the middle leaves what was there`() {
        val file = File(folder.root, "kept").apply { writeText("old") }
        for ((reason, fault) in listOf("No space left on device" to Fault.STORAGE_FULL, "Input/output error" to Fault.STORAGE_FAILED)) {
            val message = refused(fault) {
                replaceAtomically(file) {
                    it.write(ByteBuffer.wrap("half".toByteArray()))
                    throw IOException(reason)
                }
            }
            assertEquals("$file: cannot be written: $reason; free some space or choose another place", message)
            assertEquals("old", file.readText())
            assertEquals(listOf("kept"), names())
        }
        replaceAtomically(file) { it.write(ByteBuffer.wrap("new".toByteArray())) }
        assertEquals("new", file.readText())
        assertEquals(listOf("kept"), names())
    }

    @Test
    fun `a directory is replaced whole, and only one of its kind`() {
        val directory = File(folder.root, "out")
        replaceDirectory(directory, "marker") { File(it, "marker").writeText("1") }
        replaceDirectory(directory, "marker") {
            File(it, "marker").writeText("2")
            File(it, "more").writeText("2")
        }
        assertEquals(listOf("marker", "more"), directory.list().orEmpty().sorted())
        refused(Fault.STORAGE_FAILED) { replaceDirectory(directory, "marker") { throw IOException("broken") } }
        assertEquals("2", File(directory, "marker").readText())
        val message = refused(Fault.OPTION) { replaceDirectory(directory, "other") { throw AssertionError("it was filled") } }
        assertEquals("$directory: already exists and has no other, so it is not replaced; choose another path", message)
        assertEquals(listOf("out"), names())
    }

    @Test
    fun `what there is no room for is refused before it is begun`() {
        checkFreeSpace(folder.root, 1000)
        val message = refused(Fault.STORAGE_FULL) { checkFreeSpace(folder.root, 1L shl 60) }
        assertTrue(message, message.startsWith("${folder.root}: the run needs 1,152,921,504,606.8 MB of storage, "))
    }

    @Test
    fun `what is swapped counts as anonymous memory`() {
        val rollup = listOf("Rss:  900 kB", "Anonymous:       300 kB", "Swap:  70 kB")
        val status = listOf("VmRSS:  900 kB", "RssAnon:\t 290 kB", "VmSwap:\t 60 kB")
        assertEquals(360L * 1024, anonymousBytes(rollup, status))
        assertEquals(350L * 1024, anonymousBytes(emptyList(), status))
        assertEquals(300L * 1024, anonymousBytes(rollup, emptyList()))
        assertNull(anonymousBytes(listOf("Rss: 1 kB"), listOf("VmSwap: 60 kB")))
    }

    @Test
    fun `numbers and texts are python's`() {
        for (case in vectors.doubles) {
            val value = case.value.jsonPrimitive.content.toDouble()
            assertEquals(case.repr, pythonRepr(value))
            assertEquals(case.msgspec, Json.encodeToString(MsgspecDouble, value))
        }
        for (case in vectors.texts) assertEquals(case.json, asciiJson(case.text))
    }

    @Test
    fun `megabytes are python's`() {
        assertEquals(listOf("0.0 MB", "0.1 MB", "212.4 MB", "1,234.6 MB"), listOf(0L, 51_000, 212_400_000, 1_234_567_890).map(::megabytes))
    }
}
