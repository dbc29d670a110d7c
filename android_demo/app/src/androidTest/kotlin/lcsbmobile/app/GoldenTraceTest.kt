package lcsbmobile.app

import androidx.test.platform.app.InstrumentationRegistry
import lcsbmobile.core.Bundle
import lcsbmobile.core.runs.verify
import lcsbmobile.core.runtime.OnnxRuntimeRunner
import org.junit.Assert.assertTrue
import org.junit.Test
import java.io.File

/** On a phone or an emulator: the bundle in the app's assets is opened, and `onnxruntime-android` reproduces its golden trace. */
open class GoldenTraceTest {
    @Test
    fun theTinyBundleRunsItsGoldenTrace() {
        val context = InstrumentationRegistry.getInstrumentation().targetContext
        val scratch = File(context.cacheDir, "golden-trace").apply { deleteRecursively() }
        try {
            val directory = File(scratch, "tiny").apply { mkdirs() }
            AssetSource(context.assets, "tiny").copyTo(directory) { _, _ -> }
            val bundle = Bundle.open(directory)
            val result = OnnxRuntimeRunner(bundle, Engine.threads()).use { verify(bundle, it, scratch) }
            assertTrue("no step was run", result.difference.steps > 0)
        } finally {
            scratch.deleteRecursively()
        }
    }
}
