package lcsbmobile.app

import android.content.Context
import android.util.AttributeSet
import android.util.TypedValue
import android.view.Gravity
import android.view.LayoutInflater
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.TextView

/** The screens that are always at hand: a bar at the bottom when horizontal, a rail at the side when vertical. */
class Navigation(context: Context, attributes: AttributeSet?) : LinearLayout(context, attributes) {
    var onChosen: (Destination) -> Unit = {}

    init {
        setBackgroundColor(context.getColor(R.color.surface_container))
        if (orientation == VERTICAL) gravity = Gravity.CENTER_VERTICAL
        val inflater = LayoutInflater.from(context)
        for (destination in Destination.tabs) {
            val item = inflater.inflate(R.layout.navigation_item, this, false)
            item.id = destination.item
            item.findViewById<ImageView>(R.id.item_icon).setImageResource(destination.icon)
            item.findViewById<TextView>(R.id.item_label).apply {
                setText(destination.label)
                val scale = resources.configuration.fontScale
                if (scale > MOST_SCALE) setTextSize(TypedValue.COMPLEX_UNIT_PX, textSize * MOST_SCALE / scale)
            }
            item.contentDescription = context.getString(destination.label)
            item.setOnClickListener { onChosen(destination) }
            if (orientation == HORIZONTAL) item.layoutParams = LayoutParams(0, LayoutParams.WRAP_CONTENT, 1f)
            addView(item)
        }
    }

    /** [chosen]: a tab. */
    fun show(chosen: Destination) {
        for (destination in Destination.tabs) {
            val item = findViewById<LinearLayout>(destination.item)
            item.isSelected = destination == chosen
        }
    }

    private companion object {
        const val MOST_SCALE = 1.15f // of letters: five words stand side by side; TalkBack reads them too
    }
}

/** [item], [icon]: of a tab; 0 for what is reached by a screen's title row. */
enum class Destination(val layout: Int, val title: Int, val label: Int, val item: Int = 0, val icon: Int = 0) {
    MODEL(R.layout.model, R.id.model_title, R.string.model, R.id.nav_model, R.drawable.ic_model),
    DATA(R.layout.data, R.id.data_title, R.string.data, R.id.nav_data, R.drawable.ic_data),
    TRAIN(R.layout.train, R.id.train_title, R.string.train, R.id.nav_train, R.drawable.ic_train),
    TRY(R.layout.try_it, R.id.try_it_title, R.string.try_it, R.id.nav_try, R.drawable.ic_try),
    SHARE(R.layout.share, R.id.share_title, R.string.share, R.id.nav_share, R.drawable.ic_share),
    SETTINGS(R.layout.settings, R.id.settings_title, R.string.settings),
    ;

    companion object {
        val tabs = entries.filter { it.item != 0 }
    }
}
