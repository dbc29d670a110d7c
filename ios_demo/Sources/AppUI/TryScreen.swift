import AppModel
import SwiftUI

/// A conversation with the model, with or without what it learned; or the same prompt continued by two.
struct TryScreen: View {
    private let main: MainModel
    private let model: TryScreenModel
    @State private var mode = Mode.conversation

    enum Mode { case conversation, comparison }

    init(main: MainModel) { (self.main, model) = (main, main.tryIt) }

    var body: some View {
        List {
            ProblemSection(main: main)
            Section {
                Picker("try_mode", selection: $mode) {
                    Text("chat").tag(Mode.conversation)
                    Text("compare").tag(Mode.comparison)
                }
                .pickerStyle(.segmented)
                Text(model.sentence).foregroundStyle(.secondary)
            }
            switch mode {
            case .conversation:
                Conversation(model: model)
                Manner(model: model)
            case .comparison:
                SideBySide(model: model)
                Section { TemperatureSlider(model: model) } header: { Text("options") }
            }
        }
    }
}

private struct Conversation: View {
    @Bindable var model: TryScreenModel

    var body: some View {
        Section {
            ForEach(model.messages) { message in
                MessageBubble(message: message, speaker: message.voice.map(model.title(of:)))
            }
            TextField("chat_hint", text: $model.draft, axis: .vertical)
                .lineLimit(1...6)
                .submitLabel(.send)
                .onSubmit { if model.canSend { model.send() } }
            ButtonRow {
                Button("send") { model.send() }.buttonStyle(.borderedProminent).disabled(!model.canSend)
                if model.writing { Button("stop_writing") { model.stop() } }
                if !model.messages.isEmpty { Button("clear_chat") { model.clear() }.disabled(model.writing) }
            }
        }
    }
}

/// A message: the person's to the right, an answer to the left with who gave it.
private struct MessageBubble: View {
    let message: ChatMessage
    /// Nil: the person.
    let speaker: String?

    var body: some View {
        VStack(alignment: message.mine ? .trailing : .leading, spacing: 4) {
            Group { if let speaker { Text(speaker) } else { Text("you") } }.font(.caption).foregroundStyle(.secondary)
            Text(verbatim: message.text + (message.cut ? "…" : ""))
                .textSelection(.enabled)
                .padding(10)
                .background((message.mine ? Color.accentColor : .secondary).opacity(0.2), in: RoundedRectangle(cornerRadius: 14))
            if !message.complete { ProgressView("try_writing").font(.caption) }
        }
        .frame(maxWidth: .infinity, alignment: message.mine ? .trailing : .leading)
        .accessibilityElement(children: .combine)
    }
}

/// Who answers, and how.
private struct Manner: View {
    @Bindable var model: TryScreenModel

    var body: some View {
        Section {
            Toggle("adapter_switch", isOn: $model.adapterOn).disabled(!model.canSwitch)
            if model.voices.count > 1 {
                ChoicePicker(title: "adapters_title", choices: model.voices, selection: $model.voice)
                    .disabled(!model.adapterOn || !model.canSwitch)
            }
            if model.chats { Toggle("as_chat", isOn: $model.asChat) }
            if model.asChat {
                LabeledContent("system_prompt") { TextField("system_hint", text: $model.system, axis: .vertical).lineLimit(1...4) }
            }
            TemperatureSlider(model: model)
        } header: {
            Text("options")
        }
    }
}

private struct TemperatureSlider: View {
    @Bindable var model: TryScreenModel

    var body: some View {
        VStack(alignment: .leading) {
            Text(model.temperatureLabel).monospacedDigit().accessibilityHidden(true)
            Slider(value: $model.temperature, in: 0...2, step: 0.1) { Text("variety") }.accessibilityValue(model.temperatureLabel)
        }
    }
}

private struct SideBySide: View {
    @Bindable var model: TryScreenModel

    var body: some View {
        Section {
            TextField("prompt_hint", text: $model.prompt, axis: .vertical).lineLimit(1...6)
            ChoicePicker(title: "first_side", choices: model.sides, selection: $model.left)
            ChoicePicker(title: "second_side", choices: model.sides, selection: $model.right)
            ButtonRow {
                Button("write") { model.compare() }.buttonStyle(.borderedProminent).disabled(!model.canCompare)
                if model.comparison.writing { Button("stop_writing") { model.stop() } }
            }
        }
        if let prompt = model.comparison.prompt {
            Side(title: model.title(of: model.left), prompt: prompt, text: model.comparison.left)
            Side(title: model.title(of: model.right), prompt: prompt, text: model.comparison.right)
        }
    }
}

private struct Side: View {
    let title: String, prompt: String, text: String

    var body: some View {
        Section {
            Text(verbatim: prompt + text).textSelection(.enabled)
        } header: {
            Text(title)
        }
    }
}
