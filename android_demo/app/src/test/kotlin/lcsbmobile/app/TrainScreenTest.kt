package lcsbmobile.app

import android.view.View
import android.view.accessibility.AccessibilityNodeInfo
import android.widget.Button
import android.widget.SeekBar
import android.widget.TextView
import lcsbmobile.core.Fault
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Shadows.shadowOf
import org.robolectric.shadows.ShadowAlertDialog

class TrainScreenTest : AppTest() {
    private fun train(): MainActivity = open().get().also { it.show(Destination.TRAIN) }

    private fun MainActivity.text(id: Int) = view<TextView>(id).text.toString()

    private fun set(run: RunState, problem: Problem? = null) {
        app.store.update { it.copy(run = run, problem = problem) }
        idle()
    }

    @Test fun `slider, label and what is stored are one number of steps`() {
        app.settings.steps = 90 // out of a backup, say: between two notches
        val activity = train()
        val slider = activity.view<SeekBar>(R.id.steps)
        assertTrue(activity.text(R.id.steps_label).startsWith("90 steps"))
        assertEquals(4, slider.progress)
        slider.performAccessibilityAction(AccessibilityNodeInfo.ACTION_SCROLL_FORWARD, null)
        idle()
        val stored = app.settings.steps
        assertTrue("$stored", stored > 90)
        assertTrue(activity.text(R.id.steps_label).startsWith("${formatCount(english(), stored.toLong())} steps"))
        assertEquals("the run to come", stored, state.run.steps)
        set(RunState(Phase.PAUSED, 3, 8)) // has its own number
        assertTrue(activity.text(R.id.steps_label).startsWith("8 steps"))
        assertEquals(0, slider.progress)
        assertFalse(slider.isEnabled)
        assertEquals(stored, app.settings.steps)
    }

    @Test fun `sections are found as they were left`() {
        val activity = train()
        val (header, body) = activity.view<View>(R.id.details_header) to activity.view<View>(R.id.details_body)
        assertFalse(body.isShown)
        assertEquals("Details. Collapsed. Layers in this step", header.contentDescription)
        header.performClick()
        assertTrue(body.isShown)
        assertEquals("Details. Expanded", header.contentDescription)
        val info = header.createAccessibilityNodeInfo()
        assertEquals(Button::class.java.name, info.className)
        assertTrue(AccessibilityNodeInfo.AccessibilityAction.ACTION_COLLAPSE in info.actionList)
        activity.view<View>(R.id.options_header).performAccessibilityAction(AccessibilityNodeInfo.ACTION_COLLAPSE, null)
        assertTrue(activity.view<View>(R.id.options_header).contentDescription.startsWith("Options. Collapsed. 100 steps"))
        val again = train()
        assertTrue(again.view<View>(R.id.details_body).isShown)
        assertFalse(again.view<View>(R.id.options_body).isShown)
    }

    @Test fun `when a run is over, trying it is the button`() {
        val activity = train()
        val losses = listOf(LossPoint(0, 3.4), LossPoint(8, 1.42))
        set(RunState(Phase.FINISHED, 8, 8, evaluation = losses))
        assertTrue(activity.view<View>(R.id.try_result).isShown && activity.view<View>(R.id.start_again).isShown)
        assertFalse(activity.view<View>(R.id.start).isShown || activity.view<View>(R.id.cancel_run).isShown)
        assertTrue(activity.text(R.id.run_detail).startsWith("Step 8 of 8. Loss: 3.40\u00A0→\u00A01.42. On test examples"))
        set(RunState(Phase.CANCELLED, 0, 8))
        assertFalse("nothing was learned", activity.view<View>(R.id.try_result).isShown)
    }

    private fun MainActivity.remedy(fault: Fault, run: RunState = RunState()): Button? {
        set(run, Problem.of(fault))
        return view<Button>(R.id.problem_action).takeIf { it.isShown }
    }

    @Test fun `a problem's card does what its advice says`() {
        val activity = train()
        activity.remedy(Fault.STORAGE_FULL)!!.performClick()
        assertEquals(android.provider.Settings.ACTION_INTERNAL_STORAGE_SETTINGS, shadowOf(activity).nextStartedActivity.action)
        activity.remedy(Fault.DATA_LINE)!!.performClick()
        assertTrue(activity.view<View>(R.id.import_data).isShown)
        activity.remedy(Fault.BUNDLE_DAMAGED)!!.performClick()
        assertTrue(activity.view<View>(R.id.add_folder).isShown)
        app.settings.setOpen(TrainOptions.NAME, false)
        activity.remedy(Fault.MEMORY_TOO_SMALL)!!.performClick()
        assertTrue(activity.view<View>(R.id.budget).isShown)
        assertEquals(null, activity.remedy(Fault.STORAGE_FAILED))
        assertEquals("Resume", activity.remedy(Fault.STORAGE_FAILED, RunState(Phase.FAILED, 3, 8))!!.text)
        assertEquals(null, activity.remedy(Fault.RUN_BUSY))
        val finish = activity.remedy(Fault.CHECKPOINT_DAMAGED, RunState(Phase.FAILED, 3, 8))!!
        finish.performClick()
        assertEquals("Finish this run now?", shadowOf(ShadowAlertDialog.getLatestAlertDialog()).title)
    }

    @Test fun `the demo model that was removed can be had again`() {
        val activity = open().get()
        assertFalse(activity.view<View>(R.id.add_demo).isShown)
        app.bundles.remove(Bundles.DEMO)
        waitFor("it to be gone") { state.bundles.isEmpty() }
        activity.view<View>(R.id.add_demo).run { assertTrue(isShown && performClick()) }
        waitFor("it to be back") { state.bundle?.name == Bundles.DEMO && state.transfer == null }
        assertFalse(activity.view<View>(R.id.add_demo).isShown)
    }
}
