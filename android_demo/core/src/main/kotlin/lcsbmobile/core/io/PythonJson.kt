package lcsbmobile.core.io

import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.KSerializer
import kotlinx.serialization.descriptors.PrimitiveKind
import kotlinx.serialization.descriptors.PrimitiveSerialDescriptor
import kotlinx.serialization.encoding.Decoder
import kotlinx.serialization.encoding.Encoder
import kotlinx.serialization.json.JsonEncoder
import kotlinx.serialization.json.JsonUnquotedLiteral
import java.math.BigDecimal
import java.math.MathContext
import java.math.RoundingMode

// JSON in the bytes that the desktop writes: a checkpoint or an adapter is the same file whoever wrote it.

/** A string as Python's json.dumps writes it: whatever is not ASCII is escaped. */
internal fun asciiJson(text: String): String =
    buildString {
        append('"')
        for (c in text) {
            when {
                c == '"' || c == '\\' -> append('\\').append(c)
                c == '\n' -> append("\\n")
                c == '\r' -> append("\\r")
                c == '\t' -> append("\\t")
                c == '\b' -> append("\\b")
                c == '\u000c' -> append("\\f")
                c < ' ' || c > '~' -> append("\\u").append(c.code.toString(16).padStart(4, '0'))
                else -> append(c)
            }
        }
        append('"')
    }

/** A finite double in the fewest digits that give it back, as Python's `repr`: 16.0, 0.0001, 1e-05. */
internal fun pythonRepr(value: Double): String = shortest(value, leastExponent = -4) { if (it < 0) "e-${"${-it}".padStart(2, '0')}" else "e+$it" }

/** The same as msgspec writes it: 0.00001, 1e-6, 1e16. */
internal object MsgspecDouble : KSerializer<Double> {
    override val descriptor = PrimitiveSerialDescriptor("lcsbmobile.core.io.MsgspecDouble", PrimitiveKind.DOUBLE)

    override fun deserialize(decoder: Decoder): Double = decoder.decodeDouble()

    @OptIn(ExperimentalSerializationApi::class)
    override fun serialize(encoder: Encoder, value: Double) {
        val text = shortest(value, leastExponent = -5) { "e$it" }
        (encoder as JsonEncoder).encodeJsonElement(JsonUnquotedLiteral(text))
    }
}

/** Plain from 10^[leastExponent] to below 10^16, else with the text that [exponent] gives. Double.toString is not the shortest everywhere. */
private fun shortest(value: Double, leastExponent: Int, exponent: (Int) -> String): String {
    require(value.isFinite()) { "JSON has no $value" }
    if (value == 0.0) return if (1 / value < 0) "-0.0" else "0.0"
    val exact = BigDecimal(value).abs()
    val rounded = (1..17).asSequence().map { exact.round(MathContext(it, RoundingMode.HALF_EVEN)) }.first { it.toDouble() == Math.abs(value) }
    val digits = rounded.unscaledValue().toString().trimEnd('0')
    val power = rounded.precision() - rounded.scale() - 1 // of the first digit
    val sign = if (value < 0) "-" else ""
    return sign + when {
        power < leastExponent || power >= 16 -> digits.take(1) + (if (digits.length > 1) "." + digits.drop(1) else "") + exponent(power)
        power < 0 -> "0." + "0".repeat(-power - 1) + digits
        digits.length <= power + 1 -> digits.padEnd(power + 1, '0') + ".0"
        else -> digits.take(power + 1) + "." + digits.drop(power + 1)
    }
}
