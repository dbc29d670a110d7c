package lcsbmobile.app

import android.app.Activity
import android.graphics.Bitmap
import android.graphics.Canvas
import android.os.Looper
import android.view.View
import lcsbmobile.core.RunOutcome
import lcsbmobile.core.RunResult
import lcsbmobile.core.bundle.Method
import org.robolectric.Shadows.shadowOf
import java.io.File

/** Writes NAME.png into the directory that the system property `screenshots` names. */
fun picture(activity: Activity, name: String): Bitmap {
    val bitmap = drawn(activity)
    val file = File(checkNotNull(System.getProperty("screenshots")), "$name.png")
    file.parentFile!!.mkdirs()
    file.outputStream().use { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }
    return bitmap
}

/** Lays the window out as large as the screen, and draws it. */
fun drawn(activity: Activity): Bitmap {
    shadowOf(Looper.getMainLooper()).idle()
    val window = activity.window.decorView
    val metrics = activity.resources.displayMetrics
    repeat(2) { // the second time with what the first made of scrolling and wrapping
        window.measure(exactly(metrics.widthPixels), exactly(metrics.heightPixels))
        window.layout(0, 0, metrics.widthPixels, metrics.heightPixels)
    }
    window.jumpDrawablesToCurrentState()
    val bitmap = Bitmap.createBitmap(metrics.widthPixels, metrics.heightPixels, Bitmap.Config.ARGB_8888)
    window.draw(Canvas(bitmap))
    return bitmap
}

private fun exactly(size: Int) = View.MeasureSpec.makeMeasureSpec(size, View.MeasureSpec.EXACTLY)

/** The figures of a finished run. */
fun reportOf(steps: Int) = RunResult(
    outcome = RunOutcome.FINISHED,
    runtime = "onnxruntime",
    runtimeVersion = "1.29.0",
    target = "onnxruntime",
    method = Method.LCSB_EXACT,
    schedule = emptyList(),
    steps = steps,
    resumedFrom = null,
    learningRate = 8e-4,
    losses = List(steps) { 1.5 },
    stepSeconds = List(steps) { 2.4 },
    evaluations = emptyList(),
    evalLossBefore = 3.4,
    evalLossAfter = 1.42,
    peakAnonymousBytes = 212_000_000,
    predictedPeakAnonymousBytes = 220_000_000,
    keptLayers = 2,
    phaseSeconds = emptyMap(),
    data = null,
    packingFill = 0.9,
    samples = emptyList(),
    adapter = null,
    checkpoints = "",
)
