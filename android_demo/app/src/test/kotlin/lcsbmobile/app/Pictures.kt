package lcsbmobile.app

import android.app.Activity
import android.graphics.Bitmap
import android.graphics.Canvas
import android.os.Looper
import android.view.View
import lcsbmobile.core.RunOutcome
import lcsbmobile.core.RunResult
import lcsbmobile.core.Verdict
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

// A model with three adapters, and a conversation

private fun verdict(outcome: Verdict.Outcome, improved: Int, against: String?) =
    StoredVerdict(Verdict(outcome, 24, improved, 3.40, 1.42, 0.002), against)

private val day = 1_764_460_800_000L
private val first = AdapterRecord(
    1, "tiny", "Letters to Ada", day, "letters.jsonl", 100, 3.40, 1.42, chat = true, example = "Is the bread done?",
    verdict = verdict(Verdict.Outcome.BETTER, 19, null), run = "1",
)
private val second = first.copy(
    id = 2, name = "My messages · 30 Nov 2025", steps = 40, lossBefore = 1.42, lossAfter = 1.40, run = "2", further = "Letters to Ada",
    verdict = verdict(Verdict.Outcome.NO_DIFFERENCE, 13, "Letters to Ada"),
)
private val imported = AdapterRecord(3, "tiny", "from-the-desktop", day)
private val said = listOf(
    Said("Is the bread done?", "ok so it rose overnight, and went in at seven, x", "Letters to Ada"),
    Said("And the beans?", "broad beans are up -- eleven of them, and the slugs have had", "Letters to Ada", cut = true),
    Said("Explain rain to a child.", "Rain is water that falls from clouds.", null),
)
val samples = listOf(
    WrittenSample(0, "right then -- the ", "answer is that bread is a food made of flour and", true),
    WrittenSample(40, "right then -- the ", "rye came out flat as a slate, x", false),
)

fun adapters(state: AppState) = state.copy(
    adapters = listOf(imported, second, first),
    inUse = 1,
    takesChat = true,
    conversation = Conversation(said),
    comparing = Match(second, first, verdict = verdict(Verdict.Outcome.WORSE, 7, "Letters to Ada")),
    report = RunReport(reportOf(40), 248_000_000, "Fairphone FP5"),
)
