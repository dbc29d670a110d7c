package lcsbmobile.app

import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.graphics.RectF
import android.util.AttributeSet
import android.util.TypedValue
import android.view.View

/** What a step does with a layer. */
enum class LayerRole { TRAINED, PASSED, SKIPPED }

/**
 * The model's layers from the first (at the start) to the last, as this step treats them: full for those that it trains, half for those
 * that the gradient passes through, an outline for those it skips; a mark below the one that runs now.
 */
class LayerStrip(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private var roles = emptyList<LayerRole>()
    private var running = -1

    private val unit = resources.displayMetrics.density
    private val label = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = context.getColor(R.color.on_surface_variant)
        textSize = TypedValue.applyDimension(TypedValue.COMPLEX_UNIT_SP, 12f, resources.displayMetrics)
    }
    private val full = paint(R.color.primary)
    private val half = paint(R.color.primary).apply { alpha = 90 }
    private val outline = paint(R.color.outline).apply {
        style = Paint.Style.STROKE
        strokeWidth = unit
    }
    private val mark = paint(R.color.tertiary)
    private val box = RectF()

    private fun paint(color: Int) = Paint(Paint.ANTI_ALIAS_FLAG).apply { this.color = context.getColor(color) }

    /** [running]: the layer at work, -1 for none. */
    fun show(roles: List<LayerRole>, running: Int) {
        if (roles != this.roles) {
            this.roles = roles
            contentDescription = inWords()
        }
        this.running = running
        invalidate()
    }

    private fun inWords(): String {
        val trained = roles.indices.filter { roles[it] == LayerRole.TRAINED }
        if (trained.isEmpty()) return context.getString(R.string.layers_none)
        val passed = ranges(roles.indices.filter { roles[it] == LayerRole.PASSED }).ifEmpty { "–" }
        return context.getString(R.string.layers_words, formatCount(resources, roles.size.toLong()), ranges(trained), passed)
    }

    override fun onMeasure(widthSpec: Int, heightSpec: Int) {
        val width = MeasureSpec.getSize(widthSpec)
        setMeasuredDimension(width, (STRIP * unit + legend.height(width)).toInt())
    }

    override fun onDraw(canvas: Canvas) {
        if (roles.isNotEmpty()) drawLayers(canvas)
        legend.draw(canvas, STRIP * unit)
    }

    private fun drawLayers(canvas: Canvas) {
        val pitch = minOf(width.toFloat() / roles.size, 64 * unit)
        val gap = if (pitch > 8 * unit) 3 * unit else unit
        roles.forEachIndexed { i, role ->
            val x = if (layoutDirection == LAYOUT_DIRECTION_RTL) width - (i + 1) * pitch else i * pitch
            box.set(x + gap / 2, unit, x + pitch - gap / 2, (STRIP - 16) * unit)
            val corner = minOf(4 * unit, pitch / 4)
            if (role == LayerRole.SKIPPED) box.inset(unit / 2, unit / 2)
            canvas.drawRoundRect(box, corner, corner, paint(role))
            if (i == running) {
                box.set(x + gap / 2, (STRIP - 13) * unit, x + pitch - gap / 2, (STRIP - 9) * unit)
                canvas.drawRoundRect(box, 2 * unit, 2 * unit, mark)
            }
        }
    }

    private fun paint(role: LayerRole) = when (role) {
        LayerRole.TRAINED -> full
        LayerRole.PASSED -> half
        LayerRole.SKIPPED -> outline
    }

    private val legend by lazy {
        fun entry(words: Int, paint: Paint) = Legend.Entry(context.getString(words)) { canvas, box -> drawSample(canvas, box, paint) }
        val roles = listOf(entry(R.string.layer_trained, full), entry(R.string.layer_passed, half), entry(R.string.layer_skipped, outline))
        Legend(this, label, roles + entry(R.string.layer_running, mark))
    }

    private fun drawSample(canvas: Canvas, box: RectF, paint: Paint) {
        if (paint === mark) box.top = box.bottom - 4 * unit
        canvas.drawRoundRect(box, 2 * unit, 2 * unit, paint)
    }

    companion object {
        private const val STRIP = 56

        /** Layer numbers from 0 as people count them: 1–3, 5. */
        fun ranges(layers: List<Int>): String {
            val runs = mutableListOf<IntRange>()
            for (layer in layers) {
                val goesOn = runs.lastOrNull()?.last == layer - 1
                if (goesOn) runs[runs.lastIndex] = runs.last().first..layer else runs += layer..layer
            }
            return runs.joinToString(", ") { if (it.first == it.last) "${it.first + 1}" else "${it.first + 1}–${it.last + 1}" }
        }
    }
}
