package lcsbmobile.core.bundle

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonObject
import lcsbmobile.core.Bundle
import lcsbmobile.core.Fault
import lcsbmobile.core.adapter.readAdapter
import lcsbmobile.core.bundleDirectories
import lcsbmobile.core.field
import lcsbmobile.core.inScratch
import lcsbmobile.core.initialAdapter
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.io.sha256
import lcsbmobile.core.io.toArray
import lcsbmobile.core.openBundle
import lcsbmobile.core.refusal
import lcsbmobile.core.runtime.OnnxRuntimeRunner
import lcsbmobile.core.varint
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import java.io.File
import java.nio.file.Files

/** A bundle's files, programs and trace, when somebody else changed them. */
class BundleTest {
    private class Cancelled : Exception()

    private fun <T> withCopy(name: String = "llama", use: (File) -> T): T = inScratch { scratch ->
        openBundle(name).directory.copyRecursively(scratch, overwrite = true)
        use(scratch)
    }

    private fun edit(bundle: File, change: (MutableMap<String, kotlinx.serialization.json.JsonElement>) -> Unit) {
        val path = File(bundle, MANIFEST_FILE)
        val manifest = Json.parseToJsonElement(path.readText()).jsonObject.toMutableMap()
        val files = manifest.getValue("files").jsonObject.toMutableMap()
        change(files)
        manifest["files"] = JsonObject(files)
        manifest -= "digest" // as of before there was one
        path.writeText(JsonObject(manifest).toString())
    }

    /** Writes a file of the bundle and what the manifest states of it: a manifest has no signature. */
    private fun replace(bundle: File, name: String, content: ByteArray) {
        File(bundle, name).writeBytes(content)
        edit(bundle) { it[name] = JsonObject(mapOf("size" to JsonPrimitive(content.size), "sha256" to JsonPrimitive(sha256(content)))) }
    }

    private fun refused(bundle: File, fault: Fault = Fault.BUNDLE_UNREADABLE) = refusal(fault) { Bundle.open(bundle) }

    @Test
    fun `a manifest's own digest is checked`() = withCopy { bundle ->
        edit(bundle) {}
        val path = File(bundle, MANIFEST_FILE)
        val fields = Json.parseToJsonElement(path.readText()).jsonObject
        fun digested(digest: String) = JsonObject(fields + ("digest" to JsonPrimitive(digest))).toString()
        val zeros = "0".repeat(64)
        path.writeText(digested(sha256(digested(zeros).toByteArray())))
        assertEquals(64, Bundle.open(bundle).manifest.digest!!.length)
        path.writeText(path.readText().replace("\"weight_decay\":0.01", "\"weight_decay\":0.11"))
        assertTrue("manifest.json: expected SHA-256 " in refused(bundle, Fault.BUNDLE_DAMAGED))
    }

    @Test
    fun `every bundle opens, with progress to the last byte`() {
        for (directory in bundleDirectories) {
            var last = 0L to 1L
            val bundle = Bundle.open(directory) { done, total -> last = done.also { assertTrue(it > last.first) } to total }
            assertEquals(last.second, last.first)
            assertEquals(bundle.manifest.files.values.sumOf { it.size }, last.second)
            assertEquals(sha256(File(directory, MANIFEST_FILE)), bundle.digest)
            assertTrue(initialAdapter(bundle).toArray().any { it != 0f })
            assertTrue(bundle.tokenizer.encode("two boats").isNotEmpty())
        }
    }

    @Test
    fun `what was verified is not read again, unless it was changed`() = withCopy { bundle ->
        fun read(verified: String?): Boolean {
            var read = false
            Bundle.open(bundle, verified) { _, _ -> read = true }
            return read
        }
        val stamp = Bundle.open(bundle).stamp
        assertTrue(read(null) && read("another's"))
        assertFalse(read(stamp))
        val weights = File(bundle, WEIGHTS_FILE)
        val bytes = weights.readBytes()
        weights.writeBytes(bytes.also { it[0]++ })
        weights.setLastModified(1_000_000) // a second may be all that a file system tells apart
        assertTrue("weights.bin: expected SHA-256" in refusal(Fault.BUNDLE_DAMAGED) { Bundle.open(bundle, stamp) })
        weights.writeBytes(bytes.also { it[0]-- })
        assertTrue("another time, the same bytes", read(stamp))
        val known = Bundle.open(bundle).stamp
        weights.writeBytes(bytes + 0)
        assertTrue("weights.bin: expected ${bytes.size} bytes" in refusal(Fault.BUNDLE_DAMAGED) { Bundle.open(bundle, known) })
    }

    @Test
    fun `opening can be cancelled`() {
        assertThrows(Cancelled::class.java) { Bundle.open(openBundle("llama").directory) { _, _ -> throw Cancelled() } }
    }

    @Test
    fun `no bundle`() = inScratch { scratch ->
        assertTrue("manifest.json cannot be read (no such file)" in refused(scratch))
        assertTrue("manifest.json cannot be read (no such file)" in refused(File(scratch, "absent")))
        File(scratch, MANIFEST_FILE).mkdir()
        assertTrue("manifest.json cannot be read (not a regular file)" in refused(scratch))
    }

    @Test
    fun `a changed byte, a truncated file`() = withCopy { bundle ->
        val weights = File(bundle, WEIGHTS_FILE)
        val content = weights.readBytes()
        weights.writeBytes(content.copyOf().also { it[5000] = (it[5000] + 1).toByte() })
        assertTrue("changed since it was exported: weights.bin: expected SHA-256 " in refused(bundle, Fault.BUNDLE_DAMAGED))
        weights.writeBytes(content.copyOf(content.size - 1))
        val message = refused(bundle, Fault.BUNDLE_DAMAGED)
        assertTrue(message, "weights.bin: expected ${content.size} bytes, found ${content.size - 1}" in message)
    }

    @Test
    fun names() {
        for (name in listOf("../x", "/x", "a/../x", "", "a\\b", "a//b", "./x", "a/", ".x", "a.", "C:x", "a b", "é", "x".repeat(201), "a/.b")) {
            withCopy { bundle ->
                edit(bundle) { it[name] = it.getValue("gemm.onnx") }
                assertTrue(name, "which is outside the bundle or not a name on every system" in refused(bundle))
            }
        }
        for (name in listOf("Weights.bin", "MANIFEST.json", "manifest.json")) {
            withCopy { bundle ->
                edit(bundle) { it[name] = it.getValue("gemm.onnx") }
                assertTrue(name, "the manifest lists " in refused(bundle))
            }
        }
        withCopy { bundle ->
            edit(bundle) { files -> repeat(1000) { files["f$it"] = files.getValue("gemm.onnx") } }
            assertTrue("files, more than 1000" in refused(bundle))
        }
    }

    @Test
    fun `files that are read are listed and there`() = withCopy { bundle ->
        val manifest = File(bundle, MANIFEST_FILE).readText()
        for (name in listOf(ADAPTER_FILE, GOLDEN_FILE, "tokenizer.json", "tokenizer_config.json", "embed.onnx")) {
            edit(bundle) { it.remove(name) }
            assertTrue(name, "the manifest lists no $name; export the bundle again" in refused(bundle))
            File(bundle, MANIFEST_FILE).writeText(manifest)
        }
        for (name in listOf("chat.json", "chat_template.jinja")) {
            val absent = name !in openBundle("llama").manifest.files
            if (absent) {
                Files.createSymbolicLink(File(bundle, name).toPath(), File("/etc/passwd").toPath())
                assertTrue("$name is not listed in the manifest; remove it" in refused(bundle))
                File(bundle, name).delete()
            }
        }
        File(bundle, "embed.onnx").delete()
        assertTrue("embed.onnx is missing; copy the bundle again, whole" in refused(bundle))
    }

    @Test
    fun `links that lead outside`() {
        for (name in listOf(WEIGHTS_FILE, MANIFEST_FILE)) {
            withCopy { bundle ->
                inScratch { outside ->
                    File(bundle, name).renameTo(File(outside, name))
                    Files.createSymbolicLink(File(bundle, name).toPath(), File(outside, name).toPath())
                    assertTrue(name, "$name is a link that leads outside the bundle" in refused(bundle))
                }
            }
        }
        withCopy { bundle ->
            File(bundle, "there").mkdir()
            File(bundle, WEIGHTS_FILE).renameTo(File(bundle, "there/weights.bin"))
            Files.createSymbolicLink(File(bundle, WEIGHTS_FILE).toPath(), File("there/weights.bin").toPath())
            Bundle.open(bundle)
        }
    }

    @Test
    fun sizes() = withCopy { bundle ->
        val adapter = File(bundle, ADAPTER_FILE).length()
        val sizes = mapOf(GOLDEN_FILE to TRACE_BYTES + 1, "gemm.onnx" to PROGRAM_BYTES + 1, ADAPTER_FILE to 100, "tokenizer.json" to (64 shl 20) + 1)
        for ((name, size) in sizes) {
            edit(bundle) { it[name] = JsonObject(it.getValue(name).jsonObject + ("size" to JsonPrimitive(size))) }
            val message = refused(bundle)
            assertTrue("$adapter $message", Regex("$name: expected [0-9]+ to [0-9]+ bytes, found $size").containsMatchIn(message))
        }
    }

    @Test
    fun `a golden trace of another model`() = withCopy { bundle ->
        val golden = File(bundle, GOLDEN_FILE).readText()
        val cases = listOf(
            "{" to "not a readable golden trace (",
            golden.replaceFirst("\"input_ids\":[", "\"input_ids\":[131,") to "batch 0: input_ids: expected 31 numbers, found 32",
            golden.replaceFirst(Regex("\"input_ids\":\\[[0-9]+"), "\"input_ids\":[131") to "batch 0: input_ids: expected 0 to 130, found",
            golden.replaceFirst("\"batch\":0", "\"batch\":9") to "step 0: expected one of ",
            golden.replaceFirst(Regex("\"train\":\\[[0-9]"), "\"train\":[7") to "step 0: train: expected ascending layers from 0 to 2",
            golden.replaceFirst(Regex("\"step_tolerance\":[0-9.e-]+"), "\"step_tolerance\":0.5") to "step_tolerance: expected 0 to 0.05, found 0.5",
            golden.replaceFirst(Regex("\"learning_rate\":[0-9.e-]+"), "\"learning_rate\":2") to "learning_rate: expected more than 0",
            golden.replaceFirst(Regex("\"gradient_norms\":\\["), "\"gradient_norms\":[1,") to "step 0: expected the norms of 3 layers, found",
            golden.replaceFirst(Regex("\"labels\":\\[[^]]*]"), "\"labels\":[${List(31) { -100 }.joinToString()}]") to "batch 0: labels: none is counted",
        )
        for ((content, expected) in cases) {
            assertTrue("$expected: not changed", content != golden)
            replace(bundle, GOLDEN_FILE, content.toByteArray())
            val message = refused(bundle)
            assertTrue("$expected: $message", expected in message)
        }
    }

    // The initial adapter

    @Test
    fun `an adapter that is none`() = withCopy { bundle ->
        val layout = openBundle("llama").manifest.adapter
        val content = File(bundle, ADAPTER_FILE).readBytes()
        val header = String(content, 8, content[0].toInt().and(255) + 256 * content[1].toInt().and(255))
        val into = directFloats(layout.size)
        val first = layout.tensorName(0, layout.matrices(0)[0].name)
        fun changed(old: String, new: String): ByteArray {
            val text = header.replaceFirst(old, new)
            check(text != header && text.length == header.length)
            return content.copyOf().also { text.toByteArray().copyInto(it, 8) }
        }
        val cases = listOf(
            ByteArray(4) to "not a safetensors file, or a truncated one: of 4 bytes its header is said to have -1",
            content.copyOf(100) to "not a safetensors file, or a truncated one",
            content.copyOf(content.size - 4) to "damaged or truncated: not within the file as its header says: ",
            content.copyOf().also { it[8] = 'x'.code.toByte() } to "not a safetensors file, or a damaged one",
            changed("layers.0.", "layers.9.") to " is missing; ",
            changed("\"F32\"", "\"I32\"") to "expected F32, found I32",
            changed("\"rank\":\"4\"", "\"rank\":\"8\"") to "rank: expected 4, found 8",
            content.copyOf().also { file -> (1..4).forEach { file[file.size - it] = -1 } } to "holds NaN or infinite values",
        )
        for ((bytes, expected) in cases) {
            File(bundle, ADAPTER_FILE).writeBytes(bytes)
            val message = refusal(Fault.ADAPTER) { readAdapter(File(bundle, ADAPTER_FILE), layout, into) }
            assertTrue("$first $expected: $message", expected in message)
        }
        File(bundle, ADAPTER_FILE).writeBytes(content)
        readAdapter(File(bundle, ADAPTER_FILE), layout, into)
        assertArrayEquals(initialAdapter(openBundle("llama")).toArray(), into.toArray(), 0f)
    }

    // Weights

    @Test
    fun `weights have room after them, at the file's end too`() = inScratch { scratch ->
        for (size in listOf(2 * PAGE + 4, 2 * PAGE + PAGE - 4, 3 * PAGE)) {
            val content = ByteArray(size) { (it % 251).toByte() }
            val file = File(scratch, "$size").apply { writeBytes(content) }
            val table = listOf(WeightTensor("a", "uint8", listOf(PAGE.toLong()), 0), WeightTensor("b", "uint8", listOf(size - 2L * PAGE), 2L * PAGE))
            for ((tensor, weights) in table.map { it to MappedWeights(file, table).bytes(it.name, 0) }) {
                assertTrue(weights.isDirect && weights.isReadOnly && weights.capacity().toLong() == tensor.nbytes)
                val found = ByteArray(weights.capacity()).also { weights.duplicate().get(it) }
                assertArrayEquals(content.copyOfRange(tensor.offset.toInt(), (tensor.offset + tensor.nbytes).toInt()), found)
            }
        }
    }

    // Programs

    /** A graph whose tensor has its data elsewhere. Protobuf merges a field that stands twice, so a program of its own is written. */
    private fun program(location: String, vararg more: Pair<String, String>): ByteArray {
        val entries = (listOf("location" to location) + more).map { (key, value) -> field(13, field(1, key.toByteArray()) + field(2, value.toByteArray())) }
        val tensor = field(8, "added".toByteArray()) + varint(14 shl 3) + varint(1) + entries.reduce(ByteArray::plus)
        return field(7, field(5, tensor))
    }

    private fun evaluated(bundle: File): String {
        val opened = Bundle.open(bundle)
        return refusal(Fault.BUNDLE_UNREADABLE) {
            OnnxRuntimeRunner(opened, 1).use { it.evaluate(opened.golden.batches[0].batch(), initialAdapter(opened)) }
        }
    }

    @Test
    fun `data outside the bundle`() = withCopy { bundle ->
        for (location in listOf("../secret", "/etc/passwd", "*/_ORT_MEM_ADDR_/*")) {
            replace(bundle, "embed.onnx", program(location))
            assertTrue("embed.onnx: 'added' has its data in '$location', expected 'weights.bin'" in evaluated(bundle))
        }
        replace(bundle, "embed.onnx", program(WEIGHTS_FILE))
        assertTrue("'added' has its data outside the program, expected no tensor to have" in evaluated(bundle))
        val file = File(bundle, "embed.onnx")
        fun refused(content: ByteArray, expected: String) {
            file.writeBytes(content)
            val message = refusal(Fault.BUNDLE_UNREADABLE) { checkExternalData(file, WEIGHTS_FILE, 100, listOf("added")) }
            assertTrue("$expected: $message", expected in message)
        }
        file.writeBytes(program(WEIGHTS_FILE, "offset" to "90", "length" to "10"))
        checkExternalData(file, WEIGHTS_FILE, 100, listOf("added"))
        refused(program(WEIGHTS_FILE, "offset" to "90", "length" to "11"), "expected its data within 100 bytes, found '11' bytes from '90'")
        refused(program(WEIGHTS_FILE, "offset" to "-1"), "found '0' bytes from '-1'")
        refused(program(WEIGHTS_FILE, "evil" to "1"), "no keys but location, offset, length, checksum")
        refused(program(WEIGHTS_FILE, "location" to "x"), "the tensor 'added' has a key twice")
        refused(program(WEIGHTS_FILE) + program(WEIGHTS_FILE), "field 7 of model stands twice")
        refused(byteArrayOf(0x3a, 0x7f), "a field of 127 bytes where 0 are left")
        refused(byteArrayOf(0x3b), "wire type 3")
        refused(byteArrayOf(0), "field number 0")
        refused(ByteArray(12) { -1 }, "a number that does not end")
        var nested = ByteArray(0)
        repeat(120) { nested = field(1, field(5, field(6, nested))) } // graph: node: attribute: graph …
        refused(field(7, nested), "more than 100 messages within each other")
        refused(varint(8) + byteArrayOf(1) + ByteArray(400_010) { if (it % 2 == 0) 8 else 1 }, "more than 200000 fields")
    }

    @Test
    fun `programs that the runtime does not take`() = withCopy { bundle ->
        val opened = Bundle.open(bundle)
        val adapter = initialAdapter(opened)
        fun refused(fault: Fault) = refusal(fault) { OnnxRuntimeRunner(opened, 1).use { it.evaluate(opened.golden.batches[0].batch(), adapter) } }
        File(bundle, "embed.onnx").writeBytes("not a model".toByteArray())
        assertTrue("embed.onnx: not an ONNX file as exporters write them" in refused(Fault.BUNDLE_UNREADABLE))
        File(bundle, "embed.onnx").writeBytes(ByteArray(0))
        assertTrue(Regex("embed.onnx: onnxruntime 1[0-9.]+ cannot load it: ").containsMatchIn(refused(Fault.RUNTIME_FAILED)))
        File(bundle, "embed.onnx").writeBytes(File(bundle, "logits.onnx").readBytes())
        assertTrue("embed.onnx: other than the manifest says: inputs: 'input_ids': expected int64 [31], found none" in refused(Fault.BUNDLE_UNREADABLE))
    }
}
