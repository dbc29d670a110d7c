import AppModel
import Charts
import SwiftUI

/// The training loss as a line, the evaluation loss as a line with dots, over the run's steps. What it shows is said in words too.
struct LossChart: View {
    let data: LossChartData
    let words: any Words
    @ScaledMetric private var height: CGFloat = 200
    @Environment(\.accessibilityReduceMotion) private var reduceMotion

    var body: some View {
        if data.training.isEmpty && data.evaluation.isEmpty {
            Text("chart_empty").foregroundStyle(.secondary)
        } else {
            chart
                .frame(height: height)
                .animation(reduceMotion ? nil : .default, value: data.training.count)
                .accessibilityElement(children: .ignore)
                .accessibilityLabel("loss")
                .accessibilityValue(data.spoken)
        }
    }

    private var chart: some View {
        let (training, evaluation) = (words.say("legend_training", []), words.say("legend_evaluation", []))
        let (step, loss) = (words.say("axis_step", []), words.say("axis_loss", []))
        return Chart {
            ForEach(data.training.filter(\.loss.isFinite)) { point in
                LineMark(x: .value(step, point.step), y: .value(loss, point.loss), series: .value(loss, training))
                    .foregroundStyle(by: .value(loss, training))
            }
            ForEach(data.evaluation.filter(\.loss.isFinite)) { point in
                LineMark(x: .value(step, point.step), y: .value(loss, point.loss), series: .value(loss, evaluation))
                    .foregroundStyle(by: .value(loss, evaluation))
                PointMark(x: .value(step, point.step), y: .value(loss, point.loss))
                    .foregroundStyle(by: .value(loss, evaluation))
            }
        }
        .chartXScale(domain: 0...max(data.steps, 1))
        .chartYScale(domain: (data.ticks.first ?? 0)...(data.ticks.last ?? 1))
        .chartYAxis {
            AxisMarks(values: data.ticks) { value in
                AxisGridLine()
                AxisValueLabel { Text(label(of: value.as(Double.self))) }
            }
        }
        .chartXAxisLabel(step)
        .chartForegroundStyleScale(domain: [training, evaluation], range: [Color.accentColor, Color.orange])
    }

    /// A tick as the person's language writes it.
    private func label(of tick: Double?) -> String {
        guard let tick, let index = data.ticks.firstIndex(of: tick), index < data.labels.count else { return "" }
        return data.labels[index]
    }
}
