package lcsbmobile.app

import android.content.Context
import android.content.SharedPreferences

/** What the person chose, kept over the app's restarts. */
class Settings(context: Context) {
    private val values: SharedPreferences = context.getSharedPreferences("settings", Context.MODE_PRIVATE)

    var chosen: String?
        get() = values.getString("chosen", null)
        set(name) = values.edit().putString("chosen", name).apply()

    /** The data's file in the data directory, and the name that the person knows it by. */
    var data: Pair<String, String>?
        get() = values.getString("data_file", null)?.let { it to values.getString("data_name", it)!! }
        set(file) = values.edit().putString("data_file", file?.first).putString("data_name", file?.second).apply()

    var steps: Int
        get() = values.getInt("steps", 100)
        set(steps) = values.edit().putInt("steps", steps).apply()

    /** Bytes that training may take; null: what is free. */
    var budget: Long?
        get() = values.getLong("budget", 0).takeIf { it > 0 }
        set(bytes) = values.edit().putLong("budget", bytes ?: 0).apply()

    var trainWhenIdle: Boolean
        get() = values.getBoolean("idle", true)
        set(on) = values.edit().putBoolean("idle", on).apply()

    /** Whether the person was asked to allow notifications: once is enough. */
    var askedToNotify: Boolean
        get() = values.getBoolean("asked", false)
        set(asked) = values.edit().putBoolean("asked", asked).apply()

    /** Whether data and adapters may go into the phone's backup. */
    var backup: Boolean
        get() = values.getBoolean("backup", false)
        set(on) = values.edit().putBoolean("backup", on).apply()
}
