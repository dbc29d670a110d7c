package lcsbmobile.cli

import lcsbmobile.core.CompareOptions
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.RunOptions
import lcsbmobile.core.SamplingConfig
import lcsbmobile.core.bundle.Method
import lcsbmobile.core.training.LearningRateSchedule
import java.io.File

/** A command line: what has no dashes, and the options, each of which may be given again. Throws OPTION. */
internal class Arguments(arguments: List<String>, private val names: Set<String>, private val flags: Set<String>) {
    val positional = mutableListOf<String>()
    private val given = mutableMapOf<String, MutableList<String>>()

    init {
        val left = arguments.iterator()
        for (argument in left) {
            val name = argument.removePrefix("--")
            when {
                name == argument -> positional += argument
                name in flags -> given.getOrPut(name) { mutableListOf() } += ""
                name in names && left.hasNext() -> given.getOrPut(name) { mutableListOf() } += left.next()
                else -> throw bad("$argument: expected one of ${(names + flags).joinToString(", ") { "--$it" }}, with a value")
            }
        }
    }

    fun all(name: String): List<String> = given[name].orEmpty()

    fun flag(name: String): Boolean = name in given

    fun <T : Any> value(name: String, parse: (String) -> T?): T? =
        all(name).lastOrNull()?.let { parse(it) ?: throw bad("$name: expected another value than '$it'") }
}

internal fun bad(message: String) = LcsbException(Fault.OPTION, message)

private val trainNames = setOf(
    "steps", "lr", "lr-schedule", "warmup", "accumulation", "method", "eval-data", "hold-out", "eval-every", "checkpoint-every", "memory-budget",
    "keep", "threads", "prompt", "max-tokens", "temperature", "top-p", "stop", "seed", "delay",
)

/** As those of `lcsb simulate`; sizes in bytes, layers as a number. `--delay`: milliseconds of rest before each layer. */
internal fun trainArguments(arguments: List<String>) = Arguments(arguments, trainNames, setOf("chat"))

internal fun Arguments.runOptions(): RunOptions {
    val steps = value("steps", String::toIntOrNull) ?: throw bad("--steps is missing")
    val options = RunOptions(steps)
    val sampling = SamplingConfig()
    val seed = value("seed", String::toLongOrNull) ?: options.seed
    return options.copy(
        learningRate = value("lr", String::toDoubleOrNull),
        lrSchedule = value("lr-schedule") { text -> LearningRateSchedule.entries.find { it.name.lowercase() == text } } ?: options.lrSchedule,
        warmup = value("warmup", String::toIntOrNull) ?: options.warmup,
        accumulation = value("accumulation", String::toIntOrNull) ?: options.accumulation,
        method = value("method") { text -> Method.entries.find { it.name.lowercase().replace('_', '-') == text } },
        evaluationData = value("eval-data", ::File),
        holdOut = value("hold-out", String::toDoubleOrNull) ?: options.holdOut,
        evaluateEvery = value("eval-every", String::toIntOrNull) ?: options.evaluateEvery,
        checkpointEvery = value("checkpoint-every", String::toIntOrNull) ?: options.checkpointEvery,
        memoryBudget = value("memory-budget", String::toLongOrNull),
        keep = value("keep", String::toIntOrNull),
        threads = value("threads", String::toIntOrNull) ?: options.threads,
        prompts = all("prompt"),
        sampling = SamplingConfig(
            maxTokens = value("max-tokens", String::toIntOrNull) ?: sampling.maxTokens,
            temperature = value("temperature", String::toDoubleOrNull) ?: sampling.temperature,
            topP = value("top-p", String::toDoubleOrNull) ?: sampling.topP,
            seed = seed,
            stop = all("stop"),
        ),
        chat = flag("chat"),
        seed = seed,
    )
}

/** As those of `lcsb compare`. `--whole`: the data is that of `--eval-data`, all of which is held out. */
internal fun compareArguments(arguments: List<String>) =
    Arguments(arguments, setOf("before", "hold-out", "seed", "examples", "threads"), setOf("whole"))

internal fun Arguments.compareOptions(): CompareOptions {
    val options = CompareOptions()
    return CompareOptions(
        holdOut = if (flag("whole")) null else value("hold-out", String::toDoubleOrNull) ?: options.holdOut,
        seed = value("seed", String::toLongOrNull) ?: options.seed,
        examples = value("examples", String::toIntOrNull) ?: options.examples,
        threads = value("threads", String::toIntOrNull) ?: options.threads,
    )
}
