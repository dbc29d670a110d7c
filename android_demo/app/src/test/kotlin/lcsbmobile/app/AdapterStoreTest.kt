package lcsbmobile.app

import android.app.Application
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNull
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.File
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream

/** Adapters on the disk, whatever moment the process ends at; and ZIP files that mean no good. */
@RunWith(RobolectricTestRunner::class)
@Config(application = Application::class)
class AdapterStoreTest {
    @get:Rule val temporary = TemporaryFolder()

    private class Killed : RuntimeException()

    /** A process that ends before its change number [last] (from 0), or in the middle of it. */
    private class Ending(private val last: Int, private val midway: Boolean) : Disk() {
        private var count = 0

        private fun <T> change(half: () -> Unit, whole: () -> T): T {
            if (count++ < last) return whole()
            if (midway) half()
            throw Killed()
        }

        override fun replace(file: File, bytes: ByteArray) = change({ unfinished(file, bytes) }) { super.replace(file, bytes) }

        override fun write(file: File, write: (File) -> Unit) = change({ unfinished(file, ByteArray(3)) }) { super.write(file, write) }

        override fun delete(file: File) = change({}) { super.delete(file) }

        /** As an atomic write leaves it that did not come to its end. */
        private fun unfinished(file: File, bytes: ByteArray) {
            file.parentFile!!.mkdirs()
            File(file.parentFile, ".${file.name}.0a1b2c3d").writeBytes(bytes.copyOf(bytes.size / 2))
        }
    }

    private val directory get() = File(temporary.root, "adapters")

    private fun content(number: Int) = ByteArray(100) { (it * number).toByte() }

    private fun AdapterStore.add(name: String, number: Int, run: String? = null) =
        add(AdapterRecord(0, "tiny", name, 0, run = run)) { file -> Disk().replace(file, content(number)) }

    /** What a new process finds: names and contents, and which is in use. */
    private fun found(): Pair<Map<String, Int>, String?> {
        val store = AdapterStore(directory).apply { tidy() }
        val listed = store.list("tiny")
        val numbers = listed.associate { record -> record.name to (1..9).first { store.file(record).readBytes().contentEquals(content(it)) } }
        val expected = listed.flatMap { listOf("${it.id}.json", "${it.id}.safetensors") }.toSet()
        assertEquals(expected, File(directory, "tiny").list().orEmpty().toSet() - "in-use")
        return numbers to store.find("tiny", store.inUse("tiny"))?.name
    }

    @Test fun `a process may end between any two changes, and in the middle of one`() {
        val old = mapOf("a" to 1, "b" to 2) to "a"
        val changes = mapOf<String, Pair<(AdapterStore) -> Unit, Pair<Map<String, Int>, String?>>>(
            "add" to ({ store: AdapterStore -> store.add("c", 3); Unit } to (mapOf("a" to 1, "b" to 2, "c" to 3) to "a")),
            "use" to ({ store: AdapterStore -> store.use(store.list("tiny").first()) } to (old.first to "b")),
            "rename" to
                ({ store: AdapterStore -> store.change(store.list("tiny").last()) { it.copy(name = "z") }; Unit } to (mapOf("z" to 1, "b" to 2) to "z")),
            "remove" to ({ store: AdapterStore -> store.remove(store.list("tiny").last()) } to (mapOf("b" to 2) to null)),
        )
        for ((name, case) in changes) {
            val (change, new) = case
            var ended = false
            for (last in generateSequence(0) { it + 1 }.takeWhile { !ended }) {
                for (midway in listOf(false, true)) {
                    directory.deleteRecursively()
                    AdapterStore(directory).run {
                        use(add("a", 1))
                        add("b", 2)
                    }
                    try {
                        change(AdapterStore(directory, Ending(last, midway)))
                        ended = true
                    } catch (killed: Killed) {
                        val now = found()
                        assertTrue("$name, ended at change $last: $now", now == old || now == new)
                    }
                }
            }
            assertEquals(name, new, found())
        }
    }

    @Test fun `a run's adapter is there once, under the name that it was given`() {
        val store = AdapterStore(directory)
        val first = store.add("a", 1, run = "r")
        store.change(first) { it.copy(name = "mine") }
        val again = store.add("a", 2, run = "r")
        assertEquals(first.id to "mine", again.id to again.name)
        assertArrayEquals(content(2), store.file(again).readBytes())
        assertEquals(2, store.add("b", 3, run = "other").id)
        store.remove(store.list("tiny").first())
        assertEquals(listOf("mine"), store.list("tiny").map { it.name })
        assertNull(store.change(store.add("c", 4).also(store::remove)) { it.copy(name = "d") })
    }

    @Test fun `a record that cannot be read, or is another's, is none`() {
        val store = AdapterStore(directory)
        val kept = store.add("a", 1)
        for ((name, text) in listOf("7.json" to "{", "8.json" to "", "9.json" to File(directory, "tiny/1.json").readText())) {
            File(directory, "tiny/$name").writeText(text)
        }
        assertEquals(listOf(kept), store.list("tiny"))
        assertEquals(10, store.add("b", 2).id)
        File(directory, "tiny/in-use").writeText("99")
        assertNull(store.inUse("tiny"))
    }

    // ZIP files

    private fun zip(vararg entries: Pair<String, ByteArray>): ByteArray = ByteArrayOutputStream().also { bytes ->
        ZipOutputStream(bytes).use { zip ->
            for ((name, content) in entries) {
                zip.putNextEntry(ZipEntry(name))
                zip.write(content)
            }
        }
    }.toByteArray()

    private val config = "adapter_config.json" to "{}".toByteArray()
    private val model = "adapter_model.safetensors" to ByteArray(1000)

    private fun unpacked(zip: ByteArray, bytes: Long = 1000): Set<String> {
        val target = temporary.newFolder()
        unpackAdapter(ByteArrayInputStream(zip), target, bytes)
        return target.walk().filter { it.isFile }.map { it.relativeTo(target).path }.toSet()
    }

    private fun refused(zip: ByteArray): String {
        val error = assertThrows(LcsbException::class.java) { unpacked(zip) }
        assertEquals(Fault.ADAPTER, error.fault)
        return error.message!!
    }

    @Test fun `the two files are found wherever they lie, and no name becomes a path`() {
        val both = setOf(config.first, model.first)
        assertEquals(both, unpacked(zip(config, model)))
        val inside = zip("adapter/${config.first}" to config.second, "adapter/${model.first}" to model.second, "adapter/README.md" to ByteArray(9))
        assertEquals(both, unpacked(inside))
        assertEquals(both, unpacked(zip("../../${config.first}" to config.second, "/etc/${model.first}" to model.second, "../evil" to ByteArray(9))))
        assertEquals(setOf(config.first, "adapter_model.bin"), unpacked(zip(config, "adapter_model.bin" to ByteArray(9))))
    }

    @Test fun `what is none, and what would fill the phone, is refused`() {
        assertTrue("found neither" in refused("no zip".toByteArray()))
        assertTrue("found neither" in refused(zip("readme" to ByteArray(9))))
        refused(zip(config, model).let { it.copyOf(it.size / 3) })
        assertTrue("larger model" in refused(zip(config, model.first to ByteArray(6_000_000))))
        assertTrue("larger model" in refused(zip(config.first to ByteArray(5_000_000), model)))
        assertTrue("expected one" in refused(zip("a/${config.first}" to config.second, "b/${config.first}" to config.second, model)))
        assertTrue("much else" in refused(zip(config, "bomb" to ByteArray(70_000_000))))
        assertTrue("1000" in refused(zip(*Array(1001) { "f$it" to ByteArray(0) })))
    }
}
