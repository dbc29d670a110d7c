package lcsbmobile.app

import android.content.Context
import android.content.res.Configuration
import android.content.res.Resources
import android.os.Looper
import android.view.View
import org.junit.After
import org.junit.Before
import org.junit.Rule
import org.junit.rules.TemporaryFolder
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import java.io.File
import java.util.Locale

/** The app with the tiny bundle in its storage, its real resources and the real runtime. */
@RunWith(RobolectricTestRunner::class)
abstract class AppTest {
    @get:Rule val temporary = TemporaryFolder()
    val app: App get() = RuntimeEnvironment.getApplication() as App
    val state: AppState get() = app.store.state
    val bundles = File(checkNotNull(System.getProperty("test.bundles")))
    private val controllers = mutableListOf<ActivityController<MainActivity>>()

    @Before
    fun firstStart() {
        plentyOfMemory(app)
        app.pace = Pace(look = 100, wait = 20, rest = 1)
        app.bundles.worker.join()
        waitFor("the tiny bundle") { state.bundle != null && state.transfer == null }
        for (worker in listOf(app.data.worker, app.adapters.worker, app.training.worker)) worker.join()
    }

    @After
    fun end() {
        controllers.forEach { if (!it.get().isDestroyed) it.pause().stop().destroy() }
        app.training.cancel()
        app.training.thread?.join()
        app.bundles.cancel()
        for (worker in listOf(app.bundles.worker, app.data.worker, app.training.worker, app.trial.worker)) worker.join()
        for (worker in listOf(app.sharing.worker, app.adapters.worker, app.privateData.worker)) worker.join()
    }

    /** What a new process finds: nothing but the files. */
    fun nextProcess() {
        app.data.worker.join()
        app.onCreate()
        firstStart()
        idle()
    }

    fun open(): ActivityController<MainActivity> = Robolectric.buildActivity(MainActivity::class.java).setup().also { controllers += it }

    fun idle() = shadowOf(Looper.getMainLooper()).idle()

    /** Lets the main thread work until [condition] holds. */
    fun waitFor(what: String, condition: () -> Boolean) {
        val end = System.nanoTime() + 180_000_000_000
        while (!condition()) {
            check(System.nanoTime() < end) { "no $what; ${state.run.phase}, step ${state.run.step}, ${state.problem?.detail}" }
            idle()
            Thread.sleep(5)
        }
        idle()
    }

    fun <T : View> MainActivity.view(id: Int): T = findViewById(id)

    fun english(): Resources = resources(Locale.ENGLISH)

    fun german(): Resources = resources(Locale.GERMAN)

    private fun resources(locale: Locale): Resources {
        val configuration = Configuration(app.resources.configuration).apply { setLocale(locale) }
        return app.createConfigurationContext(configuration).resources
    }

    /** Both sentences of what went wrong, in both languages: none may be missing. */
    fun sentences(problem: Problem): List<String> = listOf(english(), german()).flatMap { listOf(problem.what(it), problem.todo(it)) }
}

/** A phone that has 4 GB, of which 3 are free. */
fun plentyOfMemory(context: Context) {
    val memory = android.app.ActivityManager.MemoryInfo().apply {
        totalMem = 4_000_000_000
        availMem = 3_000_000_000
        threshold = 200_000_000
    }
    shadowOf(context.getSystemService(android.app.ActivityManager::class.java)).setMemoryInfo(memory)
}
