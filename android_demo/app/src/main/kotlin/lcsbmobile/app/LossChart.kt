package lcsbmobile.app

import android.content.Context
import android.graphics.Canvas
import android.graphics.Paint
import android.graphics.Path
import android.graphics.RectF
import android.text.Layout
import android.text.StaticLayout
import android.text.TextPaint
import android.util.AttributeSet
import android.util.TypedValue
import android.view.View
import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.log10
import kotlin.math.pow

/** One point of a curve: the loss at a step. */
class LossPoint(val step: Int, val loss: Double)

/**
 * The training loss, smoothed, as a line, with each step's own behind it, and the evaluation loss as a line with dots, over the run's
 * steps. The legend says what both have come to. What it shows is said in words too.
 */
class LossChart(context: Context, attributes: AttributeSet?) : View(context, attributes) {
    private var training = emptyList<LossPoint>()
    private var smooth = emptyList<LossPoint>()
    private var evaluation = emptyList<LossPoint>()
    private var steps = 1

    private val unit = resources.displayMetrics.density
    private val label = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        color = context.getColor(R.color.on_surface_variant)
        textSize = TypedValue.applyDimension(TypedValue.COMPLEX_UNIT_SP, 12f, resources.displayMetrics)
    }
    private val grid = Paint().apply {
        color = context.getColor(R.color.outline_variant)
        strokeWidth = unit
    }
    private val trained = line(R.color.primary)
    private val each = line(R.color.primary).apply {
        strokeWidth = 1.5f * unit
        alpha = 70
    }
    private val evaluated = line(R.color.tertiary)
    private val dot = Paint(Paint.ANTI_ALIAS_FLAG).apply { color = context.getColor(R.color.tertiary) }
    private val path = Path()
    private var legend = makeLegend()

    /** What the lines mean, and what they have come to. */
    private fun makeLegend(): Legend {
        fun entry(words: Int, last: LossPoint?, paint: Paint): Legend.Entry {
            val name = context.getString(words)
            val text = if (last == null) name else context.getString(R.string.labelled, name, decimal(last.loss, 2))
            return Legend.Entry(text) { canvas, box -> drawSample(canvas, box, paint) }
        }
        val curves = listOf(
            entry(R.string.legend_training, smooth.lastOrNull(), trained),
            entry(R.string.legend_evaluation, evaluation.lastOrNull(), evaluated),
        )
        return Legend(this, label, curves)
    }

    private fun line(color: Int) = Paint(Paint.ANTI_ALIAS_FLAG).apply {
        style = Paint.Style.STROKE
        strokeWidth = 2.5f * unit
        strokeJoin = Paint.Join.ROUND
        strokeCap = Paint.Cap.ROUND
        this.color = context.getColor(color)
    }

    /** [steps]: the run's whole length, which the horizontal axis spans. */
    fun show(training: List<LossPoint>, evaluation: List<LossPoint>, steps: Int) {
        if (training !== this.training) smooth = smoothed(training)
        this.training = training
        this.evaluation = evaluation
        this.steps = maxOf(steps, 1)
        contentDescription = inWords()
        val before = legend.height(width)
        legend = makeLegend()
        if (legend.height(width) != before) requestLayout()
        invalidate()
    }

    private fun inWords(): String {
        val last = smooth.lastOrNull() ?: return context.getString(R.string.chart_empty)
        val first = smooth.first()
        val steps = formatCount(resources, last.step.toLong())
        val trainingWords = context.getString(R.string.chart_training, steps, decimal(first.loss), decimal(last.loss))
        val lastEvaluation = evaluation.lastOrNull() ?: return trainingWords
        val evaluationWords = context.getString(R.string.chart_evaluation, decimal(evaluation.first().loss), decimal(lastEvaluation.loss))
        return "$trainingWords $evaluationWords"
    }

    private fun decimal(value: Double, digits: Int = 3) = formatDecimal(resources, value, digits)

    /** The plot is as high as it was asked to be; what is written around it comes in addition. */
    override fun onMeasure(widthSpec: Int, heightSpec: Int) {
        val width = MeasureSpec.getSize(widthSpec)
        setMeasuredDimension(width, (resources.getDimension(R.dimen.chart) + legend.height(width) + label.textSize * 1.6f).toInt())
    }

    override fun onDraw(canvas: Canvas) {
        val above = legend.height(width)
        val losses = (training + evaluation).map { it.loss }.filter { it.isFinite() }
        legend.draw(canvas, 0f)
        if (losses.isEmpty()) {
            return drawEmpty(canvas, above)
        }
        val ticks = ticks(losses.min(), losses.max())
        val digits = maxOf(0, -floor(log10(ticks[1] - ticks[0]) + 1e-9).toInt())
        val labels = ticks.map { decimal(it, digits) }
        val axis = labels.maxOf(label::measureText) + 8 * unit
        val top = above + 4 * unit
        val bottom = height - label.textSize * 1.6f
        val plot = Plot(axis, width - 6 * unit, top, bottom, ticks.first(), ticks.last(), steps)
        ticks.forEachIndexed { i, tick ->
            val y = plot.y(tick)
            canvas.drawLine(axis, y, width.toFloat(), y, grid)
            canvas.drawText(labels[i], axis - 8 * unit - label.measureText(labels[i]), y + label.textSize * 0.35f, label)
        }
        drawSteps(canvas, plot)
        drawCurve(canvas, plot, training, each)
        drawCurve(canvas, plot, smooth, trained)
        drawCurve(canvas, plot, evaluation, evaluated)
        evaluation.filter { it.loss.isFinite() }.forEach { canvas.drawCircle(plot.x(it.step), plot.y(it.loss), 4 * unit, dot) }
    }

    /** In as many lines as it needs. */
    private fun drawEmpty(canvas: Canvas, above: Float) {
        val text = context.getString(R.string.chart_empty)
        val lines = StaticLayout.Builder.obtain(text, 0, text.length, TextPaint(label), width).setAlignment(Layout.Alignment.ALIGN_CENTER).build()
        canvas.save()
        canvas.translate(0f, (height + above - lines.height) / 2)
        lines.draw(canvas)
        canvas.restore()
    }

    private class Plot(
        val left: Float,
        val right: Float,
        val top: Float,
        val bottom: Float,
        val low: Double,
        val high: Double,
        val steps: Int,
    ) {
        fun x(step: Int) = left + (right - left) * step / steps

        fun y(loss: Double) = (bottom - (bottom - top) * (loss - low) / (high - low)).toFloat()
    }

    private fun drawSample(canvas: Canvas, box: RectF, paint: Paint) {
        canvas.drawLine(box.left, box.centerY(), box.right, box.centerY(), paint)
        if (paint === evaluated) canvas.drawCircle(box.centerX(), box.centerY(), 4 * unit, dot)
    }

    private fun drawSteps(canvas: Canvas, plot: Plot) {
        for (step in listOf(0, steps / 2, steps).distinct()) {
            val text = formatCount(resources, step.toLong())
            val x = (plot.x(step) - label.measureText(text) / 2).coerceIn(0f, width - label.measureText(text))
            canvas.drawText(text, x, height - 2 * unit, label)
        }
    }

    private fun drawCurve(canvas: Canvas, plot: Plot, points: List<LossPoint>, paint: Paint) {
        val finite = points.filter { it.loss.isFinite() }
        path.reset()
        finite.forEachIndexed { i, point ->
            if (i == 0) path.moveTo(plot.x(point.step), plot.y(point.loss)) else path.lineTo(plot.x(point.step), plot.y(point.loss))
        }
        if (finite.size == 1) canvas.drawPoint(plot.x(finite[0].step), plot.y(finite[0].loss), paint)
        canvas.drawPath(path, paint)
    }

    companion object {
        private const val KEPT = 0.9 // of the average, at each step

        /** The exponential moving average, without what it would have of a zero before the first; points that are not finite left out. */
        fun smoothed(points: List<LossPoint>): List<LossPoint> {
            var (sum, weight) = 0.0 to 0.0
            return points.filter { it.loss.isFinite() }.map {
                sum = KEPT * sum + (1 - KEPT) * it.loss
                weight = KEPT * weight + (1 - KEPT)
                LossPoint(it.step, sum / weight)
            }
        }

        /** Three to six round numbers that enclose [low] and [high], in equal steps. */
        fun ticks(low: Double, high: Double): List<Double> {
            val span = maxOf(high - low, maxOf(kotlin.math.abs(high), 1e-3) * 0.02)
            val rough = span / 3
            val power = 10.0.pow(floor(log10(rough)))
            val step = listOf(1.0, 2.0, 5.0, 10.0).first { it * power >= rough * 0.999 } * power
            val first = floor(low / step).toLong()
            val last = maxOf(ceil(high / step).toLong(), first + 2)
            return (first..last).map { it * step }
        }
    }
}
