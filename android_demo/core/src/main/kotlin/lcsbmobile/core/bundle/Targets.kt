package lcsbmobile.core.bundle

import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.io.oneLine

// The targets that run here, all of block programs, one row each.

internal const val ONNXRUNTIME = "onnxruntime"
internal const val EXECUTORCH = "executorch"
internal const val PTE_FILE = "programs.pte" // of target executorch: all programs, as methods

/** [sharedFile]: the one file of all programs, where each has none of its own. [measuresProducts]: it has the programs `gemm` and `gemm_backward`. */
internal class Target(val name: String, private val sharedFile: String?, val measuresProducts: Boolean) {
    fun programFile(program: String): String = sharedFile ?: "$program.onnx"
}

internal val TARGETS: Map<String, Target> = listOf(
    Target(ONNXRUNTIME, sharedFile = null, measuresProducts = true),
    Target(EXECUTORCH, sharedFile = PTE_FILE, measuresProducts = false),
).associateBy { it.name }

/** Of a bundle at [path] that is none of those [expected]. */
internal fun otherTarget(path: String, target: String, expected: Collection<String>): LcsbException {
    val found = oneLine(target, 40)
    val message = "$path: expected a bundle of target ${expected.joinToString(" or ")}, found $found; export one with --target ${expected.first()}"
    return LcsbException(Fault.BUNDLE_OTHER_TARGET, message, listOf(found))
}
