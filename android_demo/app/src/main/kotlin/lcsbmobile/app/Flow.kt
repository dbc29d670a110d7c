package lcsbmobile.app

import android.content.Context
import android.util.AttributeSet
import android.view.Gravity
import android.view.View
import android.view.ViewGroup

/** Children side by side, going on below where the line is full: buttons whose texts are longer in another language or a larger font. */
class Flow(context: Context, attributes: AttributeSet?) : ViewGroup(context, attributes) {
    private val gap = resources.getDimensionPixelSize(R.dimen.gap) / 2
    private val atEnd: Boolean = context.obtainStyledAttributes(attributes, intArrayOf(android.R.attr.gravity)).run {
        getInt(0, Gravity.START).also { recycle() } and Gravity.END == Gravity.END
    }

    override fun onMeasure(widthSpec: Int, heightSpec: Int) {
        val width = MeasureSpec.getSize(widthSpec)
        val most = MeasureSpec.makeMeasureSpec(width - paddingLeft - paddingRight, MeasureSpec.AT_MOST)
        shown().forEach { it.measure(most, getChildMeasureSpec(heightSpec, 0, it.layoutParams.height)) }
        val height = lines(width).sumOf { line -> line.maxOf { it.measuredHeight } + gap }
        setMeasuredDimension(width, maxOf(height - gap, 0) + paddingTop + paddingBottom)
    }

    override fun onLayout(changed: Boolean, left: Int, top: Int, right: Int, bottom: Int) {
        val mirrored = layoutDirection == View.LAYOUT_DIRECTION_RTL
        var y = paddingTop
        for (line in lines(width)) {
            val height = line.maxOf { it.measuredHeight }
            var x = if (atEnd) width - paddingEnd - line.sumOf { it.measuredWidth + gap } + gap else paddingStart
            for (child in line) {
                val from = if (mirrored) width - x - child.measuredWidth else x
                val above = y + (height - child.measuredHeight) / 2
                child.layout(from, above, from + child.measuredWidth, above + child.measuredHeight)
                x += child.measuredWidth + gap
            }
            y += height + gap
        }
    }

    private fun shown() = (0 until childCount).map(::getChildAt).filter { it.visibility != View.GONE }

    private fun lines(width: Int): List<List<View>> {
        val lines = mutableListOf<MutableList<View>>()
        var room = 0
        for (child in shown()) {
            if (lines.isEmpty() || child.measuredWidth > room) {
                lines += mutableListOf<View>()
                room = width - paddingLeft - paddingRight
            }
            lines.last() += child
            room -= child.measuredWidth + gap
        }
        return lines
    }
}
