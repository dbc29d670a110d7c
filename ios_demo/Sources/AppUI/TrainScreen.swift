import AppModel
import SwiftUI

/// The run: what it is at, what can be done with it, its losses, and what the next one is to be like.
struct TrainScreen: View {
    private let main: MainModel
    private let model: TrainScreenModel
    @State private var stopping = false

    init(main: MainModel) { (self.main, model) = (main, main.train) }

    var body: some View {
        List {
            ProblemSection(main: main)
            Section {
                VStack(alignment: .leading, spacing: 8) {
                    Text(model.title).font(.headline).accessibilityAddTraits(.isHeader)
                    Text(model.sentence).monospacedDigit().accessibilityAddTraits(.updatesFrequently)
                    progress
                    buttons
                }
            }
            Section { LossChart(data: model.chart, words: main.words) } header: { Text("loss") }
            Section {
                DisclosureGroup("problem_more") {
                    Text("layers_title").font(.subheadline).accessibilityHidden(true)
                    LayerStrip(data: model.layers)
                    Text("phone_title").font(.subheadline).accessibilityAddTraits(.isHeader)
                    FigureGrid(figures: model.phone)
                }
            }
            if model.showsOptions { TrainOptions(model: model) }
        }
        .confirmationDialog("stop_title", isPresented: $stopping, titleVisibility: .visible) {
            Button("stop", role: .destructive) { model.stop() }
            Button("keep_run", role: .cancel) {}
        } message: {
            Text("stop_text")
        }
    }

    @ViewBuilder private var progress: some View {
        if model.busy {
            ProgressView(value: Double?.none).accessibilityLabel(model.title)
        } else if let fraction = model.fraction {
            ProgressView(value: fraction).accessibilityLabel(model.title).accessibilityValue(model.sentence)
        }
    }

    private var buttons: some View {
        ButtonRow {
            if model.showsStart {
                Button(model.startTitle) { model.start() }
                    .buttonStyle(.borderedProminent)
                    .disabled(!model.canStart)
            }
            if model.showsStartAtNight { Button("start_at_night") { model.startAtNight() }.disabled(!model.canStart) }
            if model.showsPause { Button("pause") { model.pause() }.disabled(!model.canPause) }
            if model.showsStop { Button("stop", role: .destructive) { stopping = true }.disabled(!model.canStop) }
            if model.showsTry { Button("try_it") { main.shown = .tryIt } }
        }
    }
}

/// What can be chosen before a run.
private struct TrainOptions: View {
    @Bindable var model: TrainScreenModel

    var body: some View {
        Section {
            VStack(alignment: .leading) {
                Text(model.stepsLabel).monospacedDigit().accessibilityHidden(true)
                Slider(value: steps, in: 0...Double(TrainScreenModel.stepChoices.count - 1), step: 1) { Text("report_steps") }
                    .disabled(!model.canChangeSteps)
                    .accessibilityValue(model.stepsLabel)
            }
            if model.beginnings.count > 1 { ChoicePicker(title: "begin_with", choices: model.beginnings, selection: $model.beginning) }
            ChoicePicker(title: "budget", choices: model.budgets, selection: $model.budget)
            Toggle("train_idle", isOn: $model.trainsAtNight)
        } header: {
            Text("options")
        } footer: {
            Note("train_idle_note")
        }
    }

    /// A slider moves a number with a fraction.
    private var steps: Binding<Double> { Binding(get: { Double(model.stepChoice) }, set: { model.stepChoice = Int($0.rounded()) }) }
}
