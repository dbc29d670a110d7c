package lcsbmobile.core.adapter

import kotlinx.serialization.Serializable
import lcsbmobile.core.Fault
import lcsbmobile.core.bundle.AdapterLayout
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.io.toArray
import lcsbmobile.core.littleEndian
import lcsbmobile.core.openBundle
import lcsbmobile.core.refused
import lcsbmobile.core.testFile
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.util.Base64

/** PEFT's directories as Python reads them, by what scripts/golden/write_run_vectors.py wrote. */
class PeftReaderTest {
    @get:Rule
    val folder = TemporaryFolder()

    /** [model]: the number of one of the files. [adapter]: what Python read, null where it refused. */
    @Serializable
    private class Case(val name: String, val config: String, val model: Int, val adapter: String?)

    @Serializable
    private class Golden(val layout: AdapterLayout, val models: List<String>, val cases: List<Case>)

    private val golden = recordJson.decodeFromString<Golden>(testFile("peft_imports.json").readText())
    private val layout = golden.layout

    /** As the golden's bundle begins. */
    private fun initial() = directFloats(layout.size).also { adapter ->
        for ((name, matrix) in layout.named(adapter)) {
            for (i in 0 until matrix.capacity()) matrix.put(i, if (".lora_A." in name) 0.25f else 0.5f)
        }
    }

    private fun directory(case: Case) = folder.newFolder().also {
        File(it, PEFT_CONFIG_FILE).writeText(case.config)
        File(it, PEFT_MODEL_FILE).writeBytes(Base64.getDecoder().decode(golden.models[case.model]))
    }

    private fun named(name: String) = golden.cases.first { it.name == name }

    @Test
    fun `a directory is read as python reads it, or refused where python refuses it`() {
        for (case in golden.cases) {
            val adapter = initial()
            if (case.adapter == null) {
                val message = refused(Fault.ADAPTER) { readPeft(directory(case), layout, adapter) }
                assertTrue(message, message.lines().size == 1 && message.length < 3000)
            } else {
                readPeft(directory(case), layout, adapter)
                assertArrayEquals(case.name, Base64.getDecoder().decode(case.adapter), adapter.littleEndian())
            }
        }
        assertTrue(golden.cases.count { it.adapter != null } >= 8 && golden.cases.count { it.adapter == null } >= 20)
    }

    @Test
    fun `it says what it read`() {
        val partly = readPeft(directory(named("without a projection")), layout, initial())
        assertEquals(mapOf("mlp.up_proj" to listOf(0, 1)), partly.initial)
        assertEquals("m", partly.baseModel)
        assertEquals(setOf("F16", "F32"), readPeft(directory(named("mixed")), layout, initial()).dtypes)
        assertEquals(12, readPeft(directory(named("whole")), layout, initial()).matrices)
    }

    @Test
    fun `what was written is read again`() {
        val bundle = openBundle("lfm2")
        val adapter = directFloats(bundle.manifest.adapter.size)
        for (i in 0 until adapter.capacity()) adapter.put(i, (i % 1009 - 504) / 7f)
        val directory = File(folder.root, "peft")
        writePeft(bundle.manifest, adapter, directory)
        val read = directFloats(adapter.capacity()).also(bundle::readInitialAdapter)
        readPeft(directory, bundle.manifest.adapter, read)
        assertArrayEquals(adapter.toArray(), read.toArray(), 0f)
    }

    @Test
    fun `a pattern of names is refused by name`() {
        val config = named("whole").config.replace(Regex("\"target_modules\": \\[[^]]*]"), "\"target_modules\": \"(q_proj)+\"")
        val directory = directory(named("whole")).also { File(it, PEFT_CONFIG_FILE).writeText(config) }
        val message = refused(Fault.ADAPTER) { readPeft(directory, layout, initial()) }
        assertTrue(message, "target_modules: expected a list of names" in message && "(q_proj)+" in message)
    }

    @Test
    fun `nothing, pickled weights, and damaged files`() {
        val adapter = initial()
        refused(Fault.ADAPTER) { readPeft(folder.newFolder(), layout, adapter) }
        val pickled = directory(named("whole")).also { File(it, PEFT_MODEL_FILE).renameTo(File(it, "adapter_model.bin")) }
        assertTrue("pickled" in refused(Fault.ADAPTER) { readPeft(pickled, layout, adapter) })
        for (text in listOf("", "[]", "{", "{} x", "[".repeat(100_000), "{\"peft_type\": ", "\u0000")) {
            val spoilt = directory(named("whole")).also { File(it, PEFT_CONFIG_FILE).writeText(text) }
            refused(Fault.ADAPTER) { readPeft(spoilt, layout, adapter) }
        }
        val whole = directory(named("whole"))
        val model = File(whole, PEFT_MODEL_FILE)
        val bytes = model.readBytes()
        for (size in listOf(0, 7, 8, 100, bytes.size - 1)) {
            model.writeBytes(bytes.copyOf(size))
            refused(Fault.ADAPTER) { readPeft(whole, layout, adapter) }
        }
        val exported = File(folder.root, "exported")
        val bundle = openBundle("tiny")
        val own = directFloats(bundle.manifest.adapter.size).also { bundle.readInitialAdapter(it) }
        writePeft(bundle.manifest, own, exported)
        val written = File(exported, PEFT_MODEL_FILE)
        written.writeBytes(written.readBytes().also { it[it.size - 2] = (it[it.size - 2].toInt() xor 1).toByte() })
        assertTrue("SHA-256" in refused(Fault.ADAPTER) { readPeft(exported, bundle.manifest.adapter, own) })
    }
}
