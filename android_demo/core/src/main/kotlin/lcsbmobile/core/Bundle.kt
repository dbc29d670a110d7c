package lcsbmobile.core

import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json
import lcsbmobile.core.adapter.readAdapter
import lcsbmobile.core.bundle.ADAPTER_FILE
import lcsbmobile.core.bundle.Batch
import lcsbmobile.core.bundle.FORMAT_VERSION
import lcsbmobile.core.bundle.GOLDEN_FILE
import lcsbmobile.core.bundle.GoldenTrace
import lcsbmobile.core.bundle.MANIFEST_BYTES
import lcsbmobile.core.bundle.MANIFEST_FILE
import lcsbmobile.core.bundle.Manifest
import lcsbmobile.core.bundle.MappedWeights
import lcsbmobile.core.bundle.TARGETS
import lcsbmobile.core.bundle.WEIGHTS_FILE
import lcsbmobile.core.bundle.checkFiles
import lcsbmobile.core.bundle.checkManifest
import lcsbmobile.core.bundle.isInside
import lcsbmobile.core.bundle.otherTarget
import lcsbmobile.core.bundle.stamp
import lcsbmobile.core.bundle.unreadable
import lcsbmobile.core.io.ioReason
import lcsbmobile.core.io.jsonFault
import lcsbmobile.core.io.readBounded
import lcsbmobile.core.io.recordJson
import lcsbmobile.core.io.sha256
import lcsbmobile.core.io.strictUtf8
import lcsbmobile.core.text.ChatFormat
import lcsbmobile.core.text.Tokenizer
import java.io.File
import java.io.IOException
import java.nio.FloatBuffer

/** What a bundle says of itself before anything else of it is read. */
@Serializable
private class Version(val formatVersion: Long, val target: String = "")

/**
 * The TrainingBundle: a directory that holds all that a device needs, verified when it is opened. Specification: docs/bundle.md.
 *
 * Nothing is held but the manifest; weights are mapped when asked for. [digest]: SHA-256 of manifest.json, hex. [stamp]: of what was verified, for
 * another [open] of the same files.
 */
public class Bundle private constructor(
    public val directory: File,
    public val manifest: Manifest,
    public val digest: String,
    public val stamp: String,
) {
    internal val weights: MappedWeights by lazy { MappedWeights(File(directory, WEIGHTS_FILE), manifest.weights) }

    public val tokenizer: Tokenizer by lazy { Tokenizer.open(directory, manifest.model.vocabSize) }

    /** How messages become text; null when the bundle says nothing of it. */
    public val chat: ChatFormat? by lazy { if (ChatFormat.FILE in manifest.files) ChatFormat.open(File(directory, ChatFormat.FILE)) else null }

    internal val golden: GoldenTrace by lazy { GoldenTrace.open(File(directory, GOLDEN_FILE), manifest) }

    /** A batch that the bundle brings, to time a step on. */
    public val sampleBatch: Batch? get() = golden.batches.firstOrNull()?.batch()

    /** Into all of [into], float32 [N]. Throws ADAPTER. */
    public fun readInitialAdapter(into: FloatBuffer): Unit = readAdapter(File(directory, ADAPTER_FILE), manifest.adapter, into)

    public companion object {
        /**
         * Reads the manifest, checks it, and every file against it: place, size and SHA-256; and that the golden trace is of its model.
         *
         * [verified]: the [stamp] of a bundle that was verified once, from where nobody else can write. Where it is this bundle's still, the
         * manifest, and all files by name, size and time of their last change, SHA-256 is not computed again. It cannot tell what a disk lost.
         *
         * The bundle may come from anywhere (docs/hostile_input.md). [progress]: bytes verified of all; it may throw, to cancel. Throws
         * BUNDLE_UNREADABLE, BUNDLE_OTHER_TARGET, BUNDLE_NEWER_VERSION, BUNDLE_OLDER_VERSION or BUNDLE_DAMAGED.
         */
        public fun open(directory: File, verified: String? = null, progress: (done: Long, total: Long) -> Unit = { _, _ -> }): Bundle {
            val path = File(directory, MANIFEST_FILE)
            val raw = readManifest(directory)
            val text = try {
                strictUtf8(raw)
            } catch (error: IOException) {
                throw unreadable("$path: malformed manifest: ${ioReason(error)}; export the bundle again", error)
            }
            val manifest = decode(path, text)
            checkManifest(manifest, text, path)
            val digest = sha256(raw)
            val stamp = stamp(directory, manifest, digest) // before the files are read: what is changed meanwhile is not what was verified
            checkFiles(directory, manifest, raw, contents = stamp != verified, progress)
            return Bundle(directory, manifest, digest, stamp).also { it.golden }
        }
    }
}

private fun readManifest(directory: File): ByteArray {
    try {
        if (!isInside(directory, MANIFEST_FILE)) throw unreadable("$directory: $MANIFEST_FILE is a link that leads outside the bundle")
        return readBounded(File(directory, MANIFEST_FILE), MANIFEST_BYTES)
    } catch (error: IOException) {
        throw unreadable("$directory: not a bundle: $MANIFEST_FILE cannot be read (${ioReason(error)}); write one with lcsb export", error)
    }
}

private val lenient = Json(recordJson) { ignoreUnknownKeys = true }

private fun decode(path: File, text: String): Manifest {
    try {
        val stated = lenient.decodeFromString<Version>(text)
        val version = stated.formatVersion
        if (version > FORMAT_VERSION) {
            val message = "$path: format version $version is newer than $FORMAT_VERSION, the newest known; update the app"
            throw LcsbException(Fault.BUNDLE_NEWER_VERSION, message)
        }
        if (version < FORMAT_VERSION) {
            val message = "$path: format version $version is older than $FORMAT_VERSION; export the bundle again"
            throw LcsbException(Fault.BUNDLE_OLDER_VERSION, message)
        }
        if (stated.target !in TARGETS) throw otherTarget("$path", stated.target, TARGETS.keys)
        return recordJson.decodeFromString<Manifest>(text)
    } catch (error: IllegalArgumentException) {
        // kotlinx.serialization's
        throw unreadable("$path: malformed manifest: ${jsonFault(error)}; export the bundle again", error)
    }
}
