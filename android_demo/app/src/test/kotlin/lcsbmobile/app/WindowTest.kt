package lcsbmobile.app

import android.graphics.Insets
import android.view.View
import android.view.WindowInsets
import android.widget.LinearLayout
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.RuntimeEnvironment

/** The window reaches from edge to edge, and what is in it keeps clear of the system's bars and the keyboard. */
class WindowTest : AppTest() {
    private fun MainActivity.dispatch(keyboard: Int) {
        val insets = WindowInsets.Builder()
            .setInsets(WindowInsets.Type.statusBars(), Insets.of(0, 70, 0, 0))
            .setInsets(WindowInsets.Type.navigationBars(), Insets.of(0, 0, 0, 60))
            .setInsets(WindowInsets.Type.displayCutout(), Insets.of(90, 0, 0, 0))
            .setInsets(WindowInsets.Type.ime(), Insets.of(0, 0, 0, keyboard)).build()
        view<View>(R.id.root).dispatchApplyWindowInsets(insets)
        idle()
    }

    @Test fun `a phone's bar is above the system's, and makes room for the keyboard`() {
        val activity = open().get()
        val navigation = activity.view<Navigation>(R.id.navigation)
        assertEquals(LinearLayout.HORIZONTAL, navigation.orientation)
        activity.dispatch(keyboard = 0)
        val root = activity.view<View>(R.id.root)
        assertEquals(listOf(90, 70, 0, 0), listOf(root.paddingLeft, root.paddingTop, root.paddingRight, root.paddingBottom))
        assertEquals(60, navigation.paddingBottom)
        activity.dispatch(keyboard = 900)
        assertFalse(navigation.isShown)
        assertEquals(900, (activity.view<View>(R.id.model_title).parent.parent as View).paddingBottom)
        activity.dispatch(keyboard = 0)
        assertTrue(navigation.isShown)
    }

    @Test fun `a phone on its side and a tablet have a rail`() {
        for (qualifiers in listOf("w915dp-h412dp-land-xhdpi", "w800dp-h1280dp-mdpi")) {
            RuntimeEnvironment.setQualifiers(qualifiers)
            val activity = open().get()
            assertEquals(LinearLayout.VERTICAL, activity.view<Navigation>(R.id.navigation).orientation)
            activity.dispatch(keyboard = 0)
            assertEquals(60, (activity.view<View>(R.id.model_title).parent.parent as View).paddingBottom)
        }
    }
}
