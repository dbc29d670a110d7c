import AppModel
import SwiftUI

// What several screens show.

/// What went wrong and what to do, above whichever section is shown.
struct ProblemSection: View {
    /// Of this app's page in the system's settings; UIKit has it as `UIApplication.openSettingsURLString`.
    static let settings = URL(string: "app-settings:")!

    let main: MainModel
    /// The problem whose details are shown.
    @State private var opened: ProblemCard?
    @Environment(\.openURL) private var openURL

    var body: some View {
        if let problem = main.problem {
            Section {
                VStack(alignment: .leading, spacing: 8) {
                    Label {
                        Text(problem.what).font(.headline)
                    } icon: {
                        Image(systemName: "exclamationmark.triangle.fill").foregroundStyle(.red)
                    }
                    .accessibilityAddTraits(.isHeader)
                    Text(problem.todo)
                    if let detail = problem.detail, opened == problem {
                        Text(verbatim: detail).font(.footnote).monospacedDigit().textSelection(.enabled)
                    }
                    ButtonRow {
                        if let title = problem.actionTitle { Button(title) { act(problem) } }
                        if problem.detail != nil && opened != problem { Button("problem_more") { opened = problem } }
                        Button("dismiss") { main.dismissProblem() }
                    }
                }
            }
        }
    }

    private func act(_ problem: ProblemCard) {
        if problem.action == .openSettings { openURL(Self.settings) } else { main.act() }
    }
}

/// Buttons side by side, or below each other where the letters are too large for that. In a list's row each has to look like a button, or a
/// tap on the row would press them all.
struct ButtonRow<Content: View>: View {
    @ViewBuilder let content: Content

    var body: some View {
        ViewThatFits(in: .horizontal) {
            HStack { content }
            VStack(alignment: .leading) { content }
        }
        .buttonStyle(.bordered)
    }
}

/// Figures with what they are, in as many columns as the letters leave room for. Each is read out as one.
struct FigureGrid: View {
    let figures: [Figure]
    @ScaledMetric private var width: CGFloat = 120

    var body: some View {
        LazyVGrid(columns: [GridItem(.adaptive(minimum: width), alignment: .topLeading)], alignment: .leading, spacing: 12) {
            ForEach(figures) { figure in
                VStack(alignment: .leading) {
                    Text(figure.value).font(.headline).monospacedDigit()
                    Text(figure.label).font(.caption).foregroundStyle(.secondary)
                }
                .accessibilityElement(children: .ignore)
                .accessibilityLabel(figure.label)
                .accessibilityValue(figure.value)
            }
        }
    }
}

/// Something that takes long, and can be ended.
struct TransferView: View {
    let transfer: TransferRow
    let cancel: @MainActor () -> Void

    var body: some View {
        VStack(alignment: .leading, spacing: 8) {
            ProgressView(value: transfer.fraction) { Text(transfer.title) }
            if !transfer.detail.isEmpty { Text(transfer.detail).font(.footnote).monospacedDigit().foregroundStyle(.secondary) }
            ButtonRow { Button("cancel", role: .cancel, action: cancel) }
        }
    }
}

/// A note below a section.
struct Note: View {
    let key: LocalizedStringKey

    init(_ key: LocalizedStringKey) { self.key = key }

    var body: some View { Text(key).font(.footnote).foregroundStyle(.secondary) }
}

/// A choice of several that the model words.
struct ChoicePicker<Value: Hashable & Sendable>: View {
    let title: LocalizedStringKey
    let choices: [Choice<Value>]
    @Binding var selection: Value

    var body: some View {
        Picker(title, selection: $selection) {
            ForEach(choices) { Text($0.title).tag($0.value) }
        }
    }
}
