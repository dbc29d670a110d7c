package lcsbmobile.cli

import kotlinx.serialization.json.JsonObjectBuilder
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import lcsbmobile.core.Bundle
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.Phase
import lcsbmobile.core.RunControl
import lcsbmobile.core.RunHistory
import lcsbmobile.core.RunObserver
import lcsbmobile.core.TrainingRun
import lcsbmobile.core.adapter.readAdapter
import lcsbmobile.core.adapter.writePeft
import lcsbmobile.core.compareAdapters
import lcsbmobile.core.data.DataReport
import lcsbmobile.core.io.directFloats
import lcsbmobile.core.training.StepOutcome
import java.io.File
import kotlin.system.exitProcess

private const val USAGE = "train BUNDLE DATA DIRECTORY --steps N [options of lcsb simulate] | peft BUNDLE ADAPTER OUTPUT | " +
    "compare BUNDLE DATA AFTER [options of lcsb compare]"
private val FAILURES = setOf(
    Fault.MEMORY_EXCEEDED, Fault.LOSS_NOT_FINITE, Fault.GOLDEN_TRACE, Fault.STORAGE_FULL, Fault.STORAGE_FAILED, Fault.RUNTIME_FAILED,
)

/** Prints JSON lines, the result last. The exit code is 0, 1 for a failure at run time, or 2 for bad input. */
fun main(arguments: Array<String>) {
    val code = try {
        command(arguments.toList())
        0
    } catch (error: LcsbException) {
        line {
            put("fault", error.fault.name)
            put("error", error.message)
        }
        if (error.fault in FAILURES) 1 else 2
    }
    exitProcess(code)
}

private fun command(arguments: List<String>) {
    when (arguments.firstOrNull()) {
        "train" -> train(trainArguments(arguments.drop(1)))
        "compare" -> compare(compareArguments(arguments.drop(1)))
        "peft" -> peft(Arguments(arguments.drop(1), emptySet(), emptySet()).positional)
        else -> throw bad("expected: $USAGE")
    }
}

private fun train(arguments: Arguments) {
    if (arguments.positional.size != 3) throw bad("expected: $USAGE")
    val (bundle, data, directory) = arguments.positional.map(::File)
    val control = RunControl()
    control.delayMillisBetweenLayers = arguments.value("delay", String::toLongOrNull) ?: 0
    val result = TrainingRun(Bundle.open(bundle), data, directory, arguments.runOptions()).run(control, LineObserver)
    println(result.toJson())
}

private fun compare(arguments: Arguments) {
    if (arguments.positional.size != 3) throw bad("expected: $USAGE")
    val (bundle, data, after) = arguments.positional.map(::File)
    val scratch = File(System.getProperty("java.io.tmpdir"))
    println(compareAdapters(Bundle.open(bundle), data, arguments.value("before", ::File), after, scratch, arguments.compareOptions()).toJson())
}

private fun peft(arguments: List<String>) {
    if (arguments.size != 3) throw bad("expected: $USAGE")
    val (directory, file, output) = arguments.map(::File)
    val bundle = Bundle.open(directory)
    val layout = bundle.manifest.adapter
    val adapter = directFloats(layout.size)
    readAdapter(file, layout, adapter)
    writePeft(bundle.manifest, adapter, output)
    line { put("directory", output.path) }
}

private object LineObserver : RunObserver {
    override fun phase(name: Phase) = line { put("phase", name.label) }

    override fun data(report: DataReport, heldOut: Long) =
        line {
            put("examples", report.examples)
            put("held_out", heldOut)
        }

    override fun warned(text: String) = line { put("warning", text) }

    override fun resumed(step: Int, history: RunHistory) = line { put("resumed", step) }

    override fun evaluated(step: Int, loss: Double) =
        line {
            put("evaluated", step)
            put("loss", loss)
        }

    override fun stepped(outcome: StepOutcome, memory: Long) =
        line {
            put("step", outcome.step)
            put("loss", outcome.loss)
            put("seconds", outcome.gradientSeconds + outcome.optimizerSeconds)
            put("anonymous_bytes", memory)
        }

    override fun sampled(prompt: String, text: String, after: Boolean) =
        line {
            put("prompt", prompt)
            put("text", text)
            put("after", after)
        }
}

private fun line(fields: JsonObjectBuilder.() -> Unit) = println(buildJsonObject(fields))
