package lcsbmobile.app

import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.robolectric.Robolectric
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config

/** The oldest Android that the app is for, where each check of SDK_INT goes the other way than in the other tests. */
@Config(sdk = [26])
class OldestAndroidTest : AppTest() {
    @Test fun `every screen is drawn, a run trains in the foreground and is shared`() {
        val activity = open().get()
        for (destination in Destination.entries) {
            activity.show(destination)
            drawn(activity)
        }
        app.data.importSample()
        waitFor("the sample") { state.data?.summary != null && state.reading == null }
        app.settings.steps = 8
        activity.train()
        app.training.request(state.bundle!!, state.data!!)
        val service = Robolectric.buildService(TrainService::class.java, shadowOf(app).nextStartedService).create().startCommand(0, 1).get()
        assertEquals(TrainNotice.ID, shadowOf(service).lastForegroundNotificationId)
        waitFor("the end") { state.run.phase == Phase.FINISHED && !app.training.running }
        assertTrue(state.run.evaluation.last().loss < state.run.evaluation.first().loss)
        app.sharing.adapter(state.adapters.first(), activity::send)
        waitFor("the share sheet") { shadowOf(activity).peekNextStartedActivity() != null }
    }
}
