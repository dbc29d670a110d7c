package lcsbmobile.app

import android.graphics.Color
import org.junit.Assert.assertEquals
import org.junit.Test
import org.robolectric.annotation.Config

/** The system's buttons are seen on the navigation bar. */
class NavigationBarTest : AppTest() {
    private fun bar(): Int = open().get().window.navigationBarColor

    @Config(sdk = [26])
    @Test
    fun `white buttons on black before they can be dark`() = assertEquals(Color.BLACK, bar())

    @Test fun `the app's own ground after that`() = assertEquals(Color.TRANSPARENT, bar())

    @Config(qualifiers = "night")
    @Test
    fun `and at night`() = assertEquals(Color.TRANSPARENT, bar())
}
