package lcsbmobile.core.text

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.rules.TemporaryFolder
import java.io.File
import java.util.zip.GZIPInputStream

internal val testData = File(System.getProperty("test.data"))
internal val tokenizerData = File(testData, "tokenizers")
internal val testBundles = File(System.getProperty("test.bundles"))

internal fun gunzip(file: File): ByteArray = GZIPInputStream(file.inputStream()).use { it.readBytes() }

/** A tokenizer of tests/golden/tokenizers; [config] is its tokenizer_config.json. */
internal fun TemporaryFolder.tokenizer(style: String, config: String = "{}", vocabSize: Int = 1 shl 20): Tokenizer =
    open(gunzip(File(tokenizerData, "$style.json.gz")), config, vocabSize)

internal fun TemporaryFolder.open(tokenizer: ByteArray, config: String = "{}", vocabSize: Int = 1 shl 20): Tokenizer {
    val directory = newFolder()
    File(directory, Tokenizer.TOKENIZER_FILE).writeBytes(tokenizer)
    File(directory, Tokenizer.CONFIG_FILE).writeText(config)
    return Tokenizer.open(directory, vocabSize)
}

/** [action] must be refused with [fault] and a message that holds [part], in one line. */
internal fun assertRefused(fault: Fault, part: String, action: () -> Unit): LcsbException {
    val error = assertThrows(LcsbException::class.java, action)
    assertTrue("expected \"$part\" in: ${error.message}", part in error.message!!)
    assertTrue(error.message, '\n' !in error.message!!)
    assertEquals(error.message, fault, error.fault)
    return error
}
