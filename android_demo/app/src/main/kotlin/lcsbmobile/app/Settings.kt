package lcsbmobile.app

import android.content.Context
import android.content.SharedPreferences

/** What there is to train on: a file of the data directory, and the name that the person knows it by, or [typed]: their own messages. */
data class ChosenData(val file: String, val name: String, val typed: Boolean = false)

/** What the person chose, kept over the app's restarts, and by a backup. */
class Settings(context: Context) {
    private val values: SharedPreferences = context.getSharedPreferences("settings", Context.MODE_PRIVATE)

    /** What holds of this phone only, and goes into no backup. */
    private val here: SharedPreferences = context.getSharedPreferences("phone", Context.MODE_PRIVATE)

    var chosen: String?
        get() = values.getString("chosen", null)
        set(name) = values.edit().putString("chosen", name).apply()

    val data: ChosenData?
        get() = values.getString("data_file", null)?.let {
            ChosenData(it, values.getString("data_name", it)!!, values.getBoolean("data_typed", false))
        }

    /** Waits until it is stored, and says whether it was: before that the data that was chosen must not go. */
    fun choose(data: ChosenData?): Boolean = values.edit().run {
        onDisk("settings")
        putString("data_file", data?.file).putString("data_name", data?.name).putBoolean("data_typed", data?.typed == true).commit()
    }

    var steps: Int
        get() = values.getInt("steps", 100)
        set(steps) = values.edit().putInt("steps", steps).apply()

    /** Bytes that training may take; null: what is free. */
    var budget: Long?
        get() = values.getLong("budget", 0).takeIf { it > 0 }
        set(bytes) = values.edit().putLong("budget", bytes ?: 0).apply()

    /** Of a run; null: what the method asks for. */
    var learningRate: Double?
        get() = values.getString("learning_rate", null)?.toDoubleOrNull()
        set(rate) = values.edit().putString("learning_rate", rate?.toString()).apply()

    /** 0: always the likeliest. */
    var temperature: Double
        get() = values.getFloat("temperature", 0.8f).toDouble()
        set(value) = values.edit().putFloat("temperature", value.toFloat()).apply()

    /** What is said to the model before a conversation. */
    var systemPrompt: String
        get() = values.getString("system_prompt", "").orEmpty()
        set(text) = values.edit().putString("system_prompt", text).apply()

    var trainWhenIdle: Boolean
        get() = values.getBoolean("idle", true)
        set(on) = values.edit().putBoolean("idle", on).apply()

    /** Whether a screen's section, known by [name], was left open; [first]: nobody touched it yet. */
    fun isOpen(name: String, first: Boolean): Boolean = here.getBoolean("open_$name", first)

    fun setOpen(name: String, open: Boolean) = here.edit().putBoolean("open_$name", open).apply()

    /** Whether the person was asked to allow notifications: once is enough. */
    var askedToNotify: Boolean
        get() = here.getBoolean("asked", false)
        set(asked) = here.edit().putBoolean("asked", asked).apply()

    /** Whether there was a bundle once, if only the tiny one: who removed all does not get that one again. */
    var hadBundle: Boolean
        get() = here.getBoolean("had_bundle", false)
        set(had) = here.edit().putBoolean("had_bundle", had).apply()

    /** The document or tree that a bundle is being added from. Waits until it is stored: it is for a process that comes after this one's end. */
    var adding: String?
        get() = here.getString("adding", null)
        set(origin) {
            onDisk("settings")
            here.edit().putString("adding", origin).commit()
        }

    /** Whether data and adapters may go into the phone's backup. */
    var backup: Boolean
        get() = values.getBoolean("backup", false)
        set(on) = values.edit().putBoolean("backup", on).apply()
}
