package lcsbmobile.core.runs

import lcsbmobile.core.Bundle
import lcsbmobile.core.Chat
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.RunOptions
import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.Method
import lcsbmobile.core.bundle.Subset
import lcsbmobile.core.bundle.makeSchedule
import lcsbmobile.core.checkpoint.RunIdentity
import lcsbmobile.core.checkpoint.STEP_COLUMNS
import lcsbmobile.core.data.Dataset
import lcsbmobile.core.data.holdOut
import lcsbmobile.core.data.pack
import lcsbmobile.core.data.readDataset
import lcsbmobile.core.io.ioReason
import lcsbmobile.core.io.sha256
import lcsbmobile.core.text.ChatFormat
import lcsbmobile.core.text.localTime
import lcsbmobile.core.training.TrainConfig
import lcsbmobile.core.training.defaultLearningRate
import java.io.File
import java.io.IOException

/** At most that many sequences are evaluated. */
internal const val EVALUATION_SEQUENCES = 16

/** What a run needs, from what it was asked for. Nothing is trained here. */
internal class RunSetup(val options: RunOptions, val bundle: Bundle) {
    val method: Method
    val schedule: List<Subset>
    val train: TrainConfig

    /** The local time at which the run began; of one that goes on it is its checkpoint's. */
    var date: String = localTime()

    /** As the run's day has it. */
    val chatFormat: ChatFormat? get() = bundle.chat?.at(date)
    val chat: Chat? get() = if (options.chat) chatFormat?.let { Chat(it) } else null

    init {
        options.sampling.check()
        if (options.chat && bundle.chat == null) throw LcsbException(Fault.CHAT_UNSUPPORTED, NO_CHAT)
        val manifest = bundle.manifest
        val other = options.method?.takeIf { it != manifest.scheduleConfig.method }
        method = other ?: manifest.scheduleConfig.method
        schedule = other?.let { makeSchedule(it, manifest.scheduleConfig.subsets, manifest.model.numHiddenLayers) } ?: manifest.schedule
        val rate = options.learningRate ?: defaultLearningRate(schedule, manifest.model.numHiddenLayers)
        train = TrainConfig(options.steps, rate, options.lrSchedule, options.warmup, options.accumulation)
        train.check()
        for ((name, value, least) in listOf(
            Triple("checkpoint-every", options.checkpointEvery, 1),
            Triple("evaluate-every", options.evaluateEvery, 0),
            Triple("threads", options.threads, 0),
        )) {
            if (value < least) throw LcsbException(Fault.OPTION, "$name: expected at least $least, found $value", listOf(name))
        }
    }

    /** SHA-256 of the file that the run begins with; null: the bundle's adapter. Throws ADAPTER for a file that cannot be read. */
    val initialAdapter: String? by lazy {
        options.initialAdapter?.let { file ->
            try {
                sha256(file)
            } catch (error: IOException) {
                val message = "$file: cannot be read: ${ioReason(error)}; give an adapter's file that a run or an import wrote"
                throw LcsbException(Fault.ADAPTER, message, listOf(file.name), error)
            }
        }
    }

    /** Bytes of storage that the run takes at once: its state twice, three checkpoints (one is being written) and the adapter. */
    val storage: Long
        get() {
            val adapter = 4L * bundle.manifest.adapter.size
            return (2 + 3) * 3 * adapter + adapter + 3L * options.steps * STEP_COLUMNS * 8 + 3 * SPARE_BYTES
        }

    fun identity(data: RunData) =
        RunIdentity(
            bundle = bundle.manifest.identity ?: bundle.digest,
            data = data.training.sha256,
            evaluationData = data.heldOut.sha256.takeIf { options.evaluationData != null },
            tokens = data.training.tokensSha256,
            evaluationTokens = data.heldOut.tokensSha256.takeIf { options.evaluationData != null },
            date = date,
            holdOut = options.holdOut,
            initialAdapter = initialAdapter,
            schedule = schedule,
            train = train,
            seed = options.seed,
        )

    private companion object {
        const val NO_CHAT = "chat: the bundle says nothing of how messages become text; give the prompts as they are, or export it again"
        const val SPARE_BYTES = 1L shl 16 // of a checkpoint: its header
    }
}

/** [evaluation]: the first sequences of [heldOut], packed in file order. */
internal class RunData(val training: Dataset, val heldOut: Dataset, val evaluation: List<Batch>)

/** [spool]: a directory for temporary files. [check] is called now and then: it may throw. Throws DATA_…, TOKENIZER_…, CHAT_…, OPTION, STORAGE_…. */
internal fun readData(setup: RunSetup, data: File, spool: File, check: () -> Unit): RunData {
    val options = setup.options
    val examples = setup.read(data, spool, check)
    val (training, heldOut) = when (val file = options.evaluationData) {
        null -> holdOut(examples, options.holdOut, options.seed)
        else -> examples to setup.read(file, spool, check)
    }
    val evaluation = pack(heldOut, setup.bundle.manifest.seqLen, setup.bundle.tokenizer.padId).take(EVALUATION_SEQUENCES).toList()
    return RunData(training, heldOut, evaluation)
}

/** The held-out examples of [readData] alone. */
internal fun readHeldOut(setup: RunSetup, data: File, spool: File, check: () -> Unit): Dataset = when (val file = setup.options.evaluationData) {
    null -> holdOut(setup.read(data, spool, check), setup.options.holdOut, setup.options.seed).second
    else -> setup.read(file, spool, check)
}

private fun RunSetup.read(file: File, spool: File, check: () -> Unit): Dataset =
    readDataset(file, bundle.tokenizer, chatFormat, bundle.manifest.seqLen, spool) { _, _ -> check() }
