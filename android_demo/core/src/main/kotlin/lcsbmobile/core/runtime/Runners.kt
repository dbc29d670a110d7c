package lcsbmobile.core.runtime

import lcsbmobile.core.Bundle
import lcsbmobile.core.Fault
import lcsbmobile.core.LcsbException
import lcsbmobile.core.bundle.EXECUTORCH

/** Steps on stock ONNX Runtime, of target `onnxruntime`. [threads]: of each program. Throws BUNDLE_OTHER_TARGET, RUNTIME_MISSING. */
public class OnnxRuntimeRunner(bundle: Bundle, threads: Int, keep: Int = 0, betweenLayers: () -> Unit = {}) :
    BlockRunner(bundle, OnnxRuntime(bundle, threads), keep, betweenLayers)

/**
 * Steps on stock ExecuTorch, of target `executorch`: for apps that have `org.pytorch:executorch-android`. [threads]: of the whole process; 0:
 * half of its cores. Throws BUNDLE_OTHER_TARGET, RUNTIME_NOT_INCLUDED, RUNTIME_MISSING, RUNTIME_FAILED, BUNDLE_UNREADABLE.
 */
public class ExecuTorchStepRunner internal constructor(
    bundle: Bundle,
    runtime: Runtime,
    keep: Int,
    betweenLayers: () -> Unit,
) : BlockRunner(bundle, runtime, keep, betweenLayers) {
    public constructor(bundle: Bundle, threads: Int, keep: Int = 0, betweenLayers: () -> Unit = {}) :
        this(bundle, executorch(bundle, threads), keep, betweenLayers)
}

/** The bundle's target's. Throws as that does. */
public fun makeRunner(bundle: Bundle, threads: Int, keep: Int = 0, betweenLayers: () -> Unit = {}): BlockRunner =
    if (bundle.manifest.target == EXECUTORCH) {
        ExecuTorchStepRunner(bundle, threads, keep, betweenLayers)
    } else {
        OnnxRuntimeRunner(bundle, threads, keep, betweenLayers)
    }

/** Throws RUNTIME_NOT_INCLUDED where the app was built without the library that runs bundles of [target]. Nothing is loaded. */
public fun checkIncluded(target: String): Unit = checkIncluded(target, Runtime::class.java.classLoader)

internal fun checkIncluded(target: String, loader: ClassLoader?) {
    if (target != EXECUTORCH) return
    try {
        Class.forName("org.pytorch.executorch.Module", false, loader)
    } catch (error: ClassNotFoundException) {
        val message = "this app is built without ExecuTorch, which bundles of target $EXECUTORCH need; add org.pytorch:executorch-android to it, " +
            "or export the bundle with --target onnxruntime"
        throw LcsbException(Fault.RUNTIME_NOT_INCLUDED, message, cause = error)
    }
}

/** Looks for the library before any class that is made of its classes. */
private fun executorch(bundle: Bundle, threads: Int): Runtime {
    checkTarget(bundle, EXECUTORCH)
    checkIncluded(EXECUTORCH)
    return ExecuTorch(bundle, threads)
}
