package lcsbmobile.app

import org.junit.Test
import org.robolectric.RuntimeEnvironment

/** Try it as it is besides a conversation, and a run's result, for people to look at. */
class AdapterPicturesTest : AppTest() {
    private fun change(state: AppState) = adapters(state).copy(
        run = RunState(Phase.FINISHED, 40, 40, emptyList(), listOf(LossPoint(0, 1.42), LossPoint(40, 1.40)), samples = samples),
        data = DataInfo("1.jsonl", "letters.jsonl"),
        problem = null,
    )

    private fun take(name: String, qualifiers: String, destination: Destination, more: (AppState) -> AppState = { it }) {
        RuntimeEnvironment.setQualifiers(qualifiers)
        val activity = open().get()
        app.store.update { more(change(it)) }
        activity.show(destination)
        picture(activity, "adapters-$name")
    }

    private fun draw(name: String, qualifiers: String) {
        app.settings.setOpen(TryOptions.NAME, true)
        take("text-$name", qualifiers, Destination.TRY) {
            val text = Said("ok so the ", "broad beans are up -- eleven of them, x", "Letters to Ada", cut = true, chat = false)
            it.copy(conversation = Conversation(listOf(text)), adapters = it.adapters.map { each -> each.copy(chat = false) })
        }
        app.settings.setOpen(TryOptions.NAME, false)
        take("empty-$name", qualifiers, Destination.TRY) { it.copy(conversation = Conversation()) }
        take("compare-$name", qualifiers, Destination.TRY) {
            it.copy(
                conversation = Conversation(sideBySide = true),
                comparison = Comparison("Is the bread done?", "Bread is a food made of", "ok so it rose overnight, x", beforeCut = true),
            )
        }
        app.settings.setOpen(AdvancedOptions.NAME, true)
        take("result-$name", "+h1800dp", Destination.TRAIN) { it.copy(adapters = it.adapters.drop(1), undecided = 2, further = 1) }
    }

    @Test fun `phone, light, English`() = draw("light-en", "+en")

    @Test fun `phone, dark, German`() = draw("dark-de", "+de-night")
}
