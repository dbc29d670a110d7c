package lcsbmobile.core

import kotlinx.serialization.Serializable
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.training.upperTail
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** The verdict against tests/golden/verdicts.json, which scripts/golden/write_verdict_vectors.py wrote. */
class VerdictTest {
    @Serializable
    private class Vectors(val verdicts: List<Judged>, val spreads: List<Spread>)

    @Serializable
    private class Judged(val name: String, val before: List<Double>, val after: List<Double>, val verdict: Verdict)

    @Serializable
    private class Spread(val count: Long, val most: Int, val chosen: List<Long>)

    private val vectors = recordJson.decodeFromString<Vectors>(testFile("verdicts.json").readText())

    @Test
    fun `the verdicts are the desktop's`() {
        assertEquals(Verdict.Outcome.entries.toSet(), vectors.verdicts.map { it.verdict.outcome }.toSet())
        for (row in vectors.verdicts) {
            val (found, expected) = judge(row.before, row.after) to row.verdict
            assertEquals(row.name, expected.outcome, found.outcome)
            assertEquals(row.name, listOf(expected.examples, expected.improved), listOf(found.examples, found.improved))
            assertEquals(row.name, found.improved.toDouble() / found.examples, found.improvedShare, 0.0)
            for ((x, y) in listOf(expected.lossBefore to found.lossBefore, expected.lossAfter to found.lossAfter, expected.p to found.p)) {
                assertEquals(row.name, 1.0, y / x, 1e-12) // sums in another order
            }
        }
    }

    @Test
    fun `the examples are the desktop's`() {
        for (row in vectors.spreads) assertEquals(row.chosen, spread(row.count, row.most))
    }

    /** 1 - Φ(z), by Python's `math.erfc(z / math.sqrt(2)) / 2`. */
    @Test
    fun `the tail of the normal distribution`() {
        val expected = listOf(
            0.0 to 0.5,
            0.5 to 0.3085375387259869,
            1.959963984540054 to 0.02500000000000002,
            2.5 to 0.006209665325776139,
            2.5000001 to 0.0062096635729463135,
            3.0 to 0.0013498980316300957,
            8.0 to 6.220960574271819e-16,
            30.0 to 4.906713927148764e-198,
        )
        // Python rounds z / √2, and the tail has that z² times over.
        for ((z, tail) in expected) assertEquals("$z", 1.0, upperTail(z) / tail, 1e-13 + z * z * 2.2e-16)
        assertEquals(0.0, upperTail(1e3), 0.0)
    }

    @Test
    fun `losses that are none are refused`() {
        assertTrue("expected as many after as before, found 1 and 2" in refused(Fault.OPTION) { judge(listOf(1.0, 2.0), listOf(1.0)) })
        assertTrue("at least one example" in refused(Fault.DATA_EMPTY) { judge(emptyList(), emptyList()) })
        val before = refused(Fault.LOSS_NOT_FINITE) { judge(listOf(1.0, Double.NaN), listOf(1.0, 1.0)) }
        assertTrue(before, before.startsWith("example 2 of 2: its loss before is NaN"))
        val after = refused(Fault.LOSS_NOT_FINITE) { judge(listOf(1.0, 1.0), listOf(Double.POSITIVE_INFINITY, 1.0)) }
        assertTrue(after, after.startsWith("example 1 of 2: its loss after is Infinity"))
    }
}
