package lcsbmobile.app

import android.content.Context
import android.util.AttributeSet
import android.view.View
import android.view.ViewGroup

/**
 * Children in as many columns of equal width as fit, each at least `columnWidth` wide (grown with the font): the next child goes where
 * there is least. One column on a phone, two or more on a tablet or a phone on its side.
 */
class Columns(context: Context, attributes: AttributeSet?) : ViewGroup(context, attributes) {
    private val gap = resources.getDimensionPixelSize(R.dimen.gap)
    private val columnWidth: Float = context.obtainStyledAttributes(attributes, R.styleable.Columns).run {
        getDimension(R.styleable.Columns_columnWidth, 0f).also { recycle() }
    }
    private var places = emptyList<Place>()

    /** A child's [column] and distance from the top, in pixels. */
    private class Place(val child: View, val column: Int, val top: Int)

    override fun onMeasure(widthSpec: Int, heightSpec: Int) {
        val width = MeasureSpec.getSize(widthSpec)
        val shown = (0 until childCount).map(::getChildAt).filter { it.visibility != View.GONE }
        val columns = columns(width, shown.size)
        val spec = MeasureSpec.makeMeasureSpec(columnPixels(width, columns), MeasureSpec.EXACTLY)
        val filled = IntArray(columns)
        places = shown.map { child ->
            child.measure(spec, getChildMeasureSpec(heightSpec, 0, child.layoutParams.height))
            val column = filled.indices.minBy { filled[it] }
            Place(child, column, filled[column]).also { filled[column] += child.measuredHeight + gap }
        }
        setMeasuredDimension(width, maxOf((filled.maxOrNull() ?: 0) - gap, 0) + paddingTop + paddingBottom)
    }

    override fun onLayout(changed: Boolean, left: Int, top: Int, right: Int, bottom: Int) {
        val columns = columns(width, places.size)
        val pixels = columnPixels(width, columns)
        for (place in places) {
            val x = paddingStart + place.column * (pixels + gap)
            val from = if (layoutDirection == View.LAYOUT_DIRECTION_RTL) width - x - pixels else x
            place.child.layout(from, paddingTop + place.top, from + pixels, paddingTop + place.top + place.child.measuredHeight)
        }
    }

    private fun columns(width: Int, children: Int): Int {
        val least = columnWidth * maxOf(resources.configuration.fontScale, 1f)
        val fitting = ((width + gap) / (least + gap)).toInt().coerceIn(1, maxOf(children, 1))
        val rows = maxOf((children + fitting - 1) / fitting, 1)
        return maxOf((children + rows - 1) / rows, 1) // four in rows of two rather than three and one
    }

    private fun columnPixels(width: Int, columns: Int) = (width - paddingLeft - paddingRight - gap * (columns - 1)) / columns
}
