import AppModel
import SwiftUI

/// The model's layers from the first to the last as this step treats them: full for those that it trains, half for those that the gradient
/// passes through, an outline for those it skips; a mark below the one that runs now.
struct LayerStrip: View {
    let data: LayerStripData
    @Environment(\.accessibilityReduceMotion) private var reduceMotion

    var body: some View {
        VStack(alignment: .leading, spacing: 8) {
            HStack(spacing: data.roles.count > 40 ? 1 : 3) {
                ForEach(data.roles.indices, id: \.self) { layer in
                    VStack(spacing: 2) {
                        LayerBox(role: data.roles[layer]).frame(maxWidth: 48, minHeight: 32, maxHeight: 32)
                        Capsule().fill(layer == data.running ? Color.orange : .clear).frame(maxWidth: 48, minHeight: 4, maxHeight: 4)
                    }
                }
            }
            .animation(reduceMotion ? nil : .easeInOut(duration: 0.15), value: data.running)
            Legend()
        }
        .accessibilityElement(children: .ignore)
        .accessibilityLabel("layers_title")
        .accessibilityValue(data.spoken)
    }
}

private struct LayerBox: View {
    let role: LayerRole

    var body: some View {
        let shape = RoundedRectangle(cornerRadius: 3)
        switch role {
        case .trained: shape.fill(Color.accentColor)
        case .passed: shape.fill(Color.accentColor.opacity(0.35))
        case .skipped: shape.strokeBorder(Color.secondary)
        }
    }
}

/// What the boxes mean.
private struct Legend: View {
    private let entries: [(role: LayerRole?, words: LocalizedStringKey)] = [
        (.trained, "layer_trained"), (.passed, "layer_passed"), (.skipped, "layer_skipped"), (nil, "layer_running"),
    ]

    var body: some View {
        ViewThatFits(in: .horizontal) {
            HStack(spacing: 16) { content }
            VStack(alignment: .leading) { content }
        }
        .font(.caption)
        .foregroundStyle(.secondary)
    }

    private var content: some View {
        ForEach(entries.indices, id: \.self) { index in
            HStack(spacing: 6) {
                if let role = entries[index].role {
                    LayerBox(role: role).frame(width: 18, height: 10)
                } else {
                    Capsule().fill(Color.orange).frame(width: 18, height: 4)
                }
                Text(entries[index].words)
            }
        }
    }
}
