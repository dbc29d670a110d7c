package lcsbmobile.app

import android.text.Editable
import android.text.TextWatcher
import android.view.View
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.EditText
import android.widget.SeekBar
import android.widget.Spinner
import android.widget.Switch
import android.widget.TextView

/** With which adapter Try it writes, and how. */
class TryOptions(private val activity: MainActivity, view: View) {
    private val app = App.of(activity)
    private val on = view.findViewById<Switch>(R.id.adapter_on)
    private val choice = view.findViewById<Spinner>(R.id.adapter_choice)
    private val names = ArrayAdapter<String>(activity, R.layout.choice)
    private val section =
        Section(view.findViewById(R.id.try_options_header), view.findViewById(R.id.try_options_body), R.string.options, NAME, openAtFirst = false)
    private val systemLabel = view.findViewById<View>(R.id.system_label)
    private val system = view.findViewById<EditText>(R.id.system)
    private val cost = view.findViewById<View>(R.id.chat_cost)
    private val temperatureLabel = view.findViewById<TextView>(R.id.temperature_label)
    private val temperature = view.findViewById<SeekBar>(R.id.temperature)
    private var shown = emptyList<Pair<Int?, String>>()

    init {
        on.setOnCheckedChangeListener { _, checked ->
            if (app.store.state.conversation.on != checked) app.trial.change { it.copy(on = checked) }
        }
        names.setDropDownViewResource(R.layout.choice)
        choice.adapter = names
        choice.onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(parent: AdapterView<*>?, item: View?, position: Int, id: Long) = choose(position)

            override fun onNothingSelected(parent: AdapterView<*>?) = Unit
        }
        listenToText()
        listenToTemperature()
    }

    private fun choose(position: Int) {
        val id = shown.getOrNull(position)?.first
        if (id != app.store.state.tried?.id) app.trial.change { it.copy(adapter = id) }
    }

    private fun listenToText() {
        system.setText(app.settings.systemPrompt)
        system.addTextChangedListener(object : TextWatcher {
            override fun afterTextChanged(text: Editable) {
                if ("$text" != app.settings.systemPrompt) app.settings.systemPrompt = "$text"
            }

            override fun beforeTextChanged(text: CharSequence?, start: Int, count: Int, after: Int) = Unit

            override fun onTextChanged(text: CharSequence?, start: Int, before: Int, count: Int) = Unit
        })
    }

    private fun listenToTemperature() {
        temperature.progress = Math.round(app.settings.temperature * STEPS).toInt()
        sayTemperature()
        temperature.setOnSeekBarChangeListener(object : SeekBar.OnSeekBarChangeListener {
            override fun onProgressChanged(bar: SeekBar, progress: Int, byPerson: Boolean) {
                if (byPerson) app.settings.temperature = progress.toDouble() / STEPS
                sayTemperature()
            }

            override fun onStartTrackingTouch(bar: SeekBar) = Unit

            override fun onStopTrackingTouch(bar: SeekBar) = Unit
        })
    }

    private fun sayTemperature() {
        val value = temperature.progress.toDouble() / STEPS
        val words = activity.getString(R.string.temperature_label, formatDecimal(activity.resources, value, 1))
        temperatureLabel.say(if (temperature.progress == 0) activity.getString(R.string.temperature_zero) else words)
        temperature.contentDescription = temperatureLabel.text
    }

    fun render(state: AppState) {
        val conversation = state.conversation
        val paused = if (state.pausedRun) listOf(null to activity.getString(R.string.paused_run)) else emptyList()
        val choices = paused + state.adapters.map { it.id to it.name }
        val sideBySide = conversation.sideBySide
        on.shown(!sideBySide)
        on.isEnabled = choices.isNotEmpty()
        on.isChecked = conversation.on && choices.isNotEmpty()
        choice.shown(choices.isNotEmpty() && (sideBySide || conversation.on))
        if (choices != shown) {
            shown = choices
            names.clear()
            names.addAll(choices.map { it.second })
        }
        val chosen = choices.indexOfFirst { it.first == state.tried?.id }
        if (chosen >= 0 && choice.selectedItemPosition != chosen) choice.setSelection(chosen)
        section.render("${temperatureLabel.text}")
        for (part in listOf(systemLabel, system, cost)) part.shown(state.talks)
    }

    companion object {
        const val NAME = "try_options"
        private const val STEPS = 10 // a unit of temperature
    }
}
