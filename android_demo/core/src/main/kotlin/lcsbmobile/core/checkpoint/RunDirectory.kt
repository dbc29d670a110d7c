package lcsbmobile.core.checkpoint

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.ADAPTER_FILE
import lcsbmobile.core.io.storing
import lcsbmobile.core.text.localTime
import lcsbmobile.core.training.LearningRateSchedule
import lcsbmobile.core.training.STATE_PREFIX
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel
import java.nio.channels.FileLock
import java.nio.file.Files
import java.nio.file.StandardOpenOption.CREATE
import java.nio.file.StandardOpenOption.READ
import java.nio.file.StandardOpenOption.WRITE

/**
 * A directory of a run's checkpoints: one process at a time, the last two kept, the newest good one found. Specification:
 * docs/run_checkpoint.md. Locked from its making to [close], or the end of the process, whatever ends it.
 *
 * Throws RUN_BUSY when another process, or another run in this one, holds it; STORAGE_FULL, STORAGE_FAILED.
 */
internal class RunDirectory(val directory: File) : AutoCloseable {
    private val key: String
    private val channel: FileChannel

    init {
        storing(directory) { Files.createDirectories(directory.toPath()) }
        key = directory.canonicalPath
        synchronized(held) { if (!held.add(key)) throw busy("of this process") }
        try {
            channel = storing(directory) { FileChannel.open(File(directory, LOCK_FILE).toPath(), CREATE, READ, WRITE) }
            try {
                storing(directory) { lock() }
            } catch (error: LcsbException) {
                channel.close()
                throw error
            }
        } catch (error: LcsbException) {
            synchronized(held) { held.remove(key) }
            throw error
        }
    }

    /** Takes the lock, writes who has it, and removes what a process left that was killed while it wrote. */
    private fun lock() {
        val lock: FileLock? = channel.tryLock()
        if (lock == null) {
            val holder = ByteBuffer.allocate(20)
            val read = maxOf(0, channel.read(holder, 0))
            throw busy("process ${String(holder.array(), 0, read, Charsets.US_ASCII).trim().ifEmpty { "unknown" }}")
        }
        channel.truncate(0)
        channel.write(ByteBuffer.wrap("${processId()}\n".toByteArray(Charsets.US_ASCII)), 0)
        val left = directory.listFiles().orEmpty().filter { file -> LEFT.any { file.name.startsWith(it) } }
        left.forEach { Files.deleteIfExists(it.toPath()) }
    }

    private fun busy(holder: String) =
        LcsbException(
            Fault.RUN_BUSY,
            "$directory: another run, $holder, uses these checkpoints; wait for it, or choose another directory",
            listOf(directory.name),
        )

    override fun close() {
        channel.close()
        synchronized(held) { held.remove(key) }
    }

    /**
     * The newest good checkpoint, or null when there is none at all. [warn] is told of damaged ones that were passed over, and of a learning
     * rate that is lower from here on ([checkIdentity]). Throws CHECKPOINT_DAMAGED when all are (none is removed), CHECKPOINT_OTHER_RUN when
     * the newest good one is of another run.
     */
    fun newest(layers: Int, size: Int, identity: RunIdentity, lowerRate: Boolean = false, warn: (String) -> Unit): RunCheckpoint? {
        val files = checkpointFiles(directory)
        if (files.isEmpty()) return null
        val (file, checkpoint, faults) = newestGood(files, layers, size)
        checkIdentity(file, checkpoint.place.identity, identity, lowerRate)
        for (fault in faults) warn("$fault; going on from ${file.name}")
        val (then, now) = checkpoint.place.identity.train.learningRate to identity.train.learningRate
        if (then != now) warn("going on at a learning rate of $now, which was $then up to step ${checkpoint.place.step}")
        if (file in files.take(KEPT)) remove(files.drop(KEPT)) // a process was killed after it had written and before it removed
        return checkpoint
    }

    /**
     * The local time at which the run began: what a chat format writes of it stays the same when the run goes on, on another day or in another
     * time zone. Throws CHECKPOINT_DAMAGED where no checkpoint is good.
     */
    fun beginning(layers: Int, size: Int): String {
        val files = checkpointFiles(directory)
        return if (files.isEmpty()) localTime() else newestGood(files, layers, size).second.place.identity.date
    }

    /** Then removes those older than the last two. Throws STORAGE_FULL, STORAGE_FAILED; what was there before then still is. */
    fun write(checkpoint: RunCheckpoint) {
        writeCheckpoint(File(directory, checkpointName(checkpoint.place.step)), checkpoint)
        remove(checkpointFiles(directory).drop(KEPT))
    }

    private fun remove(files: List<File>) = storing(directory) { files.forEach { Files.delete(it.toPath()) } }

    companion object {
        const val KEPT = 2
        private const val LOCK_FILE = "lock"
        private val LEFT = listOf(".step-", ".$ADAPTER_FILE.", STATE_PREFIX, ".spool.") // what the names of unfinished files begin with

        /** A process has its lock once: opening and closing the file again, even to find it locked, would give the lock away. */
        private val held = HashSet<String>()
    }
}

/**
 * Throws CHECKPOINT_OTHER_RUN naming what differs. Where the rate does not depend on it, a run may become longer or shorter; with [lowerRate]
 * it may go on at a lower one, as after a loss that was not finite.
 */
internal fun checkIdentity(file: File, found: RunIdentity, wanted: RunIdentity, lowerRate: Boolean = false) {
    val faults = mutableListOf<String>()

    fun compare(name: String, then: Any?, now: Any?, show: (Any?) -> String = Any?::toString) {
        if (then != now) faults += "$name: ${show(then)} then, ${show(now)} now"
    }
    compare("bundle", found.bundle, wanted.bundle, ::short)
    compare("data", found.data, wanted.data, ::short)
    compare("evaluation data", found.evaluationData, wanted.evaluationData, ::short)
    compare("tokens", found.tokens, wanted.tokens, ::short)
    compare("evaluation tokens", found.evaluationTokens, wanted.evaluationTokens, ::short)
    compare("date", found.date, wanted.date)
    compare("hold out", found.holdOut, wanted.holdOut)
    compare("initial adapter", found.initialAdapter, wanted.initialAdapter, ::short)
    if (found.schedule != wanted.schedule) faults += "schedule: another schedule then, another schedule now"
    val (then, now) = found.train to wanted.train
    if (now.lrSchedule != LearningRateSchedule.CONSTANT) compare("steps", then.steps, now.steps)
    if (!(lowerRate && now.learningRate < then.learningRate)) compare("learning_rate", then.learningRate, now.learningRate)
    compare("lr_schedule", then.lrSchedule.name.lowercase(), now.lrSchedule.name.lowercase())
    compare("warmup", then.warmup, now.warmup)
    compare("accumulation", then.accumulation, now.accumulation)
    compare("seed", found.seed, wanted.seed)
    if (faults.isNotEmpty()) {
        throw LcsbException(
            Fault.CHECKPOINT_OTHER_RUN,
            "$file: is of another run: ${faults.joinToString("; ")}; go on with what it was begun with, or choose another directory",
            listOf(file.name),
        )
    }
}

private fun short(digest: Any?) = if (digest is String) "${digest.take(12)}…" else "none"

/** Java has no call for it before 9. */
private fun processId(): String =
    try {
        File("/proc/self").canonicalFile.name
    } catch (error: IOException) {
        "unknown"
    }
