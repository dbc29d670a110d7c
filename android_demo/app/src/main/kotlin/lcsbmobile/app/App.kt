package lcsbmobile.app

import android.app.Application
import android.content.Context
import android.content.Intent
import android.content.pm.ApplicationInfo
import android.os.Build
import android.os.StrictMode
import java.io.File

/** The app's parts, made once a process; they live in it and not in a screen, so that turning the phone stops nothing. */
class App : Application() {
    lateinit var store: Store
        private set
    lateinit var settings: Settings
        private set
    lateinit var bundles: Bundles
        private set
    lateinit var data: Data
        private set
    lateinit var training: Training
        private set
    lateinit var trial: Trial
        private set
    lateinit var sharing: Sharing
        private set
    lateinit var adapters: Adapters
        private set
    lateinit var privateData: PrivateData
        private set

    /** Of the run. Tests have a quicker one. */
    @Volatile var pace = Pace()

    /** A share sheet that no window has opened yet. */
    @Volatile var toSend: Intent? = null

    override fun onCreate() {
        super.onCreate()
        watchMainThread()
        // before API 30 an app that may write to shared storage reaches other apps' directories there
        val engine = Engine(cacheDir) { Build.VERSION.SDK_INT >= 30 || it.startsWith(filesDir) }
        val library = BundleLibrary(File(filesDir, "bundles"), engine)
        val runs = RunStore(File(filesDir, "runs"))
        val shelf = DataShelf(File(filesDir, "data"))
        val phone = Phone(this)
        val adapterEngine = AdapterEngine(engine)
        val adapterStore = AdapterStore(File(filesDir, "adapters"))
        settings = Settings(this)
        store = Store(AppState())
        val (keeper, judge) = Keeper(this, adapterEngine, library, runs) to Judge(this, adapterEngine, library, shelf)
        adapters = Adapters(this, adapterEngine, library, adapterStore, judge)
        training = Training(this, engine, library, shelf, runs, phone, keeper, judge)
        data = Data(this, engine, library, shelf, runs)
        bundles = Bundles(this, engine, library, runs, phone)
        trial = Trial(this, adapterEngine, library, runs)
        sharing = Sharing(this, adapterEngine, library, runs)
        privateData = PrivateData(this, runs, directories(engine))
        bundles.begin()
    }

    private fun directories(engine: Engine) = PrivateData.Directories(
        data = File(filesDir, "data"),
        adapters = File(filesDir, "adapters"),
        runs = File(filesDir, "runs"),
        scratch = cacheDir,
        shared = ShareProvider.directory(this),
        models = engine.known,
    )

    /** In debug builds: what reads or writes files on the main thread is named in the log. */
    private fun watchMainThread() {
        if (applicationInfo.flags and ApplicationInfo.FLAG_DEBUGGABLE == 0) return
        StrictMode.setThreadPolicy(StrictMode.ThreadPolicy.Builder().detectAll().penaltyLog().build())
    }

    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        @Suppress("DEPRECATION") // RUNNING_CRITICAL is no longer sent from API 34 on; COMPLETE is, to a process in the background
        if (level == TRIM_MEMORY_RUNNING_CRITICAL || level == TRIM_MEMORY_COMPLETE) training.giveMemoryBack()
    }

    companion object {
        fun of(context: Context) = context.applicationContext as App
    }
}
