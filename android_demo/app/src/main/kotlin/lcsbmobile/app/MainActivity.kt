package lcsbmobile.app

import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.view.View
import android.view.WindowInsets
import android.view.inputmethod.InputMethodManager
import android.widget.FrameLayout
import android.widget.LinearLayout
import android.widget.TextView
import android.provider.Settings as SystemSettings

/** The one window: five screens and the settings, of which one is seen, and what needs an Activity: pickers, permissions, the share sheet. */
class MainActivity : Activity() {
    private lateinit var screens: Map<Destination, Screen>
    private lateinit var problem: ProblemCard
    private lateinit var navigation: Navigation
    private lateinit var incoming: Incoming
    private val observer = ::render
    private val app get() = App.of(this)
    private var shown = Destination.MODEL
    private var tab = Destination.MODEL // that the settings go back to

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.main)
        val content = findViewById<FrameLayout>(R.id.content)
        screens = Destination.entries.associateWith { destination ->
            val view = layoutInflater.inflate(destination.layout, content, false)
            content.addView(view)
            setTitle(view.findViewById(destination.title), destination)
            screen(destination, view)
        }
        problem = ProblemCard(this)
        navigation = findViewById(R.id.navigation)
        navigation.onChosen = ::show
        applyInsets()
        incoming = Incoming(this)
        show(Destination.entries[saved?.getInt(TAB) ?: 0])
        show(Destination.entries[saved?.getInt(SHOWN) ?: 0])
        if (saved == null) incoming.take(intent)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        incoming.take(intent)
    }

    override fun onDestroy() {
        incoming.end()
        super.onDestroy()
    }

    /** A screen's title row, with the way to the settings, or back from there. */
    private fun setTitle(row: View, destination: Destination) {
        row.findViewById<TextView>(R.id.title_text).apply {
            setText(destination.label)
            heading(this)
        }
        row.findViewById<View>(R.id.title_settings).apply {
            shown(destination != Destination.SETTINGS)
            setOnClickListener { show(Destination.SETTINGS) }
        }
        row.findViewById<View>(R.id.title_back).apply {
            shown(destination == Destination.SETTINGS)
            setOnClickListener { show(tab) }
        }
    }

    @Suppress("OVERRIDE_DEPRECATION", "DEPRECATION") // the way of before API 33, and of a target under 36
    override fun onBackPressed() = if (shown == Destination.SETTINGS) show(tab) else super.onBackPressed()

    private fun screen(destination: Destination, view: View): Screen = when (destination) {
        Destination.MODEL -> ModelScreen(this, view)
        Destination.DATA -> DataScreen(this, view)
        Destination.TRAIN -> TrainScreen(this, view)
        Destination.TRY -> TryScreen(this, view)
        Destination.SHARE -> ShareScreen(this, view)
        Destination.SETTINGS -> SettingsScreen(this, view)
    }

    override fun onStart() {
        super.onStart()
        app.store.observe(observer)
    }

    override fun onStop() {
        app.store.forget(observer)
        super.onStop()
    }

    override fun onSaveInstanceState(state: Bundle) {
        super.onSaveInstanceState(state)
        state.putInt(TAB, tab.ordinal)
        state.putInt(SHOWN, shown.ordinal)
    }

    fun show(destination: Destination) {
        shown = destination
        if (destination in Destination.tabs) tab = destination else app.privateData.measure()
        for ((each, screen) in screens) screen.view.visibility = if (each == destination) View.VISIBLE else View.GONE
        navigation.show(tab)
        getSystemService(InputMethodManager::class.java).hideSoftInputFromWindow(navigation.windowToken, 0)
        render(app.store.state)
    }

    /** Only what is seen is drawn anew. */
    private fun render(state: AppState) {
        problem.render(state)
        screens.getValue(shown).render(state)
        incoming.render(state)
        app.toSend?.let {
            app.toSend = null
            startActivity(it)
        }
    }

    fun pickFolder() = pick(Intent(Intent.ACTION_OPEN_DOCUMENT_TREE), FOLDER)

    fun pickZip() = pick(document("application/zip"), ZIP)

    fun pickAdapter() = pick(document("application/zip"), ADAPTER)

    fun pickData() = pick(document("*/*"), DATA)

    private fun document(type: String) = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType(type)

    private fun pick(intent: Intent, request: Int) {
        try {
            startActivityForResult(intent, request)
        } catch (error: ActivityNotFoundException) {
            app.store.update { it.copy(problem = Problem.NO_PICKER) }
        }
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val uri = data?.data
        if (result != RESULT_OK || uri == null) return
        when (request) {
            FOLDER -> app.bundles.add(TreeSource(app.contentResolver, uri))
            ZIP -> app.bundles.add(ZipSource(app.contentResolver, uri))
            DATA -> app.data.import(uri)
            ADAPTER -> app.adapters.import(uri)
        }
    }

    /** Training begins whether or not the person allows notifications; without them it is seen in the app only. */
    fun train() {
        if (Build.VERSION.SDK_INT >= 33 && checkSelfPermission(NOTIFICATIONS) != PERMISSION_GRANTED && !app.settings.askedToNotify) {
            app.settings.askedToNotify = true
            requestPermissions(arrayOf(NOTIFICATIONS), NOTIFY)
        }
        TrainService.start(this)
    }

    override fun onRequestPermissionsResult(request: Int, permissions: Array<String>, results: IntArray) {
        if (request == NOTIFY && results.firstOrNull() != PERMISSION_GRANTED) app.store.update { it.copy(problem = Problem.NOTIFICATIONS) }
    }

    /** Does what a problem's card offers. */
    fun mend(remedy: Remedy) = when (remedy) {
        Remedy.FREE_SPACE -> openSystemSettings(Intent(SystemSettings.ACTION_INTERNAL_STORAGE_SETTINGS))
        Remedy.CHOOSE_DATA -> show(Destination.DATA)
        Remedy.CHOOSE_MODEL -> show(Destination.MODEL)
        Remedy.CHANGE_OPTIONS -> {
            app.settings.setOpen(TrainOptions.NAME, true)
            show(Destination.TRAIN)
        }
        Remedy.RESUME -> begin(this)
        Remedy.FINISH -> finishEarly(this)
        Remedy.NOTIFICATIONS -> {
            val settings = Intent(SystemSettings.ACTION_APP_NOTIFICATION_SETTINGS)
            openSystemSettings(settings.putExtra(SystemSettings.EXTRA_APP_PACKAGE, packageName))
        }
    }

    /** A maker may have left one out. */
    private fun openSystemSettings(intent: Intent) =
        try {
            startActivity(intent)
        } catch (error: ActivityNotFoundException) {
            startActivity(Intent(SystemSettings.ACTION_SETTINGS))
        }

    /** From any thread. This window may be gone by now; the one that is seen next opens it. */
    fun send(intent: Intent) {
        app.toSend = intent
        app.store.update { it }
    }

    /** The window reaches below the system's bars; what is touched or read does not. */
    private fun applyInsets() {
        val root = findViewById<View>(R.id.root)
        reachBelowBars(root)
        root.setOnApplyWindowInsetsListener { _, insets ->
            val edges = edges(insets)
            root.setPadding(edges.left, edges.top, edges.right, 0)
            navigation.setPadding(0, 0, 0, if (edges.keyboard > 0) 0 else edges.bottom)
            navigation.visibility = if (edges.keyboard > 0) View.GONE else View.VISIBLE
            val below = if (navigation.orientation == LinearLayout.VERTICAL) edges.bottom else 0
            for (screen in screens.values) screen.view.setPadding(0, 0, 0, maxOf(edges.keyboard, below))
            insets
        }
    }

    @Guarded
    private fun reachBelowBars(root: View) {
        if (Build.VERSION.SDK_INT >= 30) {
            window.setDecorFitsSystemWindows(false)
        } else {
            @Suppress("DEPRECATION")
            root.systemUiVisibility = View.SYSTEM_UI_FLAG_LAYOUT_STABLE or View.SYSTEM_UI_FLAG_LAYOUT_FULLSCREEN or
                View.SYSTEM_UI_FLAG_LAYOUT_HIDE_NAVIGATION
        }
    }

    private class Edges(val left: Int, val top: Int, val right: Int, val bottom: Int, val keyboard: Int)

    @Guarded
    private fun edges(insets: WindowInsets): Edges {
        if (Build.VERSION.SDK_INT >= 30) {
            val bars = insets.getInsets(WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout())
            return Edges(bars.left, bars.top, bars.right, bars.bottom, insets.getInsets(WindowInsets.Type.ime()).bottom)
        }
        @Suppress("DEPRECATION")
        return with(insets) {
            val keyboard = if (systemWindowInsetBottom > stableInsetBottom) systemWindowInsetBottom else 0
            Edges(systemWindowInsetLeft, systemWindowInsetTop, systemWindowInsetRight, stableInsetBottom, keyboard)
        }
    }

    private companion object {
        const val SHOWN = "shown"
        const val TAB = "tab"
        const val FOLDER = 1
        const val ZIP = 2
        const val DATA = 3
        const val NOTIFY = 4
        const val ADAPTER = 5
        const val NOTIFICATIONS = "android.permission.POST_NOTIFICATIONS"
        const val PERMISSION_GRANTED = android.content.pm.PackageManager.PERMISSION_GRANTED
    }
}
