package lcsbmobile.app

import lcsbmobile.core.Fault
import lcsbmobile.core.bundle.Method
import lcsbmobile.core.bundle.makeSchedule
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.RuntimeEnvironment
import kotlin.reflect.KFunction1

/**
 * Every screen, light in English and dark in German, on a phone and a tablet, in the middle of a run; and some more. The files are for people to
 * look at.
 */
class PicturesTest : AppTest() {
    private fun schedule(layers: Int) = makeSchedule(Method.LCSB_EXACT, 4, layers).map { Engine.roles(it, layers) }

    private val bundleInfos = listOf(
        BundleInfo(
            name = "SmolLM2-135M-Instruct",
            source = "SmolLM2-135M-Instruct.Q4_1.gguf: llama, 30 layers, 134.5 M parameters",
            bytes = 93_400_000,
            layers = 30,
            adapterSize = 30 * 86016,
            seqLen = 256,
            schedule = schedule(30),
            predictedMemory = 212_000_000,
            secondsAStep = 2.4,
            checked = true,
        ),
        BundleInfo("tiny", "tiny: qwen2, 8 layers, 2.3 M parameters, float16", 1_960_000, 8, 8 * 11392, 32, schedule(8), 64_000_000, 0.06),
    )
    private val previews = listOf(
        listOf(Piece("<|user|>\nIs the bread done?\n<|assistant|>\n", false), Piece("ok so it rose overnight, x", true)),
        listOf(Piece("هل الخبز جاهز؟\n", false), Piece("نعم، لقد اختمر", true)),
        listOf(Piece("r", false), Piece("ight then -- the rye loaf came out flat as a slate, x", true)),
    )
    private val vitals = Vitals(78, true, 34f, Thermal.LIGHT, false, 205_000_000, 212_000_000, 241_000_000, 248_000_000)

    private fun losses(steps: Int) = (1..steps).map { LossPoint(it, 1.2 + 2.1 * Math.exp(-it / 12.0) + 0.12 * Math.sin(it * 1.7)) }

    private fun midRun(state: AppState) = state.copy(
        bundles = bundleInfos,
        chosen = "SmolLM2-135M-Instruct",
        data = DataInfo("1.jsonl", "messages.jsonl", null, DataSummary(170, 18_423, 18_253, 12, 0, 90, previews)),
        run = RunState(Phase.TRAINING, 36, 100, losses(36), listOf(LossPoint(0, 3.4), LossPoint(20, 1.9)), schedule(30)[2], 21, 2.4),
        vitals = vitals,
        problem = null,
    )

    private fun finished(state: AppState) = adapters(midRun(state)).copy(
        run = RunState(Phase.FINISHED, 100, 100, losses(100), listOf(LossPoint(0, 3.4), LossPoint(100, 1.42)), secondsAStep = 2.4),
        kept = mapOf(PrivateData.Part.DATA to 212_000L, PrivateData.Part.LEARNED to 21_400_000L, PrivateData.Part.SHARED to 0L),
    )

    private fun nothing(state: AppState) = AppState(vitals = state.vitals, kept = emptyMap())

    private fun draw(name: String, qualifiers: String, fontScale: Float = 1f, change: KFunction1<AppState, AppState> = ::finished) {
        RuntimeEnvironment.setQualifiers(qualifiers)
        RuntimeEnvironment.setFontScale(fontScale)
        val activity = open().get()
        for (destination in Destination.entries) {
            val shown = if (destination == Destination.TRAIN && change == ::finished) midRun(state) else change(state)
            activity.show(destination)
            app.privateData.worker.join() // it measures what there is
            app.store.update { shown }
            val bitmap = picture(activity, "$name-${destination.name.lowercase()}")
            val colours = HashSet<Int>()
            for (y in 0 until bitmap.height step 7) for (x in 0 until bitmap.width step 7) colours += bitmap.getPixel(x, y)
            assertTrue("$name $destination is drawn", colours.size > 20)
        }
    }

    @Test fun `phone, light, English`() = draw("phone-light-en", "+en")

    @Test fun `phone, dark, German`() = draw("phone-dark-de", "+de-night")

    @Test fun `tablet, light, English`() = draw("tablet-light-en", "en-w1280dp-h800dp-land-mdpi")

    @Test fun `tablet, dark, German`() = draw("tablet-dark-de", "de-w1280dp-h800dp-land-night-mdpi")

    @Test fun `phone on its side`() = draw("landscape-light-en", "en-w915dp-h412dp-land-xhdpi")

    @Test fun `letters twice as large, German`() = draw("large-light-de", "+de", fontScale = 2f)

    @Test fun `from right to left`() = draw("rtl-light-en", "ar-ldrtl-w412dp-h915dp-xhdpi")

    @Test fun `before anything was chosen`() = draw("empty-light-en", "+en", change = ::nothing)

    @Test fun `tablet, upright`() = draw("upright-light-en", "en-w800dp-h1280dp-mdpi")

    /** The Train screen with everything open: after a run, before one, and in a pause. */
    private fun drawRun(name: String, qualifiers: String) {
        RuntimeEnvironment.setQualifiers(qualifiers)
        app.settings.setOpen("details", true)
        app.settings.steps = 150
        val activity = open().get()
        activity.show(Destination.TRAIN)
        app.store.update { finished(it) }
        picture(activity, "finished-$name")
        app.store.update { midRun(it).copy(run = RunState(Phase.NONE, 0, 150)) }
        picture(activity, "ready-$name")
        app.store.update { midRun(it).copy(run = RunState(Phase.PAUSED, 36, 100, losses(36))) }
        picture(activity, "paused-$name")
    }

    @Test fun `around a run, light, English`() = drawRun("light-en", "+en")

    @Test fun `around a run, dark, German`() = drawRun("dark-de", "+de-night")

    @Test fun `what went wrong`() {
        RuntimeEnvironment.setQualifiers("+en")
        val activity = open().get()
        activity.show(Destination.TRAIN)
        app.store.update { midRun(it).copy(problem = Problem.of(Fault.MEMORY_TOO_SMALL, listOf("212000000", "128000000"), "212.0 MB")) }
        app.store.update { it.copy(run = it.run.copy(phase = Phase.FAILED)) }
        picture(activity, "problem-light-en")
        activity.show(Destination.MODEL)
        val copying = Progress(Progress.Kind.COPYING, "SmolLM2-135M-Instruct", 45_000_000, 93_400_000)
        app.store.update { it.copy(bundles = bundleInfos.drop(1), problem = null, run = RunState(), transfer = copying) }
        picture(activity, "copying-light-en")
    }
}
