package lcsbmobile.app

import android.graphics.Canvas
import android.graphics.Paint
import android.graphics.RectF
import android.view.View

/** Samples of what a drawing's marks mean, each with its words, in as many lines as they need; it begins where [view]'s text begins. */
class Legend(private val view: View, private val text: Paint, private val entries: List<Entry>) {
    /** [draw] fills the box, which is as high as a small letter and twice as wide. */
    class Entry(val words: String, val draw: (Canvas, RectF) -> Unit)

    private val line = text.textSize * 1.6f
    private val sample = text.textSize * 1.4f
    private val gap = text.textSize * 0.5f
    private val box = RectF()

    fun height(width: Int): Float = lines(width).size * line

    fun draw(canvas: Canvas, top: Float) {
        val mirrored = view.layoutDirection == View.LAYOUT_DIRECTION_RTL
        lines(view.width).forEachIndexed { number, entries ->
            val y = top + number * line + text.textSize
            var x = 0f
            for (entry in entries) {
                val from = if (mirrored) view.width - x - sample else x
                box.set(from, y - text.textSize * 0.7f, from + sample, y)
                entry.draw(canvas, box)
                canvas.drawText(entry.words, if (mirrored) from - gap - text.measureText(entry.words) else from + sample + gap, y, text)
                x += width(entry)
            }
        }
    }

    private fun width(entry: Entry) = sample + gap + text.measureText(entry.words) + text.textSize * 1.4f

    private fun lines(width: Int): List<List<Entry>> {
        val lines = mutableListOf<MutableList<Entry>>()
        var room = 0f
        for (entry in entries) {
            if (lines.isEmpty() || width(entry) - text.textSize * 1.4f > room) {
                lines += mutableListOf<Entry>()
                room = width.toFloat()
            }
            lines.last() += entry
            room -= width(entry)
        }
        return lines
    }
}
