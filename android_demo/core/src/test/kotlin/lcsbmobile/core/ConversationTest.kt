package lcsbmobile.core

import lcsbmobile.core.runtime.makeRunner
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** Questions and answers in turn, within a sequence that is soon full. */
class ConversationTest {
    private val bundle = openBundle("tiny")
    private val format = bundle.chat!!
    private val tokenizer = bundle.tokenizer
    private val earlier = List(6) { Exchange("is $it?", "ok $it") }

    private fun ids(kept: List<Exchange>) = Chat(format, null, kept).promptIds(tokenizer, "and?")

    @Test
    fun `the oldest exchanges are left out, and no more of them than need be`() {
        val chat = Chat(format, null, earlier)
        for (seqLen in ids(emptyList()).size..ids(earlier).size + 8) {
            val (found, forgotten) = chat.fitting(tokenizer, "and?", seqLen, room = 8)
            assertEquals(ids(earlier.drop(forgotten)).toList(), found.toList())
            assertTrue(found.size + 8 <= seqLen || forgotten == earlier.size)
            assertTrue(forgotten == 0 || ids(earlier.drop(forgotten - 1)).size + 8 > seqLen)
        }
        assertEquals(0, chat.fitting(tokenizer, "and?", ids(earlier).size + 8, room = 8).second)
    }

    @Test
    fun `an answer to a conversation is what its rendered text is continued with`() {
        val adapter = initialAdapter(bundle)
        val config = SamplingConfig(temperature = 0.0, maxTokens = 4)
        makeRunner(bundle, 1).use { runner ->
            val answer = generate(runner, bundle, adapter, "and?", config, Chat(format, null, earlier))
            val text = answer.joinToString("")
            assertTrue(answer.forgotten in 1..earlier.size)
            val same = generate(runner, bundle, adapter, ids(earlier.drop(answer.forgotten)), config)
            assertEquals(same.joinToString(""), text)
        }
    }
}
