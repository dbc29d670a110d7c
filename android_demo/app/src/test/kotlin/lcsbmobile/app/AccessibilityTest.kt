package lcsbmobile.app

import android.text.Layout
import android.view.View
import android.view.ViewGroup
import android.widget.SeekBar
import android.widget.Spinner
import android.widget.TextView
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.RuntimeEnvironment
import org.robolectric.annotation.Config

class AccessibilityTest : AppTest() {
    private fun all(view: View): List<View> {
        val children = if (view is ViewGroup) (0 until view.childCount).map(view::getChildAt) else emptyList()
        return listOf(view) + children.flatMap(::all)
    }

    private fun label(view: View): String {
        val text = view as? TextView
        return listOf(view.contentDescription, text?.text, text?.hint).firstOrNull { !it.isNullOrBlank() }?.toString().orEmpty()
    }

    private fun name(view: View) = if (view.id > 0) view.resources.getResourceEntryName(view.id) else view.javaClass.simpleName

    /** Screens with content: data, a run and a problem. */
    private fun filled(): MainActivity {
        app.data.type("ok so the bread rose, x")
        waitFor("the message") { state.data?.summary != null && state.reading == null }
        app.data.type("right then, tea, x")
        waitFor("the message") { state.data?.typed?.size == 2 && state.reading == null }
        val copying = Progress(Progress.Kind.COPYING, "x", 1, 2)
        app.store.update { it.copy(found = listOf("pushed"), problem = Problem.NOTIFICATIONS, transfer = copying) }
        return open().get()
    }

    private fun check(activity: MainActivity) {
        val least = 48 * activity.resources.displayMetrics.density - 0.5
        for (destination in Destination.entries) {
            activity.show(destination)
            drawn(activity)
            val touched = all(activity.window.decorView).filter { it.isShown && it.isClickable && it.isEnabled }
            assertTrue(touched.size >= 6)
            for (view in touched) {
                assertTrue("$destination: ${name(view)} has no label", label(view).isNotBlank() || view is Spinner)
                val size = minOf(view.width, view.height)
                assertTrue("$destination: ${name(view)} is ${view.width}x${view.height} of $least", size >= least)
            }
        }
    }

    @Test fun `whatever can be touched has a label and 48 dp`() = check(filled())

    @Test fun `also in large letters and on a tablet`() {
        val activity = filled()
        activity.finish()
        RuntimeEnvironment.setQualifiers("de-w800dp-h1280dp-mdpi")
        RuntimeEnvironment.setFontScale(1.5f)
        check(open().get())
    }

    /** Why [view] does not show its text whole, or null. */
    private fun cut(view: TextView): String? {
        val layout = view.layout ?: return null
        val text = layout.text
        val lines = 0 until layout.lineCount
        val broken = lines.map(layout::getLineEnd).filter { it in 1 until text.length && text[it - 1].isLetterOrDigit() && text[it].isLetterOrDigit() }
        return when {
            broken.isNotEmpty() -> "breaks words: " + broken.joinToString { text.take(it).split(' ').last() + "|" + text.drop(it).take(4) }
            lines.any { layout.getEllipsisCount(it) > 0 } -> "is shortened"
            layout.height > view.height - view.compoundPaddingTop - view.compoundPaddingBottom -> "is cut off below"
            else -> null
        }
    }

    @Test fun `letters twice as large are all shown, and no word is broken`() {
        RuntimeEnvironment.setQualifiers("de-w412dp-h915dp-xhdpi")
        RuntimeEnvironment.setFontScale(2f)
        app.settings.setOpen("details", true)
        val activity = filled()
        val named = state.bundles.map { it.copy(name = "SmolLM2-135M-Instruct", source = "SmolLM2-135M-Instruct.Q4_1.gguf: llama") }
        app.store.update { it.copy(bundles = named, run = RunState(Phase.PAUSED, 3, 100)) }
        for (destination in Destination.entries) {
            activity.show(destination)
            drawn(activity)
            val texts = all(activity.window.decorView).filterIsInstance<TextView>().filter { it.isShown && it.text.isNotEmpty() }
            assertTrue(texts.size > 6)
            val faults = texts.mapNotNull { view -> cut(view)?.let { "${name(view)} “${view.text}” $it" } }
            assertEquals("$destination", emptyList<String>(), faults)
        }
    }

    @Test fun `what a person wrote begins where its own script does`() {
        RuntimeEnvironment.setQualifiers("ar-ldrtl-w412dp-h915dp-xhdpi")
        val activity = filled()
        activity.show(Destination.DATA)
        for ((text, direction) in listOf("ok so the bread rose, x" to Layout.DIR_LEFT_TO_RIGHT, "خبز" to Layout.DIR_RIGHT_TO_LEFT)) {
            val summary = DataSummary(2, 9, 9, 0, 0, 1, listOf(listOf(Piece(text, true))))
            app.store.update { it.copy(data = DataInfo("1.jsonl", "x", listOf(text), summary)) }
            drawn(activity)
            for (view in listOf(activity.view<TextView>(R.id.preview_text), activity.view(R.id.message_text))) {
                assertEquals(text, "${view.text}")
                assertEquals(text, direction, view.layout.getParagraphDirection(0))
                assertEquals(text, Layout.Alignment.ALIGN_NORMAL, view.layout.getParagraphAlignment(0))
            }
        }
    }

    @Test fun `headings, live regions and pairs are marked`() {
        val activity = filled()
        for (destination in Destination.entries) assertTrue(activity.view<View>(destination.title).findViewById<View>(R.id.title_text).isAccessibilityHeading)
        for (id in listOf(R.id.run_phase, R.id.data_state, R.id.transfer_text, R.id.try_state)) {
            assertEquals(View.ACCESSIBILITY_LIVE_REGION_POLITE, activity.view<View>(id).accessibilityLiveRegion)
        }
        assertEquals(View.ACCESSIBILITY_LIVE_REGION_ASSERTIVE, activity.view<View>(R.id.problem).accessibilityLiveRegion)
        assertTrue(activity.view<View>(R.id.nav_model).isSelected)
        activity.show(Destination.TRAIN)
        assertEquals("Layers: 8", activity.view<View>(R.id.bundle_layers).contentDescription)
        assertEquals(R.id.budget, activity.view<View>(R.id.budget_label).labelFor)
        assertTrue(activity.view<SeekBar>(R.id.steps).contentDescription.contains("100 steps"))
        assertTrue(activity.view<LossChart>(R.id.chart).contentDescription.isNotBlank())
    }

    @Test fun `text can be told from its ground`() {
        val pairs = listOf(
            R.color.on_surface to R.color.surface,
            R.color.on_surface to R.color.surface_container,
            R.color.on_surface_variant to R.color.surface_container,
            R.color.on_surface_variant to R.color.surface_container_high,
            R.color.on_primary to R.color.primary,
            R.color.primary to R.color.surface_container,
            R.color.on_primary_container to R.color.primary_container,
            R.color.on_secondary_container to R.color.secondary_container,
            R.color.on_error_container to R.color.error_container,
        )
        for (qualifiers in listOf("+notnight", "+night")) {
            RuntimeEnvironment.setQualifiers(qualifiers)
            for ((text, ground) in pairs) {
                val contrast = contrast(app.getColor(text), app.getColor(ground))
                val (letters, below) = listOf(text, ground).map(app.resources::getResourceEntryName)
                assertTrue("$qualifiers: $letters on $below: $contrast", contrast >= 4.5)
            }
        }
    }

    @Test fun `the state of what is moved can be told too`() = checkMoved()

    @Config(sdk = [26])
    @Test
    fun `also in the app's own colours`() = checkMoved()

    /** 3 : 1, as WCAG 2.1 asks of what has to be told apart; a bar's own ground only says how long it is. */
    private fun checkMoved() {
        val off = listOf(R.color.outline to R.color.surface_container)
        val on = listOf(R.color.primary to R.color.surface_container, R.color.on_primary to R.color.primary, R.color.primary to R.color.track)
        for (qualifiers in listOf("+notnight", "+night")) {
            RuntimeEnvironment.setQualifiers(qualifiers)
            for ((mark, ground) in on + off) {
                val contrast = contrast(app.getColor(mark), app.getColor(ground))
                val (above, below) = listOf(mark, ground).map(app.resources::getResourceEntryName)
                assertTrue("$qualifiers: $above on $below: $contrast", contrast >= 3)
            }
            assertTrue("$qualifiers: a bar's ground", contrast(app.getColor(R.color.track), app.getColor(R.color.surface_container)) >= 1.4)
        }
    }

    /** As WCAG 2.1 defines it. */
    private fun contrast(one: Int, other: Int): Double {
        val (light, dark) = listOf(one, other).map { android.graphics.Color.luminance(it) + 0.05 }.sortedDescending()
        return light / dark
    }
}
