package lcsbmobile.app

import android.view.View
import android.widget.Switch
import android.widget.TextView
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Shadows.shadowOf
import org.robolectric.shadows.ShadowAlertDialog
import java.io.File

class SettingsTest : AppTest() {
    @Test fun `each screen leads to the settings, and these lead back`() {
        val controller = open()
        val activity = controller.get()
        val content = activity.view<View>(R.id.version)
        for (tab in Destination.tabs) {
            activity.show(tab)
            activity.view<View>(tab.title).findViewById<View>(R.id.title_settings).performClick()
            assertTrue("$tab", content.isShown && activity.view<View>(tab.item).isSelected)
            activity.view<View>(R.id.settings_title).findViewById<View>(R.id.title_back).performClick()
            assertTrue("$tab", !content.isShown && activity.view<View>(tab.title).isShown)
        }
        activity.show(Destination.SETTINGS)
        val turned = controller.recreate().get()
        assertTrue("survives turning the phone", turned.view<View>(R.id.version).isShown)
        @Suppress("DEPRECATION")
        turned.onBackPressed()
        assertTrue(turned.view<View>(R.id.share_title).isShown)
        assertFalse(turned.isFinishing)
    }

    @Test fun `switches are what is stored`() {
        val activity = open().get()
        val (idle, backup) = activity.view<Switch>(R.id.idle) to activity.view<Switch>(R.id.backup)
        assertTrue(idle.isChecked && !backup.isChecked)
        idle.performClick()
        backup.performClick()
        assertTrue(!app.settings.trainWhenIdle && app.settings.backup)
        val again = open().get()
        assertTrue(!again.view<Switch>(R.id.idle).isChecked && again.view<Switch>(R.id.backup).isChecked)
    }

    @Test fun `version and licences are said`() {
        val activity = open().get()
        assertEquals("LCSB Trainer 1.0, under the Apache License 2.0", "${activity.view<TextView>(R.id.version).text}")
        activity.view<View>(R.id.licences).performClick()
        val text = "${shadowOf(ShadowAlertDialog.getLatestAlertDialog()).message}"
        for (work in listOf("kotlinx.serialization", "ONNX Runtime", "MIT License")) assertTrue(work, work in text)
        assertTrue("the project's own licence, whole", File("../../LICENSE").readText() in text)
    }
}
