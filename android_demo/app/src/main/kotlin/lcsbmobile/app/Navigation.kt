package lcsbmobile.app

import android.content.Context
import android.util.AttributeSet
import android.util.TypedValue
import android.view.Gravity
import android.view.LayoutInflater
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.TextView

/** The five screens: a bar at the bottom when horizontal, a rail at the side when vertical. */
class Navigation(context: Context, attributes: AttributeSet?) : LinearLayout(context, attributes) {
    var onChosen: (Destination) -> Unit = {}

    init {
        setBackgroundColor(context.getColor(R.color.surface_container))
        if (orientation == VERTICAL) gravity = Gravity.CENTER_VERTICAL
        val inflater = LayoutInflater.from(context)
        for (destination in Destination.entries) {
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

    fun show(chosen: Destination) {
        for (destination in Destination.entries) {
            val item = findViewById<LinearLayout>(destination.item)
            item.isSelected = destination == chosen
        }
    }

    private companion object {
        const val MOST_SCALE = 1.15f // of letters: five words stand side by side; TalkBack reads them too
    }
}

enum class Destination(val item: Int, val layout: Int, val title: Int, val icon: Int, val label: Int) {
    MODEL(R.id.nav_model, R.layout.model, R.id.model_title, R.drawable.ic_model, R.string.model),
    DATA(R.id.nav_data, R.layout.data, R.id.data_title, R.drawable.ic_data, R.string.data),
    TRAIN(R.id.nav_train, R.layout.train, R.id.train_title, R.drawable.ic_train, R.string.train),
    TRY(R.id.nav_try, R.layout.try_it, R.id.try_it_title, R.drawable.ic_try, R.string.try_it),
    SHARE(R.id.nav_share, R.layout.share, R.id.share_title, R.drawable.ic_share, R.string.share),
}
