import Foundation
import Observation

/// What the Try it screen shows and can do: a conversation, and the same prompt written by two.
@MainActor @Observable public final class TryScreenModel {
    @ObservationIgnored private let core: Core
    private var state: AppState { core.state }
    private var words: any Words { core.words }

    init(_ core: Core) {
        self.core = core
        system = core.settings[\.system]
    }

    public var sentence: String {
        if state.bundle == nil { return words("try_needs_model") }
        if state.run.active { return words("try_training") }
        if writing { return words("try_writing") }
        guard let voice = state.voice else { return words("try_untrained") }
        return words(voice == .run ? "try_paused" : "try_ready")
    }

    public var canWrite: Bool { state.bundle != nil && !state.run.active && !writing }
    public var writing: Bool { core.trial.writing }
    /// Ends what is being written; what there is stays.
    public func stop() { core.trial.stop() }

    // With what

    /// Whether answers are written with what was learned.
    public var adapterOn = true
    public var canSwitch: Bool { state.voice != nil }

    /// Those with an adapter; the model as it came is what the switch is for.
    public var voices: [Choice<Voice>] { core.trial.voices.map { Choice(value: $0, title: title(of: $0)) } }

    /// What the switch switches on.
    public var voice: Voice {
        get { state.voice ?? .base }
        set { core.trial.choose(newValue) }
    }

    /// "As it came", the adapter's name.
    public func title(of voice: Voice) -> String {
        switch voice {
        case .base: words("voice_base")
        case .run: words("voice_run")
        case .adapter(let id): state.adapters.first { $0.id == id }?.name ?? words("voice_gone")
        }
    }

    /// Whether the bundle says how a conversation is written, so that there is a choice.
    public var chats: Bool { state.bundle?.chats ?? false }

    /// A message is answered, else continued. As what was learned was learned, until the person says.
    public var asChat: Bool {
        get { chats && (core.settings[\.asChat] ?? learnedChat ?? true) }
        set { core.settings[\.asChat] = newValue }
    }

    private var learnedChat: Bool? {
        switch state.voice {
        case .adapter(let id): state.adapters.first { $0.id == id }.flatMap { $0.origin == .trained ? $0.chat : nil }
        case .run: core.runs.read(state.chosen ?? "")?.chat
        default: nil
        }
    }

    public var system: String

    /// 0 to 2, in tenths.
    public var temperature: Double {
        get { core.settings[\.temperature] }
        set {
            let rounded = (min(2, max(0, newValue)) * 10).rounded() / 10
            if rounded != temperature { core.settings[\.temperature] = rounded }
        }
    }
    public var temperatureLabel: String { words("temperature_of", words.decimal(temperature, digits: 1)) }

    // A conversation

    public var messages: [ChatMessage] { state.messages }
    public var draft = ""
    public var canSend: Bool { canWrite && !draft.trimmingCharacters(in: .whitespacesAndNewlines).isEmpty }

    public func send() {
        guard canSend else { return }
        if core.settings[\.system] != system { core.settings[\.system] = system }
        let text = asChat ? draft.trimmingCharacters(in: .whitespacesAndNewlines) : draft
        core.trial.send(text, adapterOn ? voice : .base, chat: asChat, system: system, temperature: temperature)
        draft = ""
    }

    public func clear() { core.trial.clear() }

    // The same prompt, written by two

    public var comparison: Comparison { state.comparison }
    public var prompt = ""
    public var canCompare: Bool { canWrite && !prompt.trimmingCharacters(in: .whitespacesAndNewlines).isEmpty }
    public var sides: [Choice<Voice>] { ([.base] + core.trial.voices).map { Choice(value: $0, title: title(of: $0)) } }

    private var chosenLeft: Voice?
    private var chosenRight: Voice?

    /// The model as it came, until another is chosen.
    public var left: Voice {
        get { known(chosenLeft) ?? .base }
        set { chosenLeft = newValue }
    }
    /// What was learned, until another is chosen.
    public var right: Voice {
        get { known(chosenRight) ?? voice }
        set { chosenRight = newValue }
    }

    private func known(_ voice: Voice?) -> Voice? { voice.flatMap { $0 == .base || core.trial.voices.contains($0) ? $0 : nil } }

    public func compare() {
        guard canCompare else { return }
        core.trial.compare(prompt, left, right, chat: asChat, temperature: temperature)
    }
}
