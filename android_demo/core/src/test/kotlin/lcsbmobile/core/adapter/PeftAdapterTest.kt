package lcsbmobile.core.adapter

import lcsbmobile.core.Fault
import lcsbmobile.core.RunVectors
import lcsbmobile.core.bundle.ADAPTER_FILE
import lcsbmobile.core.bundle.AdapterLayout
import lcsbmobile.core.bundle.Base
import lcsbmobile.core.bundle.MANIFEST_FILE
import lcsbmobile.core.bundle.Manifest
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.refused
import lcsbmobile.core.testBundle
import lcsbmobile.core.testFile
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File

class PeftAdapterTest {
    @get:Rule
    val folder = TemporaryFolder()

    private fun manifest(bundle: String) = recordJson.decodeFromString<Manifest>(File(testBundle(bundle), MANIFEST_FILE).readText())

    @Test
    fun `an adapter is written with python's bytes`() {
        for (name in listOf("llama", "gemma3", "tiny", "lfm2", "qwen3_5")) {
            val original = File(testBundle(name), ADAPTER_FILE)
            val layout = manifest(name).adapter.copy() // of no bundle, as the initial one is written
            val adapter = directFloats(layout.size)
            readAdapter(original, layout, adapter)
            val file = File(folder.root, name)
            writeAdapter(file, layout, adapter)
            assertArrayEquals(original.readBytes(), file.readBytes())
        }
    }

    private fun trained(): AdapterLayout = RunVectors.read().peftConfigs.last().layout.of(Base("Größe \"x\"", "ab".repeat(32), "0.1.0"))

    @Test
    fun `an adapter says what it was trained on, with python's bytes`() {
        val golden = testFile("adapter.safetensors")
        val adapter = directFloats(trained().size)
        readAdapter(golden, trained(), adapter)
        for (i in 0 until adapter.capacity()) assertEquals((i.toLong() * 7919 % 256 - 128) / 128f, adapter.get(i), 0f)
        val file = File(folder.root, "trained")
        writeAdapter(file, trained(), adapter)
        assertArrayEquals(golden.readBytes(), file.readBytes())
    }

    @Test
    fun `a damaged adapter and one of another base`() {
        val golden = testFile("adapter.safetensors").readBytes()
        val file = File(folder.root, "changed")
        val adapter = directFloats(trained().size)
        for (place in golden.indices step 7) {
            file.writeBytes(golden.copyOf().also { it[place] = (it[place].toInt() xor 1).toByte() })
            refused(Fault.ADAPTER) { readAdapter(file, trained(), adapter) }
        }
        file.writeBytes(golden)
        val other = trained().of(Base("another", "cd".repeat(32), null))
        assertTrue("found Größe" in refused(Fault.ADAPTER) { readAdapter(file, other, adapter) })
        readAdapter(file, trained().of(Base("of before", null, null)), adapter)
    }

    /** The manifest of a model with this adapter. */
    private fun Manifest.with(layout: AdapterLayout): Manifest {
        val kinds = layout.matrices.map { (name, matrices) -> kinds[0].copy(name = name, matrices = matrices) }
        val layers = layout.kinds.map { layers[0].copy(kind = it) }
        return copy(lora = layout.lora, kinds = kinds, layers = layers, model = model.copy(tensorPrefix = layout.prefix))
    }

    @Test
    fun `peft's configuration is python's`() {
        val manifest = manifest("llama")
        for (case in RunVectors.read().peftConfigs) {
            val directory = File(folder.root, "peft")
            for (source in listOf("${case.base}: llama, 3 layers", case.base)) {
                val adapter = directFloats(case.layout.size)
                writePeft(manifest.with(case.layout).copy(source = source), adapter, directory)
                assertEquals(case.text, File(directory, PEFT_CONFIG_FILE).readText())
                assertEquals(listOf(PEFT_CONFIG_FILE, PEFT_MODEL_FILE), directory.list().orEmpty().sorted())
            }
        }
    }

    @Test
    fun `layers of several kinds have the names of the checkpoint's own tensors`() {
        val layout = manifest("lfm2").adapter
        val names = layout.shapes().keys
        assertEquals(layout.size, layout.shapes().values.sumOf { (rows, columns) -> (rows * columns).toInt() })
        assertTrue("$names", "base_model.model.model.layers.0.conv.in_proj.lora_A.weight" in names)
        assertTrue("$names", "base_model.model.model.layers.1.self_attn.out_proj.lora_B.weight" in names)
        val directory = File(folder.root, "peft")
        writePeft(manifest("lfm2"), directFloats(layout.size), directory)
        val targets = layout.modules.map { it.substringAfterLast('.') }.toSortedSet()
        assertTrue(targets.joinToString(",\n    ") { "\"$it\"" } in File(directory, PEFT_CONFIG_FILE).readText())
    }

    @Test
    fun `a directory that is not one of peft's is not replaced`() {
        val directory = File(folder.root, "mine").apply { mkdirs() }
        File(directory, "letter.txt").writeText("dear")
        val manifest = manifest("llama")
        refused(Fault.OPTION) { writePeft(manifest, directFloats(manifest.adapter.size), directory) }
        assertEquals("dear", File(directory, "letter.txt").readText())
    }
}
