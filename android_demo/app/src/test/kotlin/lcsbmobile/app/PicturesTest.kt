package lcsbmobile.app

import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment

/** Every screen in the middle of a run, as people see it. */
@RunWith(RobolectricTestRunner::class)
class PicturesTest {
    private fun draw(name: String, qualifiers: String, fontScale: Float = 1f) {
        RuntimeEnvironment.setQualifiers(qualifiers)
        RuntimeEnvironment.setFontScale(fontScale)
        val app = RuntimeEnvironment.getApplication() as App
        app.bundles.worker.join()
        val activity = Robolectric.buildActivity(MainActivity::class.java).setup().get()
        app.store.update { midRun(it) }
        for (destination in Destination.entries) {
            activity.show(destination)
            picture(activity, "$name-${destination.name.lowercase()}")
        }
    }

    private fun midRun(state: AppState): AppState {
        val schedule = (0..3).map { band -> List(8) { if (it / 2 == 3 - band) LayerRole.TRAINED else if (it / 2 > 3 - band) LayerRole.PASSED else LayerRole.SKIPPED } }
        val losses = (1..36).map { LossPoint(it, 1.2 + 2.1 * Math.exp(-it / 12.0) + 0.12 * Math.sin(it * 1.7)) }
        val bundles = listOf(
            BundleInfo("tiny", "tiny: qwen2, 8 layers, 2.3 M parameters, float16", 1_960_000, 8, 11392, 32, schedule, 64_000_000, 0.06, true),
            BundleInfo("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct.Q4_1.gguf: llama, 30 layers, 134.5 M parameters", 93_400_000, 30, 86016, 256, schedule, 212_000_000, 2.4),
        )
        val previews = listOf(
            listOf(Piece("user: what about the bread?\nassistant: ", false), Piece("ok so the bread rose overnight and pushed the lid off, x", true)),
            listOf(Piece("b", false), Piece(" second", true)),
        )
        return state.copy(
            bundles = bundles,
            chosen = "tiny",
            data = DataInfo("1.jsonl", "messages.jsonl", null, DataSummary(170, 18_423, 18_253, 12, 0, 90, previews)),
            run = RunState(Phase.TRAINING, 36, 100, losses, listOf(LossPoint(0, 3.4), LossPoint(20, 1.9), LossPoint(36, 1.5)), schedule[2], 5, 2.4),
            vitals = Vitals(78, true, 34f, Thermal.LIGHT, false, 212_000_000, 248_000_000),
            comparison = Comparison("ok so the ", "broad the and it a of the", "broad beans are up -- eleven of them, i counted twice, x"),
        )
    }

    @Test fun phone() = draw("phone", "+en")
    @Test fun phoneDark() = draw("phone-dark", "+de-night")
    @Test fun tablet() = draw("tablet", "w1280dp-h800dp-land-mdpi")
}
