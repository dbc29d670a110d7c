package lcsbmobile.app

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.w3c.dom.Element
import java.io.File
import java.io.IOException
import javax.xml.parsers.DocumentBuilderFactory

class ProblemTest : AppTest() {
    private fun strings(directory: String): Map<String, String> {
        val files = File("src/main/res/$directory").listFiles()!!.filter { it.name.startsWith("strings") }
        val strings = files.flatMap { file ->
            val nodes = DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(file).documentElement.childNodes
            (0 until nodes.length).map(nodes::item).filterIsInstance<Element>().map { it.getAttribute("name") to it.textContent }
        }
        return strings.toMap().also { assertEquals("a name is given once", strings.size, it.size) }
    }

    @Test fun `both languages have every string, with the same places to fill`() {
        val (english, german) = strings("values") to strings("values-de")
        assertEquals(english.keys, german.keys)
        val places = Regex("%(\\d\\$)?s")
        for ((name, text) in english) {
            val (here, there) = listOf(text, german.getValue(name)).map { all -> places.findAll(all).map { it.value }.toSortedSet() }
            assertEquals(name, here, there)
        }
    }

    @Test fun `every fault is said in two sentences of each language`() {
        for (fault in Fault.entries) {
            val (what, todo, was, tun) = sentences(Problem.of(fault))
            assertNotEquals(fault.name, what, was)
            assertNotEquals(fault.name, todo, tun)
            for (sentence in listOf(what, todo, was, tun)) {
                assertTrue("$fault: $sentence", sentence.endsWith(".") && sentence.length > 10 && "%" !in sentence)
            }
        }
    }

    @Test fun `no two faults have the same sentence`() {
        val said = Fault.entries.map { sentences(Problem.of(it))[0] }
        assertEquals(said.size, said.toSet().size)
    }

    @Test fun `figures are said where there are some`() {
        val memory = Problem.of(LcsbException(Fault.MEMORY_TOO_SMALL, "…", listOf("212000000", "128000000")))
        assertEquals("Training needs about 212 MB of memory but may use only 128 MB.", memory.what(english()))
        assertEquals("Das Training braucht etwa 212 MB Arbeitsspeicher, darf aber nur 128 MB nutzen.", memory.what(german()))
        val storage = Problem.of(LcsbException(Fault.STORAGE_FULL, "…", listOf("1400000000", "3000000")))
        assertEquals("Dafür werden 1,4 GB Speicherplatz gebraucht, aber nur 3,0 MB sind frei.", storage.what(german()))
        val unknown = Problem.of(LcsbException(Fault.STORAGE_FULL, "…", listOf("state")))
        assertEquals("There is not enough free storage.", unknown.what(english()))
        val line = Problem.of(Fault.DATA_LINE, listOf("data.jsonl", "17"))
        assertEquals("Line 17 of the file is not a usable example.", line.what(english()))
        assertEquals("A line of the file is not a usable example.", Problem.of(Fault.DATA_LINE).what(english()))
    }

    @Test fun `what is no fault of the core's is said too, with its details`() {
        assertEquals(Fault.RUNTIME_MISSING, Problem.of(UnsatisfiedLinkError("library \"libonnxruntime.so\" not found")).fault)
        assertEquals(Fault.MEMORY_EXCEEDED, Problem.of(OutOfMemoryError()).fault)
        assertEquals(Fault.STORAGE_FAILED, Problem.of(IOException("I/O error")).fault)
        assertEquals("The app is no longer allowed to read this file or folder.", Problem.of(SecurityException("revoked")).what(english()))
        val unexpected = Problem.of(IllegalStateException("something"))
        assertEquals("Something unexpected went wrong.", unexpected.what(english()))
        assertTrue("something" in unexpected.detail!!)
    }
}
