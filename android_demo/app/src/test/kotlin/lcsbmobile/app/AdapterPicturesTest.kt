package lcsbmobile.app

import lcsbmobile.core.Verdict
import org.junit.Test
import org.robolectric.RuntimeEnvironment

/** Adapters, a conversation and a run's result, for people to look at. */
class AdapterPicturesTest : AppTest() {
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
    private val samples = listOf(
        WrittenSample(0, "right then -- the ", "answer is that bread is a food made of flour and", true),
        WrittenSample(40, "right then -- the ", "rye came out flat as a slate, x", false),
    )

    private fun change(state: AppState) = state.copy(
        adapters = listOf(imported, second, first), inUse = 1, takesChat = true, problem = null,
        conversation = Conversation(said, writing = false, forgotten = 0),
        run = RunState(Phase.FINISHED, 40, 40, emptyList(), listOf(LossPoint(0, 1.42), LossPoint(40, 1.40)), samples = samples),
        comparing = Match(second, first, verdict = verdict(Verdict.Outcome.WORSE, 7, "Letters to Ada")),
        report = RunReport(reportOf(40), 248_000_000, "Fairphone FP5"),
    )

    private fun draw(name: String, qualifiers: String, fontScale: Float = 1f) {
        RuntimeEnvironment.setQualifiers(qualifiers)
        RuntimeEnvironment.setFontScale(fontScale)
        val activity = open().get()

        fun take(what: String, destination: Destination, more: (AppState) -> AppState = { it }) {
            app.store.update { more(change(it)) }
            activity.show(destination)
            picture(activity, "adapters-$what-$name")
        }
        take("list", Destination.SHARE)
        take("chat", Destination.TRY)
        take("text", Destination.TRY) {
            val text = Said("ok so the ", "broad beans are up -- eleven of them, x", "Letters to Ada", cut = true, chat = false)
            it.copy(conversation = Conversation(listOf(text), optionsShown = true), adapters = it.adapters.map { each -> each.copy(chat = false) })
        }
        take("empty", Destination.TRY) { it.copy(conversation = Conversation()) }
        take("compare", Destination.TRY) {
            it.copy(
                conversation = Conversation(sideBySide = true),
                comparison = Comparison("Is the bread done?", "Bread is a food made of", "ok so it rose overnight, x", beforeCut = true),
            )
        }
        app.settings.advancedShown = true
        take("result", Destination.TRAIN) { it.copy(adapters = listOf(second, first), undecided = 2, further = 1) }
    }

    @Test fun `phone, light, English`() = draw("light-en", "en-w412dp-h1800dp-xhdpi")

    @Test fun `phone, dark, German`() = draw("dark-de", "de-w412dp-h1800dp-night-xhdpi")

    @Test fun `letters twice as large, German`() = draw("large-de", "de-w412dp-h2400dp-xhdpi", fontScale = 2f)

    @Test fun `phone on its side`() = draw("landscape-en", "en-w915dp-h412dp-land-xhdpi")
}
